"""The report in words: how its numbers are written, what they say, and what they do not say."""

from collections.abc import Mapping, Sequence
from typing import Any

Values = Mapping[str, Any]

NAMES = {
    "scratch": "scratch",
    "local": "local",
    "federated": "federated",
    "centralised": "centralised",
    "chance": "chance",
    "majority": "majority",
    "question_only": "question only",
}

MEANINGS = {
    "scratch": "no pre-training",
    "local": "each site pre-trains alone",
    "federated": "sites pre-train together, images stay",
    "centralised": "one pooled archive, the upper bound",
    "chance": "a uniform guess among the answers of the question's type",
    "majority": "the site's most frequent training answer of the question's type",
    "question_only": "the most frequent training answer to the same words",
}


def name_of(arm: str) -> str:
    """The arm or guess as people call it."""
    return NAMES.get(arm, arm)


def pair_name(pair: str, difference: Values) -> str:
    """`federated-local` as the subtraction that it is, with a true minus sign."""
    return " − ".join(_names(pair, difference))  # noqa: RUF001


def _names(pair: str, difference: Values) -> list[str]:
    # Reports from before `arms` was written compared no arm with a hyphen in its name.
    return [name_of(arm) for arm in difference.get("arms", pair.split("-"))]


def percent(share: float) -> str:
    """A share in percent, one decimal: three figures are all that a few hundred answers carry."""
    return f"{100 * share:.1f}"


def score_text(score: Values | None) -> str:
    """`66.1 (64.0 to 68.2)`: percent right and its interval."""
    if score is None:
        return "none"
    return f"{percent(score['mean'])} ({percent(score['ci95'][0])} to {percent(score['ci95'][1])})"


def points_text(difference: Values) -> str:
    """`+6.2 (+3.1 to +9.4)`: percentage points and their interval, with a true minus sign."""
    value, (low, high) = difference["diff"], difference["ci95"]
    return f"{_signed(value)} ({_signed(low)} to {_signed(high)})"


def megabytes(count: int) -> str:
    """Bytes as MB of a million bytes; from a thousand on without decimals."""
    return f"{count / 1e6:,.{1 if count < 1e9 else 0}f}" if count else "0"


def duration(seconds: float) -> str:
    """`4 min 10 s`, or `12 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def separates(difference: Values) -> bool:
    """Whether the interval leaves out zero."""
    low, high = difference["ci95"]
    return bool(low > 0 or high < 0)


def finding(pair: str, difference: Values) -> str:
    """One sentence on a paired difference, which claims nothing where the interval holds zero."""
    a, b = _names(pair, difference)
    if not separates(difference):
        return f"No difference between {a} and {b} is shown: {points_text(difference)} points."
    direction = "above" if difference["diff"] > 0 else "below"
    low, high = sorted(abs(limit) for limit in difference["ci95"])
    return (
        f"{a.capitalize()} is {percent(abs(difference['diff']))} points {direction} {b} "
        f"({percent(low)} to {percent(high)})."
    )


def by_seed_text(difference: Values) -> str:
    """The difference of each seed, in the order of the seeds."""
    seeds = sorted(difference["by_seed"], key=int)
    return ", ".join(f"{_signed(difference['by_seed'][seed])} (seed {seed})" for seed in seeds)


def reading(report: Values) -> list[str]:
    """What a reader must know to take the numbers for what they are."""
    seeds, tested = report["seeds"], report["tested"]
    notes = [
        f"{_data_note(report['data'])} Case: {report['case']}.",
        f"Each arm gave {tested['answers']:,} answers, to {tested['questions']:,} test questions about "
        f"{tested['images']:,} images at {_asked(report['sites'])}, {_seeds_note(seeds)}.",
        _interval_note(report["intervals"]["clusters"], seeds),
        f"Questions and splits: {report['measured']['split']}. Right means that the whole answer reads the same once "
        f"normalised by `{report['measured']['normaliser']}`; a part of it is wrong.",
        _as_sentence(f"the weights that answer: {report['measured']['selection'] or 'as they were left'}"),
        "The worst site is chosen by its own score, so chance alone makes it look worse than it is.",
    ]
    if report["out_of_list"] is not None:
        share = report["out_of_list"]
        notes.append(
            f"{percent(share)} % of the test answers are not among their site's training answers; candidates are the "
            f"training answers, so no arm could exceed {percent(1 - share)} %."
        )
    if any(scores["wall_s"] for scores in report["arms"].values()):
        notes.append(
            "Time adds up an arm's rounds; arms run side by side on the same cores, so it is no measure of speed."
        )
    return notes + [_as_sentence(caveat) for caveat in report["caveats"]]


def _asked(sites: Values) -> str:
    """How many sites were asked anything; those of a report without numbers were."""
    count = sum(facts.get("test_questions", 1) > 0 for facts in sites.values())
    return f"{count} site" if count == 1 else f"{count} sites"


def _data_note(data: str) -> str:
    if data == "synthetic":
        return "Synthetic images: the numbers compare ways of training and say nothing of accuracy on patients."
    return "Real images from the source named in the case; a research comparison, not a clinical evaluation."


def _seeds_note(seeds: Sequence[int]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"over the seeds {', '.join(map(str, seeds))}"


def _interval_note(clusters: Sequence[str], seeds: Sequence[int]) -> str:
    together = ", each with its answers of all seeds" if len(seeds) > 1 and "seeds" not in clusters else ""
    note = f"Intervals are 95 % percentile bootstrap intervals that resample images{together}, not single answers; "
    note += "differences are paired by question. "
    if len(seeds) == 1:
        return note + "With one seed they leave out the luck of training and of drawing the hospitals."
    return note + "Seeds are not resampled: read the differences by seed for the luck of training."


def _as_sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."


def _signed(share: float) -> str:
    text = f"{100 * share:+.1f}"
    return ("0.0" if text in ("+0.0", "-0.0") else text).replace("-", "−")  # noqa: RUF001
