"""The plots of a privacy report as SVG inside its page: epsilon over rounds under the cap, and epsilon over delta."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from client.privacy.plan_plots import CAP_COLOUR, PLD_COLOUR, RDP_COLOUR, STYLE
from client.privacy.report import value
from mumc_model import figures
from mumc_model.figures import CLEAR, FAINT, to_svg

COLOURS = figures.VARIABLES | {PLD_COLOUR: "pld", RDP_COLOUR: "rdp", CAP_COLOUR: "cap"}
"""What is drawn in these colours is given the page's variables of these names."""
SIZE = (8.4, 3.2)

Values = Mapping[str, Any]


def draw_plots(report: Values) -> dict[str, str]:
    """The plots that the report has numbers for, by name. The same report gives the same bytes."""
    if not report["runs"]:
        return {}
    cap, spent = value(report, "budget.cap"), value(report, "budget.spent_and_reserved")
    said = f"Epsilon rises to {spent:.3f} over {len(report['charges'])} charges; the cap is {cap:g}."
    with mpl.rc_context({**STYLE, **CLEAR}):
        return {
            "rounds": to_svg(_rounds(report, cap), "rounds", said, COLOURS),
            "delta": to_svg(_deltas(report), "delta", "Epsilon falls where a larger delta is allowed.", COLOURS),
        }


def _rounds(report: Values, cap: float) -> Figure:
    figure, axes = _canvas()
    charges = report["charges"]
    epsilons = [charge["epsilon"] for charge in charges]
    places = range(1, len(charges) + 1)
    axes.plot([0, *places], [0, *epsilons], "-", color=RDP_COLOUR, label="spent, life-time")
    kept = [place for place in places if charges[place - 1]["steps_done"] is None]
    if len(charges) <= 60:
        axes.plot(places, epsilons, "o", color=RDP_COLOUR, ms=4)
    if kept:
        open_ones = [epsilons[place - 1] for place in kept]
        axes.plot(kept, open_ones, "o", mfc="white", mec=RDP_COLOUR, ms=6, label="reserved, not yet reconciled")
    axes.axhline(cap, color=CAP_COLOUR, linestyle="--", linewidth=1.2, label=f"cap {cap:g}")
    axes.set_xlim(0, max(len(charges) * 1.03, 1.05))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("charges, oldest first (the table below has their runs and rounds)")
    _legend(figure, axes)
    return figure


def _deltas(report: Values) -> Figure:
    figure, axes = _canvas()
    rows, delta = report["over_delta"], value(report, "promise.delta")
    for name, colour, mark in (("rdp", RDP_COLOUR, "o-"), ("pld", PLD_COLOUR, "s-")):
        label = "RDP, counts" if name == "rdp" else "PLD, had it been fixed beforehand"
        axes.plot([row["delta"] for row in rows], [row[name] for row in rows], mark, color=colour, ms=4, label=label)
    axes.axvline(delta, color=FAINT, linestyle=":", linewidth=1.2, label=f"approved delta {delta:g}")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda place, _: f"{place:.0e}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("delta")
    _legend(figure, axes)
    return figure


def _canvas() -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.grid(axis="y", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_ylabel("epsilon")
    return figure, axes


def _legend(figure: Figure, axes: Axes) -> None:
    axes.set_ylim(bottom=0)
    entries, labels = axes.get_legend_handles_labels()
    figure.legend(entries, labels, loc="outside upper left", ncols=len(labels), fontsize=9, handletextpad=0.4)
