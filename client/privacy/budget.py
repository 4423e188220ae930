"""Whether work fits under a policy's cap, by an RDP filter whose order is fixed before the first release."""

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


def filter_order(policy: PrivacyPolicy, first: Event) -> float:
    """The order at which most steps like the first ones fit under the cap."""
    from client.privacy.accounting import best_order, steps_within

    rate, noise = first.sample_rate, first.noise_multiplier
    steps = steps_within(spent=(), sample_rate=rate, noise_multiplier=noise, cap=policy.epsilon, delta=policy.delta)
    return best_order([Event(sample_rate=rate, noise_multiplier=noise, steps=max(steps, 1))], policy.delta)


def epsilon_with(policy: PrivacyPolicy, before: Sequence[Event], charge: Charge, order: float) -> float:
    """The epsilon after the charge.

    Raises:
        BudgetExceededError: it is above the cap.
    """
    after = filter_epsilon([*before, charge.event], policy.delta, order)
    if not after <= policy.epsilon:
        spent = filter_epsilon(before, policy.delta, order)
        raise BudgetExceededError(
            f"round {charge.round} would raise epsilon from {spent:.3f} to {after:.3f} at delta={policy.delta:g}, "
            f"above this site's limit {policy.epsilon:.3f}; raise the noise multiplier, train fewer rounds, or ask the "
            "privacy officer"
        )
    return after
