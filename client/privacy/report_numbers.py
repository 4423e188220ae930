"""The numbers of a privacy report, from a ledger: what is spent, over rounds, runs and delta, and what it allows."""

import math
from collections.abc import Iterable
from typing import Any

from client.privacy import accounting
from client.privacy.budget import filter_epsilon
from client.privacy.event import Event, merge
from client.privacy.ledger import Ledger
from client.privacy.ledger_rows import Reservation
from client.privacy.policy import PrivacyPolicy

FALSE_POSITIVE_RATE = 0.01
_DELTAS = tuple(10.0**exponent for exponent in range(-12, 0))

Values = dict[str, Any]


def charges(ledger: Ledger, policy: PrivacyPolicy | None) -> list[Values]:
    """Every charge, oldest first, with the epsilon of all up to it as far as they are known today."""
    shown, before = [], []
    for found in ledger.reservations:
        before.append(found.event)
        now = None if policy is None else filter_epsilon(before, policy.delta, ledger.order)
        shown.append(_charge(found) | {"epsilon": now})
    return shown


def runs(ledger: Ledger, policy: PrivacyPolicy) -> list[Values]:
    """What each run cost by itself, by both accountants."""
    by_run: dict[str, list[Reservation]] = {}
    for found in ledger.reservations:
        by_run.setdefault(found.charge.run, []).append(found)
    return [
        {"run": run, "charges": len(rows), **_costs(merge(found.event for found in rows), policy, ledger.order)}
        for run, rows in by_run.items()
    ]


def budget(ledger: Ledger, policy: PrivacyPolicy) -> Values:
    """The cap, what was spent and reserved, what is left, and what further rounds like the last would find."""
    spent, after = filter_epsilon(ledger.spent(), policy.delta, ledger.order), ledger.epsilon()
    return {
        "cap": policy.epsilon,
        "spent": spent,
        "reserved": after - spent,
        "spent_and_reserved": after,
        "remaining": ledger.remaining(),
        "if_fixed_beforehand": ledger.epsilon("pld"),
        "rounds_left": _rounds_left(ledger, policy),
        "steps_done": sum(event.steps for event in ledger.spent()),
        "steps_reserved": sum(event.steps for event in ledger.reserved()),
    }


def over_delta(ledger: Ledger, policy: PrivacyPolicy) -> list[Values]:
    """The epsilon of all that counts at other deltas, up to the largest that is allowed."""
    largest = 1 / (10 * policy.units)
    deltas = sorted({delta for delta in _DELTAS if delta <= largest} | {policy.delta})
    events = ledger.events()
    return [
        {
            "delta": delta,
            "rdp": filter_epsilon(events, delta, ledger.order),
            "pld": accounting.epsilon_pld(events, delta) if events else 0.0,
        }
        for delta in deltas
    ]


def attack(ledger: Ledger, policy: PrivacyPolicy) -> Values:
    """What an attacker can gain from all that counts, and from the whole cap if it is used up."""
    epsilon = ledger.epsilon()
    return {
        "false_positive_rate": FALSE_POSITIVE_RATE,
        "true_positive_rate": true_positives(ledger.events(), ledger.order, policy.delta),
        "posterior": accounting.posterior(epsilon),
        "true_positive_rate_at_cap": true_positives_at_cap(policy.epsilon, policy.delta, ledger.order),
        "posterior_at_cap": accounting.posterior(policy.epsilon),
    }


def true_positives(events: Iterable[Event], order: float | None, delta: float) -> float:
    """The largest true-positive rate of any test for one unit at `FALSE_POSITIVE_RATE`, by RDP at the filter's order.

    Source: arXiv 1311.0776, theorem 2.1, at every delta; the least bound counts.
    """
    if not (events := tuple(events)):
        return FALSE_POSITIVE_RATE
    return min(_bound(filter_epsilon(events, at, order), at) for at in {*_DELTAS, delta})


def true_positives_at_cap(cap: float, delta: float, order: float | None) -> float:
    """The same once the filter has let through all that its cap allows; before the first charge no order is fixed.

    Source: arXiv 2004.00010, proposition 12: at one order epsilon moves with -log(delta) / (order - 1).
    """
    if order is None:
        return _bound(cap, delta)
    return min(_bound(max(0.0, cap + math.log(delta / at) / (order - 1)), at) for at in {*_DELTAS, delta})


def _bound(epsilon: float, delta: float) -> float:
    few = math.exp(min(epsilon, 700)) * FALSE_POSITIVE_RATE + delta
    many = 1 - math.exp(-epsilon) * (1 - FALSE_POSITIVE_RATE - delta)
    return min(few, many, 1.0)


def _rounds_left(ledger: Ledger, policy: PrivacyPolicy) -> int | None:
    """How many rounds like the last one still fit; None before the first."""
    if not ledger.reservations:
        return None
    event = ledger.reservations[-1].charge.event
    steps = accounting.steps_within(
        spent=ledger.events(),
        sample_rate=event.sample_rate,
        noise_multiplier=event.noise_multiplier,
        cap=policy.epsilon,
        delta=policy.delta,
        order=ledger.order,
    )
    return steps // event.steps


def _costs(events: tuple[Event, ...], policy: PrivacyPolicy, order: float | None) -> Values:
    return {
        "steps": sum(event.steps for event in events),
        "rdp": filter_epsilon(events, policy.delta, order),
        "pld": accounting.epsilon_pld(events, policy.delta) if events else 0.0,
    }


def _charge(found: Reservation) -> Values:
    charge = found.charge
    return {
        "run": charge.run,
        "round": charge.round,
        "attempt": charge.attempt,
        "purpose": charge.purpose,
        "unit": charge.unit,
        # The hour at which a round began or how long it took may depend on the data: the day does for a report.
        "day": found.time[:10],
        "mechanism": charge.event.to_dict()["mechanism"],
        "sample_rate": charge.event.sample_rate,
        "noise_multiplier": charge.event.noise_multiplier,
        "clipping_norm": charge.clipping_norm,
        "expected_batch": charge.expected_batch,
        "steps_reserved": charge.event.steps,
        "steps_done": found.steps_done,
        "operator": charge.operator,
        "code": found.code,
    }
