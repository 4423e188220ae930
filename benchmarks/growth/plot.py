"""Curves as small multiples: how often the smallest size's cost, over how often the smallest size. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from mumc_model.figures import CLEAR, FAINT, INK, RULE, STYLE, to_svg

COLUMNS = 4
PANEL = (2.5, 2.2)
"""Inches."""
COST_COLOUR, WORK_COLOUR = "#0b62b4", "#d98200"
TITLES = {
    "batch": "step over batch",
    "patches": "step over patches",
    "text": "step over text length",
    "queue": "step over queue",
    "sites": "spool and merge over sites",
    "judge": "judging over sites",
    "values": "round over parameters",
    "memory_sites": "memory over sites",
    "memory_values": "memory over parameters",
    "plan_noise": "plan of a noise over rounds",
    "plan_epsilon": "plan of an epsilon over rounds",
}

Row = Mapping[str, Any]


def write_figure(rows: Sequence[Row], path: Path) -> None:
    """Draw curves, as `benchmarks/curves.py --json` has them, into that file. The same rows give the same bytes."""
    said = "; ".join(f"{TITLES[row['curve']]}: slope {row['slope']:.2f}" for row in rows)
    with mpl.rc_context({**STYLE, **CLEAR, "font.size": 8}):
        svg = to_svg(draw(rows), "curves", said)
    head = '<svg xmlns="http://www.w3.org/2000/svg" style="background:#fff;font-family:sans-serif"'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(svg.replace("<svg", head, 1) + "\n", encoding="utf-8")


def draw(rows: Sequence[Row]) -> Figure:
    """A panel a curve, with its slope in the title."""
    lines = -(-len(rows) // COLUMNS)
    figure = Figure(figsize=(COLUMNS * PANEL[0], lines * PANEL[1] + 0.3), layout="constrained")
    grid = figure.subplots(lines, COLUMNS, squeeze=False).flatten()
    for axes, row in zip(grid, rows, strict=False):
        _panel(axes, row)
    for axes in grid[len(rows) :]:
        axes.set_axis_off()
    entries = {
        label: entry for axes in figure.axes for entry, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(entries.values(), entries, loc="outside upper left", ncols=len(entries), handletextpad=0.4)
    return figure


def _panel(axes: Axes, row: Row) -> None:
    sizes, costs = row["sizes"], row["costs"]
    axes.set_xscale("log")
    axes.set_yscale("log")
    times = [size / sizes[0] for size in sizes]
    axes.plot(times, times, ":", color=FAINT, linewidth=1, label="linear")
    if "seconds_per_gflop" in row:
        per_gflop = row["seconds_per_gflop"]
        relative = [cost / per_gflop[0] for cost in per_gflop]
        axes.plot(times, relative, "s-", color=WORK_COLOUR, ms=3, linewidth=1, label="a useful GFLOP")
    axes.plot(times, [cost / costs[0] for cost in costs], "o-", color=COST_COLOUR, ms=3.5, label="cost")
    axes.set_title(f"{TITLES[row['curve']]}: {row['slope']:.2f}", fontsize=8.5, color=INK, loc="left")
    axes.set_xlabel(f"{row['size']}, times {sizes[0]:,}", color=FAINT)
    axes.set_ylabel(f"times {costs[0]:.2g} {row['cost'].split()[0]}", color=FAINT)
    axes.grid(color=RULE, linewidth=0.4)
    axes.set_axisbelow(True)
    base = next(base for base, most in ((2, 16), (4, 99), (10, float("inf"))) if times[-1] <= most)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(base=base))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
