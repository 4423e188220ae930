"""The least noise that keeps a promise, found from the safe side."""

import math
from collections.abc import Callable

from client.privacy.errors import PlanError

LEAST_NOISE, MOST_NOISE = 0.1, 1e6
"""Between these a noise multiplier is looked for; with less than the least a step has next to none."""


def least_noise(
    price: Callable[[float], float],
    epsilon: float,
    *,
    start: float = 1.0,
    factor: float = 2.0,
    tolerance: float = 1e-4,
) -> float:
    """The least noise multiplier whose `price`, an epsilon that falls with noise, is at most `epsilon`.

    The search begins at `start` and first goes by `factor`; the answer is too much by at most `tolerance`, relative.

    Raises:
        PlanError: no noise multiplier below a million is enough.
    """

    def excess(log_noise: float) -> float:
        found = price(math.exp(log_noise))
        return min(max(math.log(found / epsilon), -10.0), 10.0) if found > 0 else -10.0

    low, high = _bracket(lambda noise: price(noise) <= epsilon, max(start, LEAST_NOISE), factor)
    if low == high:
        return high
    from scipy.optimize import brentq

    noise = math.exp(brentq(excess, math.log(low), math.log(high), xtol=tolerance / 4))
    while price(noise) > epsilon:
        noise *= 1 + tolerance / 4
    return noise


def _bracket(enough: Callable[[float], bool], noise: float, factor: float) -> tuple[float, float]:
    """Too little noise and enough, one factor apart; the same number twice where the very least is enough."""
    if not enough(noise):
        while not enough(noise := factor * noise):
            if noise > MOST_NOISE:
                raise PlanError(
                    f"no noise multiplier below {MOST_NOISE:g} is enough; allow a larger epsilon or fewer steps"
                )
        return noise / factor, noise
    while noise > LEAST_NOISE:
        high, noise = noise, max(noise / factor, LEAST_NOISE)
        if not enough(noise):
            return noise, high
    return noise, noise
