"""A plan in plain words, for a privacy officer."""

import math
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from client.privacy.own_runs import OwnRun, OwnRuns
from client.privacy.plan import Plan, Sketch
from client.privacy.plan_site import PlanAtSite

NO_RUNS = "no runs yet"
FOLLOWS = "follows"
"""In the place of what a sketch does not know."""
MOST_NAMED = 3
"""Of reports that could not be read."""


def to_console(plan: Plan, console: Console, runs: OwnRuns, site: PlanAtSite | str | None = None) -> None:
    """Print the plan as a table of questions and answers."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 1, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for question, answer in rows(plan, runs, site):
        table.add_row(question, escape(answer))
    console.print(table, highlight=False)


def rows(plan: Sketch, runs: OwnRuns, site: PlanAtSite | str | None = None) -> Iterator[tuple[str, str]]:
    """What an officer asks, and the plan's answer; `site` is the plan at a site, or why its policy says nothing."""
    whole = plan if isinstance(plan, Plan) else None
    yield "what is protected", _protected(plan)
    yield "the work", _work(plan)
    yield "noise", f"{plan.noise_multiplier:.4g} times the largest change that one {plan.unit} can make to a step"
    yield (
        "epsilon, this plan",
        _epsilon(whole) if whole else f"at most {plan.epsilon_rdp:.3f}, by RDP; the closer number {FOLLOWS}",
    )
    yield "epsilon, life-time", lifetime(plan)
    yield "where it stops", stop(plan)
    if site is not None:
        yield "at this site", "\n".join(at_site_lines(plan, site))
    yield "twice the rounds", _doubled(whole) if whole else FOLLOWS
    yield "what an attacker gains", _attack(whole) if whole else FOLLOWS
    yield "noise for other caps", _caps(whole) if whole else FOLLOWS
    yield "accuracy", "\n".join(_accuracy(whole, runs)) if whole else FOLLOWS


def _protected(plan: Sketch) -> str:
    return (
        f"whether any one {plan.unit} of about {plan.patients:,} is in the data at all, with everything that is "
        f"recorded about them; the promise may fail with a probability of about delta = {plan.delta:g}"
    )


def _work(plan: Sketch) -> str:
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


def lifetime(plan: Sketch) -> str:
    """What was spent, and what would be."""
    return f"{plan.epsilon_spent:.3f} spent before, {plan.epsilon_after:.3f} after this plan, by RDP"


def stop(plan: Sketch) -> str:
    """Where the cap ends the plan."""
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
        f"who are absent, finds at most {percent(plan.true_positive_rate)} of those who are present; someone who "
        f"thought it a coin's toss can become at most {percent(plan.posterior)} sure. Both are for an attacker who "
        "sees every update and knows everyone else"
    )


def _caps(plan: Plan) -> str:
    if not plan.noise_over_cap:
        return "what is spent leaves no room under caps up to 8"
    return ", ".join(f"{noise:.3g} for {cap:g}" for cap, noise in plan.noise_over_cap) + ", by RDP, for all of the plan"


def at_site_lines(plan: Sketch, site: PlanAtSite | str) -> Iterator[str]:
    """What the site's policy and ledger make of the plan, the obstacles first."""
    if isinstance(site, str):
        yield f"REFUSED: {site}"
        return
    if site.expired:
        yield f"REFUSED: the policy ended on {site.expires}; let the privacy officer approve a new one"
    if site.noise_too_low:
        yield (
            f"REFUSED: the noise is {plan.noise_multiplier:.4g}, and the policy asks for at least "
            f"{site.noise_multiplier:g}"
        )
    if site.batch_too_large:
        yield f"REFUSED: a batch of {plan.batch:,} is more than the {site.units:,} {plan.unit}s of the policy"
    elif site.patients_differ:
        yield (
            f"the plan is for {plan.patients:,} {plan.unit}s and the policy declares {site.units:,}, which is what "
            f"counts: each enters a step with probability {site.sample_rate:.4g}, not {plan.sample_rate:.4g}"
        )
    if site.delta_differs:
        yield f"the plan is at delta {plan.delta:g} and the policy counts at {site.delta:g}: plan with that one"
    yield from _budget(plan, site)


def _budget(plan: Sketch, site: PlanAtSite) -> Iterator[str]:
    left = (
        f"{site.epsilon_spent:.3f} of the policy's {site.cap:g} is charged and {site.epsilon_remaining:.3f} left, by "
        f"RDP at delta {site.delta:g}"
    )
    if site.epsilon_after is None:
        yield left
    elif site.stops_at_step is None:
        yield f"{left}; the whole plan fits and brings it to {site.epsilon_after:.3f}"
    else:
        yield (
            f"{left}; that admits {site.stops_at_step:,} of {plan.steps:,} steps: round {site.stops_at_round:,} is "
            "REFUSED"
        )


def _accuracy(plan: Plan, runs: OwnRuns) -> Iterator[str]:
    """What runs of this installation showed at epsilons near the plan's."""
    near = runs.near(plan.epsilon)
    if not near:
        yield f"{NO_RUNS}: what this noise costs is only known from runs here (mumc-sim run experiment=privacy)"
    for own in near:
        yield _own_run(own)
    for own in {own.run: own for own in near if own.without_noise}.values():
        arms = ", ".join(f"{_share(accuracy)} {arm}" for arm, accuracy in own.without_noise.items())
        yield f"without noise in {own.run}: {arms}"
    if near:
        yield "accuracy falls further where fewer patients are, and these are not this site's questions"
    for problem in runs.problems[:MOST_NAMED]:
        yield f"left out, {problem}"
    if (more := len(runs.problems) - MOST_NAMED) > 0:
        yield f"left out, and {more} reports more"


def _own_run(own: OwnRun) -> str:
    low, high = own.accuracy_ci95
    found = "" if own.retrieval_at_5 is None else f"; caption among the first 5 {_share(own.retrieval_at_5)}"
    if own.retrieval_at_5_seeds is not None and own.seeds > 1:
        found += " ({} to {} by seed)".format(*map(_share, own.retrieval_at_5_seeds))
    return (
        f"epsilon {own.epsilon:.3g} at delta {own.delta:g}: {_share(own.accuracy)} of {own.answers:,} answers right "
        f"(95 %: {_share(low)} to {_share(high)}){found}; {own.arm} in {own.run}, {own.sites} {own.data} sites of "
        f"{own.images_a_site:,.0f} images, {own.seeds} seed{'s' * (own.seeds != 1)}"
    )


def _share(share: float) -> str:
    return f"{100 * share:.1f} %"


def percent(share: float) -> str:
    """Rounded up, so that the words never promise more than the number."""
    return f"{math.ceil(share * 1000 - 1e-9) / 10:.1f} %"
