"""Whether work fits under a policy's cap, by an RDP filter whose order is fixed before the first release."""

import math
from collections.abc import Iterable, Sequence

from client.privacy.errors import BudgetExceededError
from client.privacy.event import Event
from client.privacy.ledger_rows import Charge
from client.privacy.policy import PrivacyPolicy


def filter_epsilon(events: Iterable[Event], delta: float, order: float | None) -> float:
    """The epsilon of the events at the filter's order; 0 for none.

    Later plans depend on earlier releases, and only at an order that does not follow them does the sum still hold.
    Source: arXiv 2008.11193, theorem 4.3.
    """
    if not (events := tuple(events)):
        return 0.0  # Without loading an accountant.
    from client.privacy.accounting import epsilon_rdp

    return epsilon_rdp(events, delta, order=order)


def filter_order(cap: float, delta: float, first: Event) -> float:
    """The order at which most steps like the first ones fit under the cap."""
    from client.privacy.accounting import best_order, steps_within

    rate, noise = first.sample_rate, first.noise_multiplier
    steps = steps_within(spent=(), sample_rate=rate, noise_multiplier=noise, cap=cap, delta=delta)
    return best_order([Event(sample_rate=rate, noise_multiplier=noise, steps=max(steps, 1))], delta)


def cap_for(events: Sequence[Event], delta: float) -> float:
    """A cap that these events just fill, by a filter that meets the first of them first.

    The filter's order is chosen by the first event alone, and is not the best one for all of them.
    """
    from client.privacy.accounting import epsilon_rdp

    cap = epsilon_rdp(events, delta)
    while (needed := filter_epsilon(events, delta, filter_order(cap, delta, events[0]))) > cap:
        cap = min(needed, 1.01 * cap)
    return cap


def epsilon_with(policy: PrivacyPolicy, before: Sequence[Event], charge: Charge, order: float) -> float:
    """The epsilon after the charge.

    Raises:
        BudgetExceededError: it is above the cap.
    """
    after = filter_epsilon([*before, charge.event], policy.delta, order)
    if not after <= policy.epsilon:
        spent = filter_epsilon(before, policy.delta, order)
        what, remedy = _WORDS.get(charge.purpose, _WORDS["pretrain"])
        raise BudgetExceededError(
            f"{what.format(round=charge.round, steps=charge.event.steps)} would raise epsilon from {spent:.3f} to "
            f"{after:.3f} at delta={policy.delta:g}, above this site's limit {policy.epsilon:.3f}; {remedy}, or ask "
            "the privacy officer"
        )
    return after


def rounded_up(epsilon: float) -> float:
    """Four decimals, for those outside the site: never below what was spent."""
    return math.ceil(epsilon * 1e4) / 1e4


_WORDS = {
    "pretrain": ("round {round}", "raise the noise multiplier, train fewer rounds"),
    "finetune": (
        "fine-tuning of {steps:,} steps",
        "raise privacy.finetune.noise_multiplier, take fewer steps (finetune.steps)",
    ),
    "metrics": ("a release of metrics", "raise privacy.finetune.metrics_noise, take fewer steps before it"),
}
"""What a charge is for, and what would make it smaller."""
