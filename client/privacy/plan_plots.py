"""A plan's curves: epsilon over the rounds with the cap, and epsilon over delta."""

import threading
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from client.privacy.errors import PlanError
from client.privacy.plan import Plan, Sketch
from mumc_model import figures
from mumc_model.figures import CLEAR, FAINT, VARIABLES, to_svg

PLD_COLOUR, RDP_COLOUR, CAP_COLOUR = "#0b62b4", "#d98200", "#a83232"
STYLE: dict[Any, Any] = {**figures.STYLE, "svg.hashsalt": "plan"}
FORMATS = (".svg", ".png")
WIDTH, HEIGHT = 8.4, 3.6
PIXELS_AN_INCH = 150
PAGE_VARIABLES = {**VARIABLES, PLD_COLOUR: "pld", RDP_COLOUR: "rdp", CAP_COLOUR: "cap"}
"""A page's own shades of these colours, for light and dark."""
DRAWING = threading.Lock()
"""Held while a page draws: matplotlib's settings belong to the whole program, and a page answers in threads."""


def write_plots(plan: Plan, path: Path) -> None:
    """Draw the plan into that file. The same plan gives the same SVG.

    Raises:
        PlanError: the name does not end in .svg or .png.
    """
    check_plot_name(path)
    metadata = {"Date": None, "Creator": None} if path.suffix == ".svg" else {"Software": None}
    with DRAWING, mpl.rc_context(STYLE):
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(plan).savefig(path, dpi=PIXELS_AN_INCH, facecolor="white", metadata=metadata)


def check_plot_name(path: Path) -> None:
    """Return where a plot can be written under that name.

    Raises:
        PlanError: it cannot.
    """
    if path.suffix not in FORMATS:
        raise PlanError(f"a plot cannot end in '{path.suffix}'; choose a name that ends in {' or '.join(FORMATS)}")


def draw(plan: Plan) -> Figure:
    """Both curves side by side."""
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    over_steps, over_delta = figure.subplots(1, 2, width_ratios=(3, 2))
    _over_steps(over_steps, plan)
    _over_delta(over_delta, plan)
    for axes in (over_steps, over_delta):
        _finish(axes)
    entries, labels = over_steps.get_legend_handles_labels()
    figure.legend(entries, labels, loc="outside upper left", ncols=len(labels), fontsize=9, handletextpad=0.4)
    return figure


def rounds_svg(plan: Sketch) -> str:
    """Epsilon over the rounds for a page; of a sketch the life-time alone."""
    cap = "" if plan.cap is None else f", under a cap of {plan.cap:g}"
    summary = f"epsilon from {plan.epsilon_spent:.3f} to {plan.epsilon_after:.3f} over the rounds, by RDP{cap}"
    with DRAWING, mpl.rc_context({**STYLE, **CLEAR}):
        figure = Figure(figsize=(7.6, 3.0))
        axes = figure.add_axes((0.075, 0.15, 0.9, 0.73))
        _over_steps(axes, plan)
        _finish(axes)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, fontsize=9, handletextpad=0.4)
        return to_svg(figure, "rounds", summary, PAGE_VARIABLES)


def delta_svg(plan: Plan) -> str:
    """Epsilon over delta for a page."""
    summary = f"epsilon of the whole plan over delta, {plan.epsilon:.3f} at {plan.delta:g}, by PLD"
    with DRAWING, mpl.rc_context({**STYLE, **CLEAR}):
        figure = Figure(figsize=(7.6, 2.6))
        axes = figure.add_axes((0.075, 0.18, 0.9, 0.77))
        _over_delta(axes, plan)
        _finish(axes)
        return to_svg(figure, "delta", summary, PAGE_VARIABLES)


def _finish(axes: Axes) -> None:
    axes.grid(axis="y", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("epsilon")


def _over_steps(axes: Axes, plan: Sketch) -> None:
    """Over rounds where there are several, else over steps."""
    unit, length = ("round", plan.steps_a_round) if plan.rounds > 1 else ("step", 1)
    lifetime = (plan.epsilon_after_over_steps, RDP_COLOUR, "-", "life-time, RDP")
    alone = [(plan.epsilon_over_steps, PLD_COLOUR, "o-", "this plan, PLD")] if isinstance(plan, Plan) else []
    for curve, colour, style, label in (*alone, lifetime):
        axes.plot([x / length for x, _ in curve], [y for _, y in curve], style, color=colour, ms=4, label=label)
    if plan.cap is not None:
        axes.axhline(plan.cap, color=CAP_COLOUR, linestyle="--", linewidth=1.2, label=f"cap {plan.cap:g}")
    if plan.stops_at_step is not None:
        place = plan.stops_at_round if plan.rounds > 1 else plan.stops_at_step
        axes.axvline(plan.stops_at_step / length, color=CAP_COLOUR, linewidth=1)
        text = f" {unit} {place:,} is refused " if plan.rounds > 1 else f" stops after step {place:,} "
        right = plan.stops_at_step > plan.steps / 2
        axes.text(plan.stops_at_step / length, 0, text, ha="right" if right else "left", va="bottom", fontsize=9)
    axes.set_xlim(0, plan.steps / length)
    axes.set_xlabel(unit)


def _over_delta(axes: Axes, plan: Plan) -> None:
    axes.plot(*zip(*plan.epsilon_over_delta, strict=True), "o-", color=PLD_COLOUR, ms=4)
    axes.axvline(plan.delta, color=FAINT, linestyle=":", linewidth=1.2)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda delta, _: f"{delta:.0e}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(f"delta (this plan: {plan.delta:g}), by PLD")
