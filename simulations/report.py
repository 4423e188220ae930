"""One report of a study: `report.json` for machines, `report.md` and `report.html` for people, of the same numbers."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mumc_model.data.files import write_atomically
from mumc_model.data.protocols import OWN, describe, protocol_of
from mumc_model.evaluate import out_of_list_share
from simulations.board import board_numbers
from simulations.report_facts import fact_cells, facts
from simulations.report_html import to_html
from simulations.report_plots import draw_plots
from simulations.report_scores import Answers, cells, difference, gather, scores
from simulations.report_study import ARMS, DIFFERENCES, GUESSES, NORMALISER, ReportError, SiteQuestions, Study, Training
from simulations.report_table import to_markdown

SCHEMA_VERSION = 1
FILE_NAME = "report.json"

Report = dict[str, Any]
"""What `report.json` holds; docs/report.md describes it key by key."""


def write_report(study: Study, folder: Path) -> Report:
    """The study's report, after its three files were written to `folder`.

    Raises:
        ReportError: the arms' results do not fit together.
    """
    report = build_report(study, np.random.default_rng(0))
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / FILE_NAME, (text + "\n").encode())
    write_atomically(folder / "report.md", to_markdown(report).encode())
    write_atomically(folder / "report.html", to_html(report, draw_plots(report)).encode())
    return report


def read_report(folder: Path) -> Report:
    """The report of a finished run, from its folder or from the file itself.

    Raises:
        ReportError: there is no report, or it is of another version.
    """
    path = folder / FILE_NAME if folder.is_dir() else folder
    if not path.is_file():
        raise ReportError(f"{path} is missing; a run writes it at its end (mumc-sim run ...)")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ReportError(f"{path} is not valid JSON ({error}); run the simulation again") from error
    version = report.get("schema_version") if isinstance(report, dict) else None
    if version != SCHEMA_VERSION:
        raise ReportError(f"{path} has schema version {version}, this program reads {SCHEMA_VERSION}; run it again")
    return dict(report)


def build_report(study: Study, rng: np.random.Generator) -> Report:
    """The study in numbers, as plain JSON values; `rng` drives the bootstrap alone.

    Raises:
        ReportError: the arms' results do not fit together.
    """
    answers = gather(study)
    guesses = [name for name in GUESSES if name in answers]
    arms = _in_order(name for name in answers if name not in guesses)
    any_arm = answers[arms[0]]
    measured = _measured(study)
    factors = {**study.factors, **{name: measured[name] for name in ("protocol", "normaliser", "selection")}}
    return {
        "schema_version": SCHEMA_VERSION,
        "name": study.name,
        "data": study.data,
        "case": study.case,
        "command": study.command,
        "seeds": sorted({result.seed for result in study.results}),
        "sites": _site_facts(study.questions) or {str(site): {} for site in np.unique(any_arm.sites)},
        "tested": {
            "answers": len(any_arm),
            "questions": len(any_arm) // (1 if "seeds" in any_arm.cluster_columns else len(np.unique(any_arm.seeds))),
            "images": len(set(any_arm.clusters())),
        },
        "measured": measured,
        "intervals": {"level": 0.95, "method": "percentile bootstrap", "clusters": list(any_arm.cluster_columns)},
        "arms": {arm: scores(answers[arm], rng) | _costs(arm, study.training) for arm in arms},
        "baselines": {name: scores(answers[name], rng) for name in guesses},
        "differences": _differences(answers, study.pairs, rng),
        "board": board_numbers(answers, np.random.default_rng(0)),
        "facts": facts(study),
        "factors": {arm: dict(study.arm_factors[arm]) for arm in arms if arm in study.arm_factors},
        "out_of_list": _out_of_list(study.questions),
        "bytes_up": sum(t.bytes_up for t in study.training),
        "bytes_down": sum(t.bytes_down for t in study.training),
        "wall_s": round(study.wall_s, 3),
        "caveats": list(study.caveats),
        "config": dict(study.config),
        "cells": [
            cell
            for name in arms + guesses
            for cell in cells(name, answers[name], {**factors, **study.arm_factors.get(name, {})}, rng)
        ]
        + fact_cells(study, factors),
    }


def _measured(study: Study) -> dict[str, str]:
    """What every accuracy of the report was measured by."""
    names = {protocol_of(q.labels) for own in study.questions for q in own.test} or {OWN}
    return {
        "protocol": "+".join(sorted(names)),
        "split": describe(names),
        "normaliser": NORMALISER,
        "selection": study.selection,
    }


def _in_order(arms: Iterable[str]) -> list[str]:
    return sorted(arms, key=lambda arm: ARMS.index(arm) if arm in ARMS else len(ARMS))


def _differences(
    answers: Mapping[str, Answers], more: Sequence[tuple[str, str]], rng: np.random.Generator
) -> dict[str, Any]:
    pairs = [(a, b) for a, b in (*DIFFERENCES, *more) if a in answers and b in answers]
    return {f"{a}-{b}": {"arms": [a, b]} | difference(answers[a], answers[b], rng) for a, b in pairs}


def _costs(arm: str, training: Sequence[Training]) -> dict[str, Any]:
    own = [t for t in training if t.arm == arm]
    return {
        "bytes_up": sum(t.bytes_up for t in own),
        "bytes_down": sum(t.bytes_down for t in own),
        "wall_s": round(sum(t.wall_s for t in own), 3),
        "losses": [_curve(t) for t in own if t.losses],
    }


def _curve(training: Training) -> dict[str, Any]:
    rounds = [_finite(losses) for losses in training.losses]
    return {"seed": training.seed, "site": training.site, "rounds": rounds}


def _finite(losses: Mapping[str, float]) -> dict[str, float | None]:
    """A round's losses; a value that diverged is null, since JSON knows no NaN."""
    return {term: float(value) if math.isfinite(value) else None for term, value in sorted(losses.items())}


def _site_facts(questions: Sequence[SiteQuestions]) -> dict[str, Any]:
    """What each site holds, in the mean over seeds, which draw or deal out their own hospitals."""
    facts: dict[str, Any] = {}
    for site in sorted({q.site for q in questions}):
        own = [q for q in questions if q.site == site]
        facts[site] = {
            "captioned_images": sum(q.captions for q in own) / len(own),
            "train_questions": sum(len(q.train) for q in own) / len(own),
            "test_questions": sum(len(q.test) for q in own) / len(own),
        }
    return facts


def _out_of_list(questions: Sequence[SiteQuestions]) -> float | None:
    """Share of test answers that are not among their site's training answers, so that no ranking can give them."""
    tested = sum(len(q.test) for q in questions)
    if not tested:
        return None
    missed = 0.0
    for own in questions:
        missed += len(own.test) * out_of_list_share([q.answer for q in own.train], own.test, NORMALISER)
    return missed / tested
