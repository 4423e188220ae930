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
from client.ui.handling import Updates, faults_at
from client.ui.look import facts, figure, paragraph, said, shown, table
from client.ui.officer.plan_fields import NOISE, command_of, fields, request_of, start_of

REST_S = 0.3
"""So long nothing has moved before the whole plan is computed."""


class Planned:
    """One visitor's plan; the other tabs look at it. No dataclass: Gradio would send its fields to the browser."""

    def __init__(self) -> None:
        self.wanted: PlanRequest | None = None
        """What the fields say; None where they say nothing that can be planned."""
        self.found: Sketch | None = None
        """The last plan, or the sketch before it."""
        self.here: PlanAtSite | str | None = None
        """The same at the site."""
        self.ledger: Ledger | None = None
        """As it was when the page was opened or a plan last came to rest."""


class PlanTab:
    """The tab's fields and places, and what happens when they are used.

    Args:
        site: The site's folder, if one was named.
        past: What privacy cost in this installation's own runs.
        runs: Where those lie, as it was typed.
    """

    def __init__(self, site: Path | None, past: OwnRuns, runs: Path | None) -> None:
        self._site, self._past, self._runs = site, past, runs
        self.planned = gr.State(Planned())
        """A `Planned` for each visitor."""
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                self.fields = fields(start_of(site), at_site=site is not None)
            with gr.Column(scale=5, min_width=320):
                self.place, self.top, self.rounds = said(), shown(), shown()
                self.words, self.delta, self.typed = shown(), shown(), shown()

    def connect(self, page: gr.Blocks) -> None:
        """Tie the handlers to the fields."""
        tell, given = faults_at(self.place), self.fields.given
        changes = [getattr(field, "change") for field in self.fields.all()]  # noqa: B009  # Gradio adds them as it goes.
        outputs = [self.place, self.top, self.rounds, self.words, self.delta, self.typed]
        calm: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last"}
        inputs = [self.planned, *self.fields.all()]
        moved = gr.on([page.load, *changes], tell(self.quick), inputs, outputs, **calm)
        moved.then(tell(self.exact), [self.planned], outputs, **calm)
        given.change(self.switch, [given], [self.fields.noise, self.fields.target], show_progress="hidden")

    def switch(self, given: str) -> Updates:
        """Show the one field that was chosen to be given."""
        fields = self.fields
        return {
            fields.noise: gr.update(visible=given == NOISE),
            fields.target: gr.update(visible=given != NOISE),
        }

    def quick(self, state: Planned, *values: Any) -> Updates:
        """Sketch what the fields say."""
        state.wanted = None
        wanted = request_of(values)
        state.ledger = state.ledger or (None if self._site is None else Ledger.open(self._site))
        updates = self._drawn(state, sketch(_with_charges(wanted, state.ledger)))
        state.wanted = wanted
        line = f"The same at a terminal: {command_of(wanted, self._site, self._runs)}"
        return updates | {self.typed: paragraph(line, "code faint")}

    def exact(self, state: Planned) -> Updates:
        """Compute the whole plan, unless a field moves meanwhile."""
        wanted = state.wanted
        time.sleep(REST_S)
        if wanted is None or state.wanted is not wanted:
            return {self.place: gr.skip()}
        state.ledger = None if self._site is None else Ledger.open(self._site)
        found = plan_for(_with_charges(wanted, state.ledger))
        return self._drawn(state, found) if state.wanted is wanted else {self.place: gr.skip()}

    def _drawn(self, state: Planned, found: Sketch) -> Updates:
        state.found = found
        state.here = None if state.ledger is None else at_site(found, state.ledger)
        updates: Updates = {
            self.top: "".join(_top(found, state.here)),
            self.rounds: figure(plan_plots.rounds_svg(found), "Epsilon over the rounds. The dashed line is the cap."),
            self.words: table("In plain words", [], list(plan_text.rows(found, self._past, state.here))),
        }
        if isinstance(found, Plan):
            drawing = plan_plots.delta_svg(found)
            updates[self.delta] = figure(drawing, "The same plan, had delta been chosen differently.")
        return updates


def _with_charges(wanted: PlanRequest, ledger: Ledger | None) -> PlanRequest:
    """What is wanted, after all that the site's ledger has charged already."""
    return wanted if ledger is None else after_charges(wanted, ledger)


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
