"""A plan's curves: epsilon over the rounds with the cap, and epsilon over delta."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from client.privacy.errors import PlanError
from client.privacy.plan import Plan
from mumc_model import figures
from mumc_model.figures import FAINT

PLD_COLOUR, RDP_COLOUR, CAP_COLOUR = "#0b62b4", "#d98200", "#a83232"
STYLE: dict[Any, Any] = {**figures.STYLE, "svg.hashsalt": "plan"}
FORMATS = (".svg", ".png")
WIDTH, HEIGHT = 8.4, 3.6
PIXELS_AN_INCH = 150


def write_plots(plan: Plan, path: Path) -> None:
    """Draw the plan into that file. The same plan gives the same SVG.

    Raises:
        PlanError: the name does not end in .svg or .png.
    """
    check_plot_name(path)
    metadata = {"Date": None, "Creator": None} if path.suffix == ".svg" else {"Software": None}
    with mpl.rc_context(STYLE):
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
        axes.grid(axis="y", linewidth=0.5)
        axes.set_axisbelow(True)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("epsilon")
    entries, labels = over_steps.get_legend_handles_labels()
    figure.legend(entries, labels, loc="outside upper left", ncols=len(labels), fontsize=9, handletextpad=0.4)
    return figure


def _over_steps(axes: Axes, plan: Plan) -> None:
    """Over rounds where there are several, else over steps."""
    unit, length = ("round", plan.steps_a_round) if plan.rounds > 1 else ("step", 1)
    for curve, colour, style, label in (
        (plan.epsilon_over_steps, PLD_COLOUR, "o-", "this plan, PLD"),
        (plan.epsilon_after_over_steps, RDP_COLOUR, "-", "life-time, RDP"),
    ):
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
