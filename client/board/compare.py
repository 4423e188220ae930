"""Two models on the same test questions: shares right with intervals, paired differences, groups that are large enough.

numpy only: sites and simulations compare alike. An interval resamples images, each with its answers.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from client.board.facts import Comparison, Gap, Group, NotMeasured, Share
from mumc_model.statistics import bootstrap_mean, paired_difference

ANSWER_TYPES = {"OPEN": "open questions", "CLOSED": "closed questions"}
LEVEL = 0.95

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Marks:
    """The test questions in columns of one length, and which model was right about each."""

    images: Sequence[Hashable]
    answer_types: Sequence[str]
    question_types: Sequence[str]
    federated: Values | NotMeasured
    local: Values | NotMeasured


def compare(marks: Marks, smallest: int, rng: np.random.Generator) -> Comparison:
    """The comparison, overall and by group; groups of fewer than `smallest` answers are shown together only."""
    everything = np.ones(len(marks.images), dtype=bool)
    kinds = [ANSWER_TYPES.get(kind, kind) for kind in marks.answer_types]
    return Comparison(
        overall=_group(marks, "all questions", everything, rng),
        answer_types=_groups(marks, kinds, smallest, rng),
        question_types=_groups(marks, marks.question_types, smallest, rng),
        smallest=smallest,
    )


def _groups(marks: Marks, names: Sequence[str], smallest: int, rng: np.random.Generator) -> tuple[Group, ...]:
    column, pooled = np.array(names, dtype=np.str_), too_small(Counter(names), smallest)
    shown = [
        _group(marks, name, column == name, rng) for name in sorted(set(names) - pooled, key=lambda n: (n == "", n))
    ]
    if not pooled and len(shown) == 1:
        return ()  # it is all questions over again
    if pooled and shown:
        name = f"{len(pooled)} smaller groups together" if len(pooled) > 1 else "one smaller group"
        shown.append(_group(marks, name, np.isin(column, sorted(pooled)), rng, pooled=True))
    return tuple(shown)


def too_small(counts: Counter[str], smallest: int) -> set[str]:
    """The groups that are shown together only.

    Where they are too few even together, the smallest of the others joins them: what all groups leave of the whole
    would tell the missing part.
    """
    by_size = sorted(counts, key=lambda name: (counts[name], name))
    pooled = [name for name in by_size if counts[name] < smallest]
    while pooled and sum(counts[name] for name in pooled) < smallest and len(pooled) < len(by_size):
        pooled.append(by_size[len(pooled)])
    return set(pooled)


def _group(
    marks: Marks, name: str, mask: npt.NDArray[np.bool_], rng: np.random.Generator, pooled: bool = False
) -> Group:
    images = [image for image, inside in zip(marks.images, mask, strict=True) if inside]
    federated, local = _of(marks.federated, mask), _of(marks.local, mask)
    missing = next((value for value in (federated, local) if isinstance(value, NotMeasured)), None)
    return Group(
        name=name or "no type given",
        answers=int(mask.sum()),
        images=len(set(images)),
        federated=_share(federated, images, rng),
        local=_share(local, images, rng),
        gap=missing or _gap(federated, local, images, rng),
        pooled=pooled,
    )


def _of(values: Values | NotMeasured, mask: npt.NDArray[np.bool_]) -> Values | NotMeasured:
    return values if isinstance(values, NotMeasured) else values[mask]


def _share(values: Values | NotMeasured, images: Sequence[Hashable], rng: np.random.Generator) -> Share | NotMeasured:
    """The share right.

    Where all answers are right, or none, resampling finds an interval of no length; the exact one for so many images
    takes its place. Source: Clopper and Pearson, Biometrika 26 (1934), at k = 0 and k = n.
    """
    if isinstance(values, NotMeasured):
        return values
    found = bootstrap_mean(values, images, rng, level=LEVEL)
    if found.mean in (0.0, 1.0):
        edge = ((1 - LEVEL) / 2) ** (1 / len(set(images)))
        return Share(found.mean, *((edge, 1.0) if found.mean else (0.0, 1 - edge)))
    return Share(*found)


def _gap(federated: Any, local: Any, images: Sequence[Hashable], rng: np.random.Generator) -> Gap:
    return Gap(*paired_difference(federated, local, images, rng, level=LEVEL))
