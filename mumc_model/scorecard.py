"""What an evaluation found: every number with its protocol, normaliser, count, interval and selection rule beside it.

numpy only; `report.json` of a simulation has the same cells.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mumc_model.data.protocols import describe, grammar_of, protocol_of
from mumc_model.data.schema import VqaRecord
from mumc_model.errors import DataError
from mumc_model.evaluate import AnswerRow, is_correct, majority, out_of_list_share, question_only
from mumc_model.metrics import (
    BINS,
    area_under_risk,
    bleu_1,
    brier_score,
    calibration_error,
    reliability,
    risk_coverage,
    token_f1,
)
from mumc_model.normalise import accepted_answers
from mumc_model.statistics import Interval, bootstrap_mean, mcnemar, paired_difference

SCHEMA_VERSION = 1
RESAMPLES = 2000

Card = dict[str, Any]
"""What `evaluation.json` holds; docs/evaluation.md describes it key by key."""


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """One model's answers to one split, and what they are to be read beside."""

    rows: Sequence[AnswerRow]
    asked: Sequence[VqaRecord]
    """The questions, in the same order."""
    train: Sequence[VqaRecord]
    """The training questions, for the guesses that never see an image."""
    candidates: Sequence[str]
    """The answers that could be given; empty where they were written freely."""
    method: str
    normaliser: str
    split: str
    selection: str
    """How the weights were chosen."""
    threshold: float = 0.0
    """Below this confidence the answer is "none of these"."""
    views: Mapping[str, Sequence[AnswerRow]] = field(default_factory=dict)
    """The same questions answered with the image taken away: `blank_image`, `shuffled_image`."""
    trust: Card | None = None
    """What lists, referrals and the gate would have meant (`mumc_model.trust_score`)."""


def scorecard(found: Evaluated, rng: np.random.Generator) -> Card:
    """All numbers of an evaluation as plain JSON values; `rng` drives the bootstrap alone.

    Raises:
        DataError: there are no answered questions.
    """
    if not found.rows:
        raise DataError(f"there are no {found.split} questions to answer; import some with split: {found.split}")
    clusters: list[Hashable] = [row.image for row in found.rows]
    guesses = _guesses(found)
    right = _values(found.rows)
    others = guesses | {name: _values(rows) for name, rows in found.views.items()}
    card: Card = {
        "schema_version": SCHEMA_VERSION,
        "protocol": _protocol(found),
        "normaliser": found.normaliser,
        "method": found.method,
        "selection": found.selection,
        "intervals": {"level": 0.95, "method": "percentile bootstrap", "resamples": RESAMPLES, "clusters": "image"},
        "scores": _scores(found.rows, right, rng),
        "beside": {name: _scores(found.rows, values, rng) for name, values in others.items()},
        "differences": {name: _difference(right, values, clusters, rng) for name, values in others.items()},
        "words": _words(found, clusters, rng),
        "confidence": _confidence(found.rows, right, found.threshold),
        "trust": found.trust,
        "out_of_list": out_of_list_share(found.candidates, found.asked, found.normaliser) if found.candidates else None,
    }
    card["cells"] = list(_cells(card))
    return card


def _protocol(found: Evaluated) -> Card:
    names = sorted({protocol_of(row.labels) for row in found.asked})
    return {
        "names": names,
        "split": describe(names),
        "asked": found.split,
        "n": len(found.rows),
        "images": len({row.image for row in found.rows}),
        "train": len(found.train),
    }


def _guesses(found: Evaluated) -> dict[str, np.ndarray[Any, Any]]:
    if not found.train:
        return {}
    predictions = {
        "majority": majority(found.train, found.asked),
        "question_only": question_only(found.train, found.asked),
    }
    return {name: _right(found, answers) for name, answers in predictions.items()}


def _right(found: Evaluated, answers: Sequence[str]) -> np.ndarray[Any, Any]:
    return np.array(
        [
            is_correct(answer, row.answer, found.normaliser, grammar_of(row.labels))
            for answer, row in zip(answers, found.asked, strict=True)
        ],
        dtype=np.float64,
    )


