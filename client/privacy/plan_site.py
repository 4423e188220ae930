"""A plan beside the site it is made for: what its officer has signed, and what its ledger has left."""

import datetime
from dataclasses import asdict, dataclass, replace
from typing import Any

from client.privacy.errors import PolicyError
from client.privacy.event import Event
from client.privacy.ledger import Ledger
from client.privacy.plan import PlanRequest, Sketch
from client.privacy.policy import PrivacyPolicy


@dataclass(frozen=True, kw_only=True)
class PlanAtSite:
    """The plan's work as this site would charge it: at the policy's number of units, delta and cap."""

    units: int
    """That the policy declares."""
    delta: float
    noise_multiplier: float
    """The least that the policy allows."""
    cap: float
    expires: str
    sample_rate: float
    """The plan's batch over the policy's units."""
    epsilon_spent: float
    """By RDP at the filter's order, what is reserved included, as all of the following."""
    epsilon_remaining: float
    epsilon_after: float | None
    """Of all that was charged and the whole plan; None where no such step can be."""
    stops_at_step: int | None
    """The last step under the cap; None where all fit."""
    stops_at_round: int | None
    """The first round that is refused; None where all fit."""
    patients_differ: bool
    delta_differs: bool
    noise_too_low: bool
    batch_too_large: bool
    expired: bool

    @property
    def refused(self) -> bool:
        """Whether the site would refuse the first round."""
        return self.noise_too_low or self.batch_too_large or self.expired or self.stops_at_round == 1

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "refused": self.refused}


def after_charges(request: PlanRequest, ledger: Ledger) -> PlanRequest:
    """The request after what the site's ledger has charged, under the site's policy where both count at one delta."""
    request = replace(request, spent=ledger.events())
    try:
        policy = ledger.policy()
    except PolicyError:
        return request
    if policy.delta != request.delta:
        return request
    return replace(request, order=ledger.order, cap=policy.epsilon if request.cap is None else request.cap)


def at_site(plan: Sketch, ledger: Ledger) -> PlanAtSite | str:
    """The plan as the site would charge it, or why it would charge nothing: no policy is in force."""
    try:
        policy = ledger.policy()
    except PolicyError as error:
        return str(error)
    rate = plan.batch / policy.units
    after, last = _charged(plan, ledger, policy, rate) if rate <= 1 else (None, 0)
    spent = ledger.epsilon()
    return PlanAtSite(
        units=policy.units,
        delta=policy.delta,
        noise_multiplier=policy.noise_multiplier,
        cap=policy.epsilon,
        expires=policy.expires,
        sample_rate=rate,
        epsilon_spent=spent,
        epsilon_remaining=max(0.0, policy.epsilon - spent),
        epsilon_after=after,
        stops_at_step=last,
        stops_at_round=None if last is None else last // plan.steps_a_round + 1,
        patients_differ=plan.patients != policy.units,
        delta_differs=plan.delta != policy.delta,
        noise_too_low=plan.noise_multiplier < policy.noise_multiplier,
        batch_too_large=rate > 1,
        expired=bool(policy.expires) and datetime.date.today() > datetime.date.fromisoformat(policy.expires),
    )


def site_values(found: PlanAtSite | str | None) -> dict[str, Any]:
    """Plain values of what `at_site` found; of no site without one."""
    if isinstance(found, str):
        return {"site": None, "site_problem": found}
    return {"site": None if found is None else found.to_dict(), "site_problem": None}


def _charged(plan: Sketch, ledger: Ledger, policy: PrivacyPolicy, rate: float) -> tuple[float, int | None]:
    """Epsilon after the whole plan, and the last step under the cap where that comes before its end."""
    from client.privacy.accounting import steps_within
    from client.privacy.budget import filter_epsilon, filter_order

    event = Event(sample_rate=rate, noise_multiplier=plan.noise_multiplier, steps=plan.steps)
    order = ledger.order or filter_order(policy.epsilon, policy.delta, event)
    spent = ledger.events()
    last = steps_within(
        spent=spent,
        sample_rate=rate,
        noise_multiplier=plan.noise_multiplier,
        cap=policy.epsilon,
        delta=policy.delta,
        order=order,
    )
    return filter_epsilon([*spent, event], policy.delta, order), last if last < plan.steps else None
