"""A plan in plain words, for a privacy officer."""

import math
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from client.privacy.plan import Plan

NO_RUNS = "no runs here yet"


def to_console(plan: Plan, console: Console) -> None:
    """Print the plan as a table of questions and answers."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 1, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for question, answer in rows(plan):
        table.add_row(question, answer)
    console.print(table, highlight=False)


def rows(plan: Plan) -> Iterator[tuple[str, str]]:
    """What an officer asks, and the plan's answer."""
    yield "what is protected", _protected(plan)
    yield "the work", _work(plan)
    yield "noise", f"{plan.noise_multiplier:.4g} times the largest change that one {plan.unit} can make to a step"
    yield "epsilon, this plan", _epsilon(plan)
    yield "epsilon, life-time", _lifetime(plan)
    yield "where it stops", _stop(plan)
    yield "twice the rounds", _doubled(plan)
    yield "what an attacker gains", _attack(plan)
    yield "noise for other caps", _caps(plan)
    yield "accuracy", _accuracy(plan)


def _protected(plan: Plan) -> str:
    return (
        f"whether any one {plan.unit} of about {plan.patients:,} is in the data at all, with everything that is "
        f"recorded about them; the promise may fail with a probability of about delta = {plan.delta:g}"
    )


def _work(plan: Plan) -> str:
    rounds = "1 round" if plan.rounds == 1 else f"{plan.rounds:,} rounds"
    return (
        f"{plan.steps:,} steps in {rounds}, {plan.batch:,} {plan.unit}s a step on average: each enters a step with "
        f"probability {plan.sample_rate:.4g}"
    )


def _epsilon(plan: Plan) -> str:
    return (
        f"{plan.epsilon:.3f} by {plan.accountant}, {plan.epsilon_rdp:.3f} by {plan.accountant_rdp}. Both are upper "
        "bounds. PLD is the closer one, for a plan that is fixed beforehand and run to its end; RDP still holds where "
        "later work is chosen after looking at earlier results, so the cap counts in RDP"
    )


def _lifetime(plan: Plan) -> str:
    return f"{plan.epsilon_spent:.3f} spent before, {plan.epsilon_after:.3f} after this plan, by RDP"


def _stop(plan: Plan) -> str:
    if plan.cap is None:
        return "nowhere: no cap is given (--cap)"
    if plan.stops_at_step is None:
        return f"nowhere: all of it fits under the cap of {plan.cap:g}"
    return (
        f"the cap of {plan.cap:g} admits {plan.stops_at_step:,} of {plan.steps:,} steps; a round is reserved whole, so "
        f"round {plan.stops_at_round:,} is refused"
    )


def _doubled(plan: Plan) -> str:
    return (
        f"epsilon {plan.doubled_epsilon:.3f} by PLD instead of {plan.epsilon:.3f}; over the life-time "
        f"{plan.doubled_epsilon_after:.3f} by RDP instead of {plan.epsilon_after:.3f}"
    )


def _attack(plan: Plan) -> str:
    return (
        f"the best possible test for a {plan.unit}'s presence, wrong on {100 * plan.false_positive_rate:g} % of those "
        f"who are absent, finds at most {_percent(plan.true_positive_rate)} of those who are present; someone who "
        f"thought it a coin's toss can become at most {_percent(plan.posterior)} sure. Both are for an attacker who "
        "sees every update and knows everyone else"
    )


def _caps(plan: Plan) -> str:
    if not plan.noise_over_cap:
        return "what is spent leaves no room under caps up to 8"
    return ", ".join(f"{noise:.3g} for {cap:g}" for cap, noise in plan.noise_over_cap) + ", by RDP, for all of the plan"


def _accuracy(plan: Plan) -> str:
    if not plan.own_runs:
        return f"{NO_RUNS}: what this noise costs is only known from runs at this site"
    return ", ".join(f"{_percent(accuracy)} at epsilon {epsilon:g}" for epsilon, accuracy in plan.own_runs)


def _percent(share: float) -> str:
    """Rounded up, so that the words never promise more than the number."""
    return f"{math.ceil(share * 1000 - 1e-9) / 10:.1f} %"
