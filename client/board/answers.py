"""The answers that evaluations have kept at a site, and two of them paired. No torch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from client.board.compare import Asked
from client.board.facts import Gap, NotMeasured
from mumc_model.errors import DataError
from mumc_model.evaluate import AnswerRow

KEPT = ("answers.jsonl", "answers-test.jsonl")
"""What `mumc-site evaluate` keeps, and what a run's own fine-tuning keeps."""
CARD = "evaluation.json"
FEDERATED, LOCAL = "state/evaluation", "state/evaluation-local"
NO_GUESS = NotMeasured(
    "gain over a guess without the image",
    "mumc-site evaluate was not run on the federated model beside training questions",
)
NORMALISER = "mumc"
REMEDY = "evaluate both models again with the same split and normaliser (mumc-site evaluate)"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One model's answers, in the order of the site's questions."""

    place: str
    rows: Sequence[AnswerRow]
    asked: str
    """Which split, and how answers were compared; empty where the run's own fine-tuning gave them."""
    selection: str
    guess: Gap | NotMeasured
    """The model less a guess from the words of the question alone."""


def read_evaluation(folder: Path) -> Evaluation:
    """The answers in a folder of `mumc-site evaluate`, or in a run's folder under `state/runs`.

    Raises:
        DataError: there are none, or they cannot be read.
    """
    path = next((folder / name for name in KEPT if (folder / name).is_file()), None)
    if path is None:
        raise DataError(f"{folder} holds no answers; write them with: mumc-site evaluate SITE --out {folder}")
    try:
        rows = [AnswerRow.from_dict(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
        card = _card(folder / CARD)
    except (OSError, ValueError, TypeError, KeyError):
        raise DataError(f"the answers in {folder} cannot be read; {REMEDY}") from None
    if not rows:
        raise DataError(f"{path} is empty; give the site test questions, then {REMEDY}")
    return Evaluation(place=folder.name, rows=rows, **card)


def default_evaluation(root: Path, place: str) -> Path | None:
    """Where the site has its evaluation; for the federated model also what its newest run has left."""
    if any((root / place / name).is_file() for name in KEPT):
        return root / place
    runs = (root / "state" / "runs").glob(f"*/{KEPT[1]}") if place == FEDERATED else ()
    newest = max(runs, key=lambda path: (path.stat().st_mtime, path.parent.name), default=None)
    return newest.parent if newest else None


def paired(federated: Evaluation | NotMeasured, local: Evaluation | NotMeasured) -> Asked | NotMeasured:
    """Both models' answers side by side; one may be missing.

    Raises:
        DataError: they answered other questions, or were compared with the truth in other ways.
    """
    there = [found for found in (federated, local) if isinstance(found, Evaluation)]
    if not there:
        return federated if isinstance(federated, NotMeasured) else NotMeasured("accuracy", "nothing was evaluated")
    if len(there) > 1:
        _refuse_other_questions(*there)
    rows = there[0].rows
    return Asked(
        images=[row.image for row in rows],
        answer_types=[row.answer_type for row in rows],
        question_types=[row.question_type for row in rows],
        federated=_right(federated),
        local=_right(local),
    )


def _refuse_other_questions(a: Evaluation, b: Evaluation) -> None:
    questions = [[(r.image, r.question_type, r.answer_type, r.truth) for r in found.rows] for found in (a, b)]
    if questions[0] != questions[1]:
        raise DataError(
            f"{a.place} answers {len(questions[0])} questions and {b.place} {len(questions[1])}, and they are not the "
            f"same in the same order; {REMEDY}"
        )
    for known, other in ((a, b), (b, a)):
        # A run evaluates by its one normaliser, and keeps no card that says so.
        if known.asked and not other.asked and not known.asked.endswith(f"normaliser {NORMALISER}"):
            raise DataError(f"{known.place} was measured by {known.asked}, and a run by {NORMALISER}; {REMEDY}")
    if a.asked and b.asked and a.asked != b.asked:
        raise DataError(f"{a.place} was measured by {a.asked}, and {b.place} by {b.asked}; {REMEDY}")


def _right(found: Evaluation | NotMeasured) -> Any:
    if isinstance(found, NotMeasured):
        return found
    return np.array([row.correct for row in found.rows], dtype=np.float64)


def _card(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {"asked": "", "selection": "", "guess": NO_GUESS}
    card = json.loads(path.read_text(encoding="utf-8"))
    asked = f"{card['protocol']['asked']} questions, normaliser {card['normaliser']}"
    beyond = card["differences"].get("question_only")
    guess = Gap(beyond["diff"], *beyond["ci95"]) if beyond else NO_GUESS
    return {"asked": asked, "selection": str(card["selection"]), "guess": guess}
