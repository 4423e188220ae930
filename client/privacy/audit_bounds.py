"""What scores of canaries say about epsilon: lower bounds, expected effects and how far chance carries them.

A canary's score is N(mu, 1) where it was in the data and N(0, 1) where it was not, each apart from all others.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from client.privacy.errors import PlanError
from client.privacy.event import Event
from client.privacy.limits import LARGEST_EPSILON, check_delta

Scores = npt.NDArray[np.float64]

_LEAST_SPREAD = 1e-9
"""Scores that do not spread at all would make an effect infinite, which JSON cannot hold."""


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The least epsilon at delta of two normals whose means lie mu deviations apart; at most `LARGEST_EPSILON`.

    Raises:
        PlanError: delta is not between 0 and 1.
    Source: Balle and Wang, arXiv 1805.06530, theorem 5.
    """
    check_delta(delta)

    def excess(epsilon: float) -> float:
        lost = math.exp(epsilon + stats.norm.logcdf(-epsilon / mu - mu / 2))
        return float(stats.norm.cdf(mu / 2 - epsilon / mu) - lost - delta)

    if mu <= 0 or excess(0.0) <= 0:
        return 0.0
    if mu > LARGEST_EPSILON or excess(LARGEST_EPSILON / 2) > 0:
        return LARGEST_EPSILON
    return float(optimize.brentq(excess, 0.0, LARGEST_EPSILON / 2))


def effect_size(inside: Scores, outside: Scores) -> float:
    """Difference of the two means over the deviation within the groups, in which both weigh the same."""
    spread = math.sqrt((inside.var(ddof=1) + outside.var(ddof=1)) / 2)
    difference = float(inside.mean() - outside.mean())
    return difference / max(spread, _LEAST_SPREAD * max(1.0, abs(difference)))


def expected_effect(event: Event) -> float:
    """The effect size of so many steps on a canary that adds the clipping norm whenever it is drawn.

    In the data its score spreads by the drawing too: q (1 - q) a step beside the noise, and not at all outside.
    """
    drawn = event.sample_rate * (1 - event.sample_rate) / 2
    return event.sample_rate * math.sqrt(event.steps / (event.noise_multiplier**2 + drawn))


def effect_deviation(effect: float, inside: int, outside: int) -> float:
    """Standard deviation of a measured effect size, to first order.

    Source: Hedges, J. Educ. Stat. 6 (1981), equation 8.
    """
    return math.sqrt(1 / inside + 1 / outside + effect**2 / (2 * (inside + outside - 2)))


def mu_lower_bound(effect: float, inside: int, outside: int, confidence: float) -> float:
    """The smallest mu at which so large an effect is no stroke of luck; at least 0.

    It is where mu plus so many of its own deviations reaches the effect, the lower root of a quadratic equation.
    """
    z2 = float(stats.norm.isf(1 - confidence)) ** 2
    scatter, growth = 1 / inside + 1 / outside, 1 / (2 * (inside + outside - 2))
    a, c = 1 - z2 * growth, effect**2 - z2 * scatter
    return max(0.0, (effect - math.sqrt(max(0.0, effect**2 - a * c))) / a) if effect > 0 else 0.0


def one_run_epsilon(correct: int, guesses: int, canaries: int, delta: float, confidence: float) -> float:
    """The largest epsilon at delta that so many correct guesses among so many canaries rule out, whatever the noise is.

    Raises:
        PlanError: more guesses than canaries, more correct ones than guesses, or delta is impossible.
    Source: Steinke, Nasr and Jagielski, arXiv 2305.08846, theorem 5.2 and appendix D.
    """
    check_delta(delta)
    if not 0 <= correct <= guesses <= canaries:
        raise PlanError(f"{correct} of {guesses} guesses about {canaries} canaries cannot be right; count again")

    def excess(epsilon: float) -> float:
        return _luck(correct, guesses, canaries, epsilon, delta) - (1 - confidence)

    if excess(0.0) >= 0:
        return 0.0
    return float(optimize.brentq(excess, 0.0, 50.0)) if excess(50.0) > 0 else 50.0


def _luck(correct: int, guesses: int, canaries: int, epsilon: float, delta: float) -> float:
    """Largest probability of so many correct guesses under (epsilon, delta)."""
    right = 1 / (1 + math.exp(-epsilon))
    beta = float(stats.binom.sf(correct - 1, guesses, right))
    count = np.arange(1, correct + 1)
    fewer = np.cumsum(stats.binom.pmf(correct - count, guesses, right))
    alpha = float((fewer / count).max(initial=0.0))
    return min(1.0, beta + 2 * canaries * delta * alpha)


def guess_right(inside: Scores, outside: Scores, guesses: int) -> int:
    """How many are right of `guesses`: the highest half of these scores called in, the lowest half called out."""
    truth = np.concatenate([np.ones(len(inside), dtype=bool), np.zeros(len(outside), dtype=bool)])
    order = np.argsort(np.concatenate([inside, outside]), kind="stable")
    low, high = truth[order[: guesses // 2]], truth[order[len(order) - (guesses - guesses // 2) :]]
    return int((~low).sum() + high.sum())


def distance_from_normal(values: Scores) -> float:
    """Largest gap between the values' distribution, brought to mean 0 and deviation 1, and the normal one."""
    spread = max(float(values.std(ddof=1)), _LEAST_SPREAD)
    return float(stats.kstest((values - values.mean()) / spread, "norm").statistic)


def two_sided(confidence: float, tests: int) -> float:
    """How many deviations so many tests may be off, so that all of them hold together with this confidence."""
    return float(stats.norm.isf((1 - confidence) / (2 * tests)))


def normal_gap(confidence: float, tests: int, count: int) -> float:
    """How far `distance_from_normal` of so many normals may come, in the same sense."""
    return float(stats.kstwobign.isf((1 - confidence) / tests) / math.sqrt(count))
