"""An evaluation for people: Markdown, and two plots in one SVG file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

NAMES = {
    "majority": "majority answer",
    "question_only": "question only",
    "blank_image": "model, blank image",
    "shuffled_image": "model, wrong image",
}

KINDS = ("overall", "open", "closed")

Card = Mapping[str, Any]


def to_markdown(card: Card, title: str) -> str:
    """The whole evaluation as a page."""
    protocol, confidence = card["protocol"], card["confidence"]
    rows = {f"model ({card['method']})": card["scores"]} | {NAMES[n]: s for n, s in card["beside"].items()}
    lines = [
        f"# {title}",
        "",
        f"- protocol: {protocol['split']} ({', '.join(protocol['names'])}); {protocol['asked']} split, {protocol['n']} "
        f"questions on {protocol['images']} images; {protocol['train']} training questions",
        f"- normaliser: {card['normaliser']}; exact match",
        f"- selection: {card['selection']}",
        "- intervals: 95 %, percentile bootstrap over images",
        "",
        "Percent right. Majority and question only are guesses that never see an image; a wrong image is another "
        "question's.",
        "",
        "| | overall | open | closed |",
        "|---|---|---|---|",
        *(
            f"| {name} | {' | '.join(percent(scores[k]) for k in ('overall', 'open', 'closed'))} |"
            for name, scores in rows.items()
        ),
        "",
        "| model less | points | exact McNemar p |",
        "|---|---|---|",
        *(
            f"| {NAMES[name]} | {points(value)} | {value['mcnemar_p']:.2g} |"
            for name, value in card["differences"].items()
        ),
        "",
        f"Words: token F1 {percent(card['words']['token_f1'])}, BLEU-1 {percent(card['words']['bleu_1'])}.",
        "",
        confidence_text(confidence),
        "",
        *trust_lines(card.get("trust")),
        out_of_list_text(card["out_of_list"]),
        "",
        "| question type | n | percent right |",
        "|---|---|---|",
        *(
            f"| {name} | {score['n']} | {percent(score)} |"
            for name, score in card["scores"]["by_question_type"].items()
        ),
        "",
    ]
    return "\n".join(lines)


def to_console(card: Card, console: Console) -> None:
    """The main numbers on a terminal."""
    protocol = card["protocol"]
    console.print(f"{protocol['split']}; {protocol['asked']}, {protocol['n']} questions on {protocol['images']} images")
    console.print(f"exact match, normaliser {card['normaliser']}; {card['selection']}; 95 % intervals over images")
    table = Table("percent right", "overall", "open", "closed", box=SIMPLE_HEAD)
    rows = {f"model ({card['method']})": card["scores"]} | {NAMES[n]: s for n, s in card["beside"].items()}
    for name, scores in rows.items():
        table.add_row(name, *(percent(scores[kind]) for kind in KINDS))
    console.print(table)
    console.print(confidence_text(card["confidence"]))
    for line in filter(None, trust_lines(card.get("trust"))):
        console.print(line)
    console.print(out_of_list_text(card["out_of_list"]))


def percent(score: Card | None) -> str:
    """A share with its interval, in percent."""
    if score is None:
        return "-"
    low, high = score["ci95"]
    return f"{100 * score['mean']:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def points(difference: Card) -> str:
    """A difference with its interval, in percentage points."""
    low, high = difference["ci95"]
    return f"{100 * difference['diff']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})".replace("-", "\N{MINUS SIGN}")


def confidence_text(confidence: Card) -> str:
    """How far probabilities can be believed, and what refusing brings."""
    text = (
        f"Confidence: expected calibration error {100 * confidence['ece']:.1f} points over {confidence['bins']} bins, "
        f"Brier score {confidence['brier']:.3f}, area under risk and coverage {confidence['area_under_risk']:.3f}. "
    )
    if not confidence["threshold"]:
        return text + "Every question is answered: validation gave no reason to refuse any, or was too small to tell."
    if confidence["right_of_answered"] is None:
        return text + "With the threshold chosen on validation every question is answered “none of these”."
    text += (
        f"Answering “none of these” below {100 * confidence['threshold']:.0f} %, as chosen on validation, leaves "
        f"{100 * confidence['answered']:.0f} % answered, {100 * confidence['right_of_answered']:.1f} % of them right"
    )
    if confidence["right_of_refused"] is not None:
        text += f"; of the refused {100 * confidence['right_of_refused']:.1f} % would have been right"
    return text + "."


def trust_lines(trust: Card | None) -> list[str]:
    """What asking the model as `mumc-site ask` does would have brought: short lists, referrals, answers."""
    if trust is None:
        return []
    risk = f"{100 * trust['risk']:.3g} %"
    lines = [f"Short lists at a risk of {risk}: {trust['guarantee']}"]
    if trust["coverage"]:
        lines.append(
            f"Here the list held a right answer for {percent(trust['coverage'])} % of questions, with "
            f"{trust['answers_in_a_list']:.1f} answers on average."
        )
    if trust["unfamiliar"]:
        lines.append(
            f"Unlike what the model learned from: {percent(trust['unfamiliar'])} % of questions or their images."
        )
    referred = f"Referred to a human, for that or any other reason: {percent(trust['referred'])} %."
    answered = (
        f"Answered with one answer: {percent(trust['answered'])} %, of which {percent(trust['right_of_answered'])} %"
    )
    listed = (
        f"with a short list: {percent(trust['short_lists'])} %, of which {percent(trust['covered_of_short_lists'])} %"
    )
    lines.append(f"{referred} {answered} are right; {listed} hold a right answer.")
    return [part for line in lines for part in (line, "")]


def out_of_list_text(share: float | None) -> str:
    """What part of the questions no ranking can get right."""
    if share is None:
        return "Answers are written freely, so every true answer can be given."
    return f"{100 * share:.1f} % of the true answers are not in the list that is ranked, so none of these can be right."


def draw(card: Card, path: Path) -> None:
    """Accuracy against confidence, and risk against coverage, side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    bins = card["confidence"]["reliability"]
    left.plot([0, 100], [0, 100], color="0.75", linewidth=1)
    left.scatter(
        [100 * sure for _, sure, _ in bins],
        [100 * accuracy for _, _, accuracy in bins],
        s=[20 + 400 * share for share, _, _ in bins],
        color="#0072b2",
        alpha=0.8,
    )
    left.set(
        xlabel="confidence, %", ylabel="right, %", xlim=(0, 100), ylim=(0, 100), title="Is it as sure as it is right?"
    )
    curve = card["confidence"]["risk_coverage"]
    right.plot([100 * coverage for coverage, _ in curve], [100 * risk for _, risk in curve], color="#d55e00")
    right.set(xlabel="answered, the surest first, %", ylabel="wrong among them, %", title="What does refusing bring?")
    right.set_xlim(0, 100)
    right.set_ylim(bottom=0)
    figure.savefig(path, format="svg")
