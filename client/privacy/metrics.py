"""The one release of a test split's metrics: how many units there are and how many answers are right, with noise.

A unit with correctness c in [0, 1], the mean over its own questions, adds the vector (c - 1/2, 1) to the sum. Its
length is sqrt((c - 1/2)^2 + 1), at most sqrt(5)/2 = 1.118: that much the sum changes when a unit comes or goes. (Sums
of c itself would have the sensitivity sqrt(2) and need a quarter more noise.) Both numbers are released by one Gaussian
mechanism over all units, sample rate 1, one step; everything else is computed from them.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from client.privacy.event import Event
from client.privacy.optimizer import grid_step
from client.privacy.randomness import SecureSource

SENSITIVITY = math.sqrt(1.25)
"""Largest length of one unit's part of the sum."""
SMALLEST_COUNT = 10
"""Public: below this noised number of units no metric leaves."""
_FINE = 1 << 20
"""Correctness is rounded to this share of a unit, so that sums are exact in whatever order they are taken."""


@dataclass(frozen=True, kw_only=True)
class Released:
    """What the mechanism gave away, and what follows from it."""

    above_half: float
    """Noised sum of correctness over 1/2."""
    count: float
    """Noised number of units."""
    deviation: float
    """Of the noise in each of both."""

    @property
    def accuracy(self) -> float:
        """The mean correctness of a unit, between 0 and 1."""
        return min(1.0, max(0.0, 0.5 + self.above_half / self.count))

    @property
    def noise_se(self) -> float:
        """The standard error that the noise alone puts into the accuracy, to first order; patients vary beside it."""
        return self.deviation * math.hypot(1.0, self.accuracy - 0.5) / self.count

    def metrics(self) -> dict[str, float]:
        """What a report may say; nothing where so few units seem to be there."""
        if self.count < SMALLEST_COUNT:
            return {}
        return {"accuracy": self.accuracy, "accuracy_noise_se": self.noise_se}


def event(noise_multiplier: float) -> Event:
    """What a release is charged as."""
    return Event(sample_rate=1.0, noise_multiplier=noise_multiplier, steps=1)


def correctness(correct: Iterable[bool], units: Iterable[str]) -> list[float]:
    """Each unit's share of right answers, from whether each question was answered rightly and whose it is."""
    answers: dict[str, list[bool]] = {}
    for right, unit in zip(correct, units, strict=True):
        answers.setdefault(unit, []).append(right)
    return [sum(given) / len(given) for given in answers.values()]


def total(correct_U: Sequence[float]) -> tuple[float, float]:
    """The sum over units of correctness above 1/2, and their number; one unit moves it by `SENSITIVITY` at most."""
    return sum(round(_FINE * correct) - _FINE // 2 for correct in correct_U) / _FINE, float(len(correct_U))


def release(correct_U: Sequence[float], noise_multiplier: float, source: SecureSource) -> Released:
    """The noised total, on a grid that does not depend on the data."""
    deviation = noise_multiplier * SENSITIVITY
    step, noise_2 = grid_step(deviation), source.normals(2).double().numpy()
    above_half, count = step * np.rint((np.array(total(correct_U)) + deviation * noise_2) / step)
    return Released(above_half=float(above_half), count=float(count), deviation=deviation)
