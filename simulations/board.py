"""The board's page of a simulation: what a board would be told of its report, for all hospitals or for one."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from client.board.compare import ANSWER_TYPES, Marks, compare
from client.board.facts import BoardFacts, Comparison, Effort, Gap, Group, NotMeasured, Privacy, Share
from client.board.prices import Prices, costs
from client.board.traffic import energy_at, unknown_effort
from configs.loader import nearest
from simulations.report_scores import Answers
from simulations.report_study import ReportError
from simulations.report_text import by_seed_text

FEDERATED, LOCAL, ALL = "federated", "local", "all sites"
SMALLEST_GROUP = 10
DATA = {
    "synthetic": "A simulation on one machine with synthetic images: its numbers compare ways of training and say "
    "nothing of accuracy on patients.",
    "real": "A simulation on one machine with published images: a research comparison, not a clinical evaluation.",
}

Values = Mapping[str, Any]


def board_numbers(answers: Mapping[str, Answers], rng: np.random.Generator) -> dict[str, Any]:
    """Both models compared over all sites and at each, as plain JSON values; empty without both arms."""
    if not {FEDERATED, LOCAL} <= answers.keys():
        return {}
    sites = answers[FEDERATED].sites
    masks = {ALL: np.ones(len(sites), dtype=bool)} | {str(site): sites == site for site in np.unique(sites)}
    return {name: _plain(_compared(answers, mask, rng)) for name, mask in masks.items()}


def of_report(report: Values, prices: Prices, site: str = "") -> BoardFacts:
    """What the board is told of all the hospitals of a report, or of the one that is named.

    Raises:
        ReportError: there is no such hospital.
    """
    if site and site not in report["sites"]:
        raise ReportError(f"this simulation has no hospital '{site}'; {nearest(site, report['sites'])}")
    effort = _effort(report, prices, site)
    where = f"Simulation '{report['name']}', {f'hospital {site}' if site else 'all hospitals'}"
    return BoardFacts(
        name=prices.hospital or where,
        about=f"Pre-training together, beside each hospital pre-training alone, on {'its' if site else 'their'} own "
        f"test questions; {report['case']}.",
        day="",
        simulated=DATA[report["data"]],
        comparison=_comparison(report, site or ALL),
        guess=_guess(report, site),
        privacy=_privacy(report),
        effort=effort,
        costs=costs(prices, effort),
        notes=_notes(report),
    )


def _compared(answers: Mapping[str, Answers], mask: Any, rng: np.random.Generator) -> Comparison:
    federated, local = answers[FEDERATED].where(mask), answers[LOCAL].where(mask)
    marks = Marks(
        images=federated.clusters(),
        answer_types=federated.answer_types.tolist(),
        question_types=federated.question_types.tolist(),
        federated=federated.values,
        local=local.values,
    )
    return compare(marks, SMALLEST_GROUP, rng)


def _plain(found: Comparison) -> dict[str, Any]:
    return {
        "overall": _group(found.overall),
        "answer_types": [_group(group) for group in found.answer_types],
        "question_types": [_group(group) for group in found.question_types],
        "smallest": found.smallest,
    }


def _group(group: Group) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "name": group.name,
        "answers": group.answers,
        "images": group.images,
        "pooled": group.pooled,
    }
    for key in ("local", "federated", "gap"):
        value = getattr(group, key)
        plain[key] = {"mean": value.mean, "ci95": [value.low, value.high]}
    return plain


def _comparison(report: Values, name: str) -> Comparison | NotMeasured:
    if not report.get("board"):
        lacks = [arm for arm in (FEDERATED, LOCAL) if arm not in report["arms"]]
        why = f"this simulation has no arm {' and none '.join(lacks)}" if lacks else "the report is of an older version"
        return NotMeasured("accuracy of both models", why)
    found = report["board"][name]
    known = {arm: _known(report["arms"][arm], name) for arm in (LOCAL, FEDERATED)}
    gap = report["differences"].get(f"{FEDERATED}-{LOCAL}") if name == ALL else None
    overall = _read(found["overall"], known)
    return Comparison(
        overall=replace(overall, gap=Gap(gap["diff"], *gap["ci95"])) if gap else overall,
        answer_types=tuple(_read(group, known) for group in found["answer_types"]),
        question_types=tuple(_read(group, known) for group in found["question_types"]),
        smallest=found["smallest"],
    )


def _known(arm: Values, name: str) -> dict[str, Values | None]:
    """The intervals that the report shows of the same answers: resampled anew they would differ in their last digit."""
    if name != ALL:
        return {"all questions": arm["sites"].get(name)}
    kinds = {words: arm[kind.lower()] for kind, words in ANSWER_TYPES.items()}
    return {"all questions": arm["overall"], **kinds, **arm["by_question_type"]}


def _share(plain: Values, known: Values | None) -> Share:
    """Where all or none are right, the exact interval stays."""
    if known and known["mean"] == plain["mean"] and 0 < plain["mean"] < 1:
        return Share(known["mean"], *known["ci95"])
    return Share(plain["mean"], *plain["ci95"])


def _read(plain: Values, known: Mapping[str, Mapping[str, Values | None]]) -> Group:
    return Group(
        name=plain["name"],
        answers=plain["answers"],
        images=plain["images"],
        pooled=plain["pooled"],
        local=_share(plain["local"], known[LOCAL].get(plain["name"])),
        federated=_share(plain["federated"], known[FEDERATED].get(plain["name"])),
        gap=Gap(plain["gap"]["mean"], *plain["gap"]["ci95"]),
    )


def _guess(report: Values, site: str) -> Gap | NotMeasured:
    difference = report["differences"].get(f"{FEDERATED}-question_only")
    what = "gain over a guess without the image"
    if site or difference is None:
        return NotMeasured(what, "the report has it over all hospitals only" if difference else "nobody guessed")
    return Gap(difference["diff"], *difference["ci95"])


def _privacy(report: Values) -> Privacy:
    spent = report["facts"].get(FEDERATED, {})
    if "epsilon" not in spent:
        return Privacy.without("patient", uncharged=len(report["seeds"]))
    cap = NotMeasured("cap of the privacy budget", "no officer has signed one in a simulation")
    delta = spent.get("delta", NotMeasured("delta", "the report does not name it"))
    return Privacy(kind="bounded", unit="patient", epsilon=spent["epsilon"], cap=cap, delta=delta)


def _effort(report: Values, prices: Prices, site: str) -> Effort:
    arm = report["arms"].get(FEDERATED)
    why = "a simulation counts all hospitals together" if arm else f"this simulation has no arm {FEDERATED}"
    if arm is None or site:
        return unknown_effort(why)
    taken = arm["wall_s"] / 3600
    kwh_used, counted = energy_at(taken, prices.watts)
    played = sum(len(run["rounds"]) for run in arm["losses"])
    return Effort(
        rounds=played or NotMeasured("rounds taken part in", "the report has no losses"),
        bytes_up=arm["bytes_up"],
        bytes_down=arm["bytes_down"],
        hours=taken,
        kwh=kwh_used,
        counted=counted,
    )


def _notes(report: Values) -> tuple[str, ...]:
    notes = [f"Weights that answer: {report['measured']['selection'] or 'as they were left'}."]
    difference = report["differences"].get(f"{FEDERATED}-{LOCAL}")
    if difference and len(difference["by_seed"]) > 1:
        notes.append(f"Over all hospitals, difference in points by seed: {by_seed_text(difference)}.")
    if FEDERATED in report["arms"]:
        seeds = len(report["seeds"])
        notes.append(
            f"Rounds, bytes and hours are of all hospitals over {seeds} {'seeds' if seeds > 1 else 'seed'}; other arms "
            "ran beside this one on the same machine."
        )
    return tuple(notes)
