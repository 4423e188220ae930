"""The answers that evaluations have kept at a site, and two of them paired. No torch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from client.board.compare import Marks
from client.board.facts import Gap, NotMeasured
from mumc_model.errors import DataError
from mumc_model.evaluate import AnswerRow

KEPT = {"answers.jsonl": "evaluation.json", "answers-test.jsonl": "answers-test.json"}
"""What `mumc-site evaluate` keeps, and what a run's own fine-tuning keeps; beside each, what says how it was scored."""
RUN = "answers-test.jsonl"
FEDERATED, LOCAL = "state/evaluation", "state/evaluation-local"
NO_GUESS = NotMeasured(
    "gain over a guess without the image",
    "mumc-site evaluate was not run on the federated model beside training questions",
)
REMEDY = "evaluate both models again with the same split and normaliser (mumc-site evaluate)"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One model's answers, in the order of the site's questions."""

    place: str
    rows: Sequence[AnswerRow]
    scored: str
    """Which split, and how answers were compared with the truth; empty where nothing beside the answers says so."""
    selection: str
    """How the weights were chosen; empty where the run's own fine-tuning chose them."""
    guess: Gap | NotMeasured
    """The model less a guess from the words of the question alone."""


def read_evaluation(folder: Path) -> Evaluation:
    """The answers in a folder of `mumc-site evaluate`, or in a run's folder under `state/runs`.

    Raises:
        DataError: there are none, or they cannot be read.
    """
    name = next((name for name in KEPT if (folder / name).is_file()), None)
    if name is None:
        raise DataError(f"{folder} holds no answers; write them with: mumc-site evaluate SITE --out {folder}")
    path = folder / name
    try:
        rows = [AnswerRow.from_dict(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
        card = _card(folder / KEPT[name])
    except (OSError, ValueError, TypeError, KeyError):
        raise DataError(f"the answers in {folder} cannot be read; {REMEDY}") from None
    if not rows:
        raise DataError(f"{path} is empty; give the site test questions, then {REMEDY}")
    return Evaluation(place=folder.name, rows=rows, **card)


def default_evaluation(root: Path, place: str) -> Path | None:
    """Where the site has its evaluation; for the federated model also what its newest run has left."""
    if any((root / place / name).is_file() for name in KEPT):
        return root / place
    runs = (root / "state" / "runs").glob(f"*/{RUN}") if place == FEDERATED else ()
    newest = max(runs, key=lambda path: (path.stat().st_mtime, path.parent.name), default=None)
    return newest.parent if newest else None


def paired(federated: Evaluation | NotMeasured, local: Evaluation | NotMeasured) -> Marks | NotMeasured:
    """Both models' answers side by side; the local-only model's are left out where they cannot be compared."""
    if isinstance(federated, Evaluation) and isinstance(local, Evaluation) and (why := _unlike(federated, local)):
        local = NotMeasured("accuracy of a local-only model beside the federated one", f"{why}; {REMEDY}")
    if isinstance(federated, NotMeasured) and isinstance(local, NotMeasured):
        return NotMeasured("accuracy", f"{federated.why}; {local.why}")
    (found, *_) = (side for side in (federated, local) if isinstance(side, Evaluation))
    return Marks(
        images=[row.image for row in found.rows],
        answer_types=[row.answer_type for row in found.rows],
        question_types=[row.question_type for row in found.rows],
        federated=_right(federated),
        local=_right(local),
    )


def _unlike(a: Evaluation, b: Evaluation) -> str:
    """Why two evaluations cannot be paired; empty where they are known to be of the same questions, scored alike."""
    for found in (a, b):
        if not found.scored:
            return f"nothing in {found.place} says how its answers were compared with the truth"
    if a.scored != b.scored:
        return f"{a.place} was measured by {a.scored}, and {b.place} by {b.scored}"
    for found in (a, b):
        if not all(row.question for row in found.rows):
            return f"an earlier version kept the answers in {found.place}, without the words of the questions"
    if _questions(a) == _questions(b):
        return ""
    return (
        f"{a.place} answers {len(a.rows)} questions and {b.place} {len(b.rows)}, and they are not the same in the "
        "same order"
    )


def _questions(found: Evaluation) -> list[tuple[str, ...]]:
    return [(r.image, r.question, r.question_type, r.answer_type, r.truth) for r in found.rows]


def _right(found: Evaluation | NotMeasured) -> Any:
    if isinstance(found, NotMeasured):
        return found
    return np.array([row.correct for row in found.rows], dtype=np.float64)


def _card(path: Path) -> dict[str, Any]:
    """What the file beside the answers says of them; where there is none, nothing is known."""
    if not path.is_file():
        return {"scored": "", "selection": "", "guess": NO_GUESS}
    card = json.loads(path.read_text(encoding="utf-8"))
    split = card["asked"] if "asked" in card else card["protocol"]["asked"]
    beyond = card.get("differences", {}).get("question_only")
    return {
        "scored": f"{split} questions, normaliser {card['normaliser']}",
        "selection": str(card.get("selection", "")),
        "guess": Gap(beyond["diff"], *beyond["ci95"]) if beyond else NO_GUESS,
    }
