"""The first tab: what a run would cost. A sketch follows a moving slider; the whole plan follows once it rests."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from client.privacy import plan_plots, plan_text
from client.privacy.ledger import Ledger
from client.privacy.own_runs import OwnRuns
from client.privacy.plan import Plan, PlanRequest, Sketch
from client.privacy.plan_site import PlanAtSite, after_charges, at_site
from client.privacy.planner import plan_for, sketch
from client.ui.handling import Updates, told
from client.ui.look import facts, figure, paragraph, said, shown, table
from client.ui.officer.asked import NOISE, command_of, fields, request_of, start_of

REST_S = 0.3
"""So long nothing has moved before the whole plan is computed."""


class Planned:
    """One visitor's plan; the other tabs look at it. No dataclass: Gradio would send its fields to the browser."""

    def __init__(self) -> None:
        self.asked: PlanRequest | None = None
        """What the fields say; None where they say nothing that can be planned."""
        self.found: Sketch | None = None
        """The last plan, or the sketch before it."""
        self.here: PlanAtSite | str | None = None
        """The same at the site."""
        self.ledger: Ledger | None = None
        """As it was when the page was opened or a plan last came to rest."""


def build(page: gr.Blocks, site: Path | None, past: OwnRuns, runs: Path | None) -> gr.State:
    """The tab; what comes back holds a `Planned` for each visitor."""
    planned = gr.State(Planned())
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            asked = fields(start_of(site), at_site=site is not None)
        with gr.Column(scale=5, min_width=320):
            place, top, rounds, words, delta, typed = said(), shown(), shown(), shown(), shown(), shown()

    def draw(state: Planned, found: Sketch) -> Updates:
        state.found = found
        state.here = None if state.ledger is None else at_site(found, state.ledger)
        updates: Updates = {
            top: "".join(_top(found, state.here)),
            rounds: figure(plan_plots.rounds_svg(found), "Epsilon over the rounds. The dashed line is the cap."),
            words: table("In plain words", [], list(plan_text.rows(found, past, state.here))),
        }
        if isinstance(found, Plan):
            updates[delta] = figure(plan_plots.delta_svg(found), "The same plan, had delta been chosen differently.")
        return updates

    def request(state: Planned) -> PlanRequest:
        assert state.asked is not None
        return state.asked if state.ledger is None else after_charges(state.asked, state.ledger)

    @told(place)
    def quick(state: Planned, *values: Any) -> Updates:
        state.asked = None
        wanted = request_of(values)
        state.ledger = state.ledger or (None if site is None else Ledger.open(site))
        state.asked = wanted
        try:
            updates = draw(state, sketch(request(state)))
        except Exception:
            state.asked = None
            raise
        return updates | {typed: paragraph(f"The same at a terminal: {command_of(wanted, site, runs)}", "code faint")}

    @told(place)
    def exact(state: Planned) -> Updates:
        wanted = state.asked
        time.sleep(REST_S)
        if wanted is None or state.asked is not wanted:
            return {place: gr.skip()}
        state.ledger = None if site is None else Ledger.open(site)
        found = plan_for(request(state))
        return draw(state, found) if state.asked is wanted else {place: gr.skip()}

    changes = [getattr(field, "change") for field in asked.all()]  # noqa: B009  # Gradio adds them as it goes.
    outputs = [place, top, rounds, words, delta, typed]
    calm: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last", "concurrency_limit": 4}
    moved = gr.on([page.load, *changes], quick, [planned, *asked.all()], outputs, **calm)
    moved.then(exact, [planned], outputs, **calm)
    asked.given.change(
        lambda given: {asked.noise: gr.update(visible=given == NOISE), asked.target: gr.update(visible=given != NOISE)},
        [asked.given],
        [asked.noise, asked.target],
        show_progress="hidden",
    )
    return planned


def _top(found: Sketch, here: PlanAtSite | str | None) -> Iterator[str]:
    """The one large number, where it stops, and three numbers beside it."""
    of = "" if found.cap is None else f" of {found.cap:g}"
    yield paragraph(f"epsilon {found.epsilon_after:.3f}{of}", "number")
    yield paragraph(plan_text.lifetime(found), "faint")
    kind = "good" if found.stops_at_step is None and found.cap is not None else "bad"
    yield paragraph(f"Where it stops: {plan_text.stop(found)}", "" if found.cap is None else kind)
    if here is not None:
        for line in plan_text.at_site_lines(found, here):
            if "REFUSED" in line:
                yield paragraph(f"At this site: {line}", "bad")
    whole = found if isinstance(found, Plan) else None
    yield facts(
        [
            (
                "this plan alone",
                f"{whole.epsilon:.3f}" if whole else f"≤ {found.epsilon_rdp:.3f}",
                "epsilon, by PLD" if whole else "epsilon, by RDP; PLD follows",
            ),
            (
                "a best attack finds at most",
                plan_text.percent(whole.true_positive_rate) if whole else "…",
                "of those who are present, wrong on 1 % of the others",
            ),
            ("noise", f"{found.noise_multiplier:.4g}", "times the largest change of one patient"),
        ]
    )
