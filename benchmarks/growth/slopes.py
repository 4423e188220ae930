"""How a measured cost grows with a size: exponents of power laws. No torch."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

TOLERANCE = 0.15
"""A slope within so much of what is asked is as asked: two times that are 10 % off make as much of a doubling."""


def slope(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The exponent of the power law of least squares in logarithms: 0 is flat, 1 linear, 2 quadratic."""
    return statistics.linear_regression([log(size) for size in sizes], [log(cost) for cost in costs]).slope


def last_slope(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The exponent between the two largest sizes, where a fixed part of the cost shows least."""
    return slope(sizes[-2:], costs[-2:])


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One cost over one size, measured in turns: of every turn one cost a size."""

    name: str
    size: str
    """What grows, with its unit."""
    cost: str
    """What is measured, with its unit."""
    sizes: Sequence[int]
    turns: Sequence[Sequence[float]]
    work: Sequence[float] = ()
    """Useful GFLOP at each size, by the closed form, where there is one."""
    power: float = 1.0
    """The exponent that is asked for without such a closed form."""
    facts: tuple[tuple[str, Any], ...] = ()
    """What else to know of it."""

    @property
    def medians(self) -> list[float]:
        """Of each size."""
        return [statistics.median(costs) for costs in zip(*self.turns, strict=True)]

    @property
    def asked(self) -> tuple[float, float]:
        """The largest slopes, over all sizes and between the last two, that are no defect."""
        if not self.work:
            return self.power, self.power
        return max(1.0, slope(self.sizes, self.work)), max(1.0, last_slope(self.sizes, self.work))

    @property
    def excess(self) -> float:
        """By how much the slopes are above what is asked; negative below."""
        over, last = self.asked
        return max(slope(self.sizes, self.medians) - over, last_slope(self.sizes, self.medians) - last)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: medians, slopes with the least and the most of single turns, and whether that is as asked."""
        medians, of_turns = self.medians, [slope(self.sizes, costs) for costs in self.turns]
        found: dict[str, Any] = {
            "curve": self.name,
            "size": self.size,
            "cost": self.cost,
            "sizes": list(self.sizes),
            "costs": rounded(medians),
            "slope": round(slope(self.sizes, medians), 3),
            "slope_range": [round(least_or_most(of_turns), 3) for least_or_most in (min, max)],
            "last_slope": round(last_slope(self.sizes, medians), 3),
            "asked": [round(most, 3) for most in self.asked],
            "excess": round(self.excess, 3),
            "met": self.excess <= TOLERANCE,
            **dict(self.facts),
        }
        if self.work:
            per_gflop = [cost / gflop for cost, gflop in zip(medians, self.work, strict=True)]
            found["gflop"], found["seconds_per_gflop"] = rounded(self.work), rounded(per_gflop)
            found["work_slope"] = round(slope(self.sizes, self.work), 3)
            found["slope_per_gflop"] = round(slope(self.sizes, per_gflop), 3)
            found["last_slope_per_gflop"] = round(last_slope(self.sizes, per_gflop), 3)
        return found


def rounded(values: Sequence[float]) -> list[float]:
    """To four digits."""
    return [float(f"{value:.4g}") for value in values]


def in_turns(sizes: Sequence[int], measure: Callable[[int], float], turns: int) -> list[list[float]]:
    """The cost of every size in every turn: the smallest, the next, ... and then again from the smallest."""
    return [[measure(size) for size in sizes] for _ in range(turns)]
