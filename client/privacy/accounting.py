"""What a history of events has cost: by PLD for one plan that was fixed beforehand, by Rényi DP (RDP) for a life-time.

Every number is for adding or removing one privacy unit, and none is below the truth: what is rounded is rounded up.
"""

import math
from collections.abc import Iterable
from importlib.metadata import version
from typing import Literal

import numpy as np

from client.privacy import loss_distribution, renyi
from client.privacy.calibration import least_noise
from client.privacy.errors import PlanError
from client.privacy.event import Event, merge
from client.privacy.limits import LARGEST_EPSILON, check_delta, check_epsilon

DP_ACCOUNTING = version("dp-accounting")
PLD_NAME = f"PLD (dp-accounting {DP_ACCOUNTING})"
RDP_NAME = f"RDP (dp-accounting {DP_ACCOUNTING})"
Accountant = Literal["pld", "rdp"]


def epsilon_pld(events: Iterable[Event], delta: float) -> float:
    """The epsilon of all events together at `delta`, by PLD; 0 for no event.

    It holds where the events' numbers were fixed before the first of them was released. Where RDP is above 1,000 its
    value comes back, which is larger.

    Raises:
        PlanError: delta is not between 0 and 1.
    """
    events = merge(events)
    if (above := epsilon_rdp(events, delta)) > LARGEST_EPSILON:
        return above
    return float(loss_distribution.composed(events).get_epsilon_for_delta(delta))


def epsilon_rdp(events: Iterable[Event], delta: float, *, order: float | None = None) -> float:
    """The epsilon of all events together at `delta`, by RDP, at the best order or at that one; 0 for no event.

    With an order that was fixed beforehand it holds too where later events were chosen after earlier releases.

    Raises:
        PlanError: delta is not between 0 and 1, or the order is not one of `renyi.orders`.
    Source: arXiv 2008.11193, theorem 4.3.
    """
    check_delta(delta)
    return float(renyi.epsilons(renyi.divergence(merge(events)), delta)[renyi.place(order)].min())


def best_order(events: Iterable[Event], delta: float) -> float:
    """The Rényi order at which these events cost least: the one to fix for a filter of such work.

    Raises:
        PlanError: delta is not between 0 and 1.
    """
    check_delta(delta)
    return float(renyi.orders()[renyi.epsilons(renyi.divergence(merge(events)), delta).argmin()])


def delta_of(events: Iterable[Event], epsilon: float) -> float:
    """The least delta at which all events together keep `epsilon`, by PLD; 0 for no event.

    Raises:
        PlanError: epsilon is negative or not finite.
    """
    if not 0 <= epsilon < math.inf:
        raise PlanError(f"epsilon is {epsilon}; choose a finite number of at least 0")
    events = merge(events)
    if _is_hopeless(events):
        return 1.0
    return float(loss_distribution.composed(events).get_delta_for_epsilon(epsilon))


def steps_within(
    *,
    spent: Iterable[Event],
    sample_rate: float,
    noise_multiplier: float,
    cap: float,
    delta: float,
    order: float | None = None,
) -> int:
    """How many more such steps fit under the cap after what was spent, by RDP; 0 where nothing fits.

    Raises:
        PlanError: the cap, delta, the order or the step's numbers are impossible.
    Source: arXiv 2008.11193, algorithm 2.
    """
    check_epsilon(cap)
    check_delta(delta)
    before = renyi.divergence(merge(spent))
    step = renyi.divergence([Event(sample_rate=sample_rate, noise_multiplier=noise_multiplier, steps=1)])
    looked_at = renyi.place(order)

    def fits(steps: int) -> bool:
        return bool(renyi.epsilons(before + steps * step, delta)[looked_at].min() <= cap)

    high = 1
    while fits(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def noise_for(*, epsilon: float, delta: float, sample_rate: float, steps: int, accountant: Accountant = "pld") -> float:
    """The least noise multiplier, within 0.01 %, with which so many steps keep `epsilon` at `delta`; never too little.

    Nothing below 0.1 is returned: a step with less noise has next to none.

    Raises:
        PlanError: the numbers are impossible, or no noise multiplier below a million is enough.
    """
    check_epsilon(epsilon)

    def event(noise: float) -> list[Event]:
        return [Event(sample_rate=sample_rate, noise_multiplier=noise, steps=steps)]

    if accountant == "rdp":
        return least_noise(lambda noise: epsilon_rdp(event(noise), delta), epsilon)
    start = least_noise(lambda noise: epsilon_rdp(event(noise), delta), epsilon, tolerance=0.1)
    return least_noise(lambda noise: epsilon_pld(event(noise), delta), epsilon, start=start, factor=1.25)


def attack_bound(events: Iterable[Event], false_positive_rate: float) -> float:
    """The largest true-positive rate of any test for one unit's presence at that false-positive rate, by PLD.

    Raises:
        PlanError: the false-positive rate is not between 0 and 1.
    Source: arXiv 1311.0776, theorem 2.1; every epsilon from 0 gives two bounds, and the least of them counts.
    """
    if not 0 < false_positive_rate < 1:
        raise PlanError(f"the false-positive rate is {false_positive_rate}; choose it above 0 and below 1")
    events = merge(events)
    if _is_hopeless(events):
        return 1.0
    epsilon = np.linspace(0, epsilon_pld(events, false_positive_rate / 1e4) + 1, 400)
    delta = loss_distribution.composed(events).get_delta_for_epsilon(epsilon)
    at_few = np.exp(epsilon) * false_positive_rate + delta
    at_many = 1 - np.exp(-epsilon) * (1 - false_positive_rate - delta)
    return float(min(at_few.min(), at_many.min(), 1.0))


def posterior(epsilon: float, prior: float = 0.5) -> float:
    """How sure an attacker who held a unit's presence for `prior` likely can become, a probability.

    Under (epsilon, delta) an attacker becomes surer than this with a probability of about delta only.

    Raises:
        PlanError: epsilon is negative, or the prior is not a probability.
    """
    if not epsilon >= 0 or not 0 <= prior <= 1:
        raise PlanError(f"epsilon is {epsilon} and the prior {prior}; choose at least 0, and a probability")
    return prior / (prior + (1 - prior) * math.exp(-epsilon))


def _is_hopeless(events: Iterable[Event]) -> bool:
    return epsilon_rdp(events, 1e-10) > LARGEST_EPSILON