def _values(rows: Sequence[AnswerRow]) -> np.ndarray[Any, Any]:
    return np.array([row.correct for row in rows], dtype=np.float64)


def _scores(rows: Sequence[AnswerRow], right: np.ndarray[Any, Any], rng: np.random.Generator) -> Card:
    kinds = np.array([row.answer_type for row in rows])
    types = np.array([row.question_type for row in rows])
    images = np.array([row.image for row in rows])

    def of(mask: np.ndarray[Any, Any]) -> Card | None:
        return _score(bootstrap_mean(right[mask], images[mask].tolist(), rng), int(mask.sum())) if mask.any() else None

    return {
        "overall": of(np.ones(len(rows), dtype=bool)),
        "open": of(kinds == "OPEN"),
        "closed": of(kinds == "CLOSED"),
        "by_question_type": {str(name): of(types == name) for name in np.unique(types)},
    }


def _score(interval: Interval, n: int) -> Card:
    return {"mean": interval.mean, "ci95": [interval.low, interval.high], "n": n}


def _difference(
    right: np.ndarray[Any, Any],
    other: np.ndarray[Any, Any],
    clusters: Sequence[Hashable],
    rng: np.random.Generator,
) -> Card:
    interval = paired_difference(right, other, clusters, rng)
    score = _score(interval, len(right))
    return {"diff": score.pop("mean"), **score, "mcnemar_p": mcnemar(right, other)}


def _words(found: Evaluated, clusters: Sequence[Hashable], rng: np.random.Generator) -> Card:
    """Words shared with the truth; of several right wordings the nearest counts."""
    measured = {}
    for name, measure in (("token_f1", token_f1), ("bleu_1", bleu_1)):
        values = [
            max(
                measure(row.prediction, wording, found.normaliser)
                for wording in accepted_answers(row.truth, grammar_of(asked.labels))
            )
            for row, asked in zip(found.rows, found.asked, strict=True)
        ]
        measured[name] = _score(bootstrap_mean(values, clusters, rng), len(values))
    return measured


def _confidence(rows: Sequence[AnswerRow], right: np.ndarray[Any, Any], threshold: float) -> Card:
    sure = np.array([row.confidence for row in rows])
    coverage, risk = risk_coverage(sure, right)
    given = sure >= threshold
    return {
        "ece": calibration_error(sure, right),
        "bins": BINS,
        "brier": brier_score(sure, right),
        "area_under_risk": area_under_risk(coverage, risk),
        "threshold": threshold,
        "answered": float(given.mean()),
        "right_of_answered": float(right[given].mean()) if given.any() else None,
        "right_of_refused": float(right[~given].mean()) if not given.all() else None,
        "reliability": [list(point) for point in reliability(sure, right)],
        "risk_coverage": _thinned(coverage, risk),
    }


def _thinned(coverage: Sequence[float], risk: Sequence[float], points: int = 100) -> list[list[float]]:
    places = np.unique(np.linspace(0, len(coverage) - 1, min(points, len(coverage))).round().astype(int))
    return [[coverage[place], risk[place]] for place in places]


def _cells(card: Card) -> list[Card]:
    shared = {
        "protocol": "+".join(card["protocol"]["names"]),
        "split": card["protocol"]["asked"],
        "normaliser": card["normaliser"],
        "selection": card["selection"],
    }
    cells = []
    for method, scores in {card["method"]: card["scores"], **card["beside"]}.items():
        for kind in ("overall", "open", "closed"):
            if scores[kind] is not None:
                cells.append(_cell({**shared, "method": method, "answer_type": kind}, "accuracy", scores[kind]))
    cells += [_cell({**shared, "method": card["method"]}, name, score) for name, score in card["words"].items()]
    n = card["protocol"]["n"]
    for name in ("ece", "brier", "area_under_risk"):
        score = {"mean": card["confidence"][name], "ci95": None, "n": n}
        cells.append(_cell({**shared, "method": card["method"]}, name, score))
    return cells


def _cell(factors: Card, metric: str, score: Card) -> Card:
    return {
        "factors": factors,
        "metric": metric,
        "value": score["mean"],
        "ci95": score["ci95"],
        "n": score["n"],
        "seed": 0,
    }
