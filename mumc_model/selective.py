"""How often answers of about a confidence were right: counted on answered questions, with an exact interval.

Dimensions: N questions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

from mumc_model.errors import CheckpointError

BIN_QUESTIONS = 30
"""Fewest questions of a bin: with fewer an interval says next to nothing."""
MOST_BINS = 10


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was counted among questions that were answered about as surely."""

    share: float
    """Of right answers."""
    ci95: tuple[float, float]
    """Clopper and Pearson's exact limits, as if the questions were independent."""
    n: int
    split: str = "validation"
    """Which questions were counted."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"share": self.share, "ci95": list(self.ci95), "n": self.n, "split": self.split}

    def __str__(self) -> str:
        """In words, as it stands beside an answer."""
        low, high = (f"{100 * limit:.0f}" for limit in self.ci95)
        return (
            f"{100 * self.share:.0f} % ({low} to {high} %, n = {self.n}) of this site's {self.split} questions that "
            "were answered about as surely were answered right"
        )


@dataclass(frozen=True, kw_only=True)
class AccuracyTable:
    """Right answers by confidence, in bins of about equally many questions, the least sure first."""

    floors: tuple[float, ...] = ()
    """The lowest confidence in each bin."""
    right: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()
    split: str = "validation"

    def __post_init__(self) -> None:
        """Refuse columns that no counting gives."""
        columns = (self.floors, self.right, self.counts)
        counted = all(0 <= hits <= n and n > 0 for hits, n in zip(self.right, self.counts, strict=False))
        if len({len(column) for column in columns}) > 1 or not counted or list(self.floors) != sorted(self.floors):
            raise CheckpointError("the accuracies by confidence do not fit one another; fine-tune again")

    @classmethod
    def of(cls, confidence_N: npt.ArrayLike, correct_N: npt.ArrayLike, split: str = "validation") -> Self:
        """The table of these answers; empty where there are too few for a single bin.

        Equally sure answers stand in one bin, so that the order of the file decides nothing.
        """
        sure, right = np.asarray(confidence_N, dtype=np.float64), np.asarray(correct_N, dtype=np.int64)
        bins = min(MOST_BINS, len(sure) // BIN_QUESTIONS)
        if not bins:
            return cls(split=split)
        order = np.argsort(sure, kind="stable")
        sure, right = sure[order], right[order]
        cuts = _far_enough(np.unique(np.searchsorted(sure, sure[np.arange(bins) * len(sure) // bins])), len(sure))
        counts = np.diff(np.append(cuts, len(sure)))
        return cls(
            floors=tuple(sure[cuts].tolist()),
            right=tuple(np.add.reduceat(right, cuts).tolist()),
            counts=tuple(counts.tolist()),
            split=split,
        )

    def at(self, confidence: float) -> Measured | None:
        """What the bin of this confidence holds; None where nothing was counted."""
        if not self.counts:
            return None
        place = max(0, int(np.searchsorted(self.floors, confidence, side="right")) - 1)
        return measured(self.right[place], self.counts[place], self.split)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "floors": list(self.floors),
            "right": list(self.right),
            "counts": list(self.counts),
            "split": self.split,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The table that `to_dict` wrote.

        Raises:
            CheckpointError: it is none.
        """
        try:
            return cls(
                floors=_finite(values["floors"]),
                right=tuple(map(int, values["right"])),
                counts=tuple(map(int, values["counts"])),
                split=str(values["split"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError("the accuracies by confidence are damaged; fine-tune again") from error


def measured(right: int, n: int, split: str = "validation", level: float = 0.95) -> Measured:
    """A share with its exact interval. Source: Clopper and Pearson, Biometrika 26 (1934)."""
    tail = (1 - level) / 2
    low = 0.0 if right == 0 else float(beta.ppf(tail, right, n - right + 1))
    high = 1.0 if right == n else float(beta.ppf(1 - tail, right + 1, n - right))
    return Measured(share=right / n, ci95=(low, high), n=n, split=split)


def _far_enough(cuts: npt.NDArray[np.int64], end: int) -> npt.NDArray[np.int64]:
    """Where bins begin, without those that would leave a bin too few questions: it goes to the one before it."""
    kept = [0]
    for cut in cuts[1:].tolist():
        if cut - kept[-1] >= BIN_QUESTIONS and end - cut >= BIN_QUESTIONS:
            kept.append(cut)
    return np.asarray(kept, dtype=np.int64)


def _finite(values: Sequence[Any]) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a confidence is no number")
    return numbers
