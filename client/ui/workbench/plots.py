"""Plots of the Training tab: losses over rounds, and how sure against how right."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mumc_model.figures import CLEAR, FAINT, STYLE, to_svg

COLOURS = ("#2a7de1", "#d98200", "#00976b", "#a86bd0", "#c2553f", "#6f7d86", "#8f8a00")
"""Told apart by people who see fewer colours, and seen on white as on black."""
DRAWING = threading.Lock()
"""Held while a page draws: matplotlib's settings belong to the whole program, and a page answers in threads."""


def losses_svg(losses: Mapping[str, Sequence[tuple[int, float]]], name: str) -> str:
    """Each loss over the rounds of one run; `name` keeps the figures of a page apart."""
    said = ", ".join(f"{loss} from {points[0][1]:.3f} to {points[-1][1]:.3f}" for loss, points in losses.items())
    with DRAWING, mpl.rc_context({**STYLE, **CLEAR}):
        figure = Figure(figsize=(7.6, 3.2), layout="constrained")
        axes = figure.subplots()
        for number, (loss, points) in enumerate(losses.items()):
            axes.plot(*zip(*points, strict=True), "o-", color=COLOURS[number % len(COLOURS)], ms=4, label=loss)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="round", ylabel="loss")
        axes.set_ylim(bottom=0)
        _finish(axes)
        figure.legend(loc="outside right upper", fontsize=9)
        return to_svg(figure, name, f"losses over the rounds: {said}")


def trust_svg(confidence: Mapping[str, Any]) -> str:
    """Whether it is as sure as it is right, and what refusing brings: the plots of `evaluation.svg`."""
    curve, bins = confidence["risk_coverage"], confidence["reliability"]
    with DRAWING, mpl.rc_context({**STYLE, **CLEAR}):
        figure = Figure(figsize=(7.6, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot([0, 100], [0, 100], color=FAINT, linewidth=1, linestyle=":")
        sizes = [20 + 400 * share for share, _, _ in bins]
        sure, accuracy = ([100 * found[place] for found in bins] for place in (1, 2))
        left.scatter(sure, accuracy, s=sizes, color=COLOURS[0], alpha=0.8)
        left.set(xlabel="probability, %", ylabel="right, %", xlim=(0, 100), ylim=(0, 100))
        left.set_title("Is it as sure as it is right?", fontsize=10)
        right.plot([100 * share for share, _ in curve], [100 * risk for _, risk in curve], color=COLOURS[1])
        right.set(xlabel="answered, the surest first, %", ylabel="wrong among them, %", xlim=(0, 100))
        right.set_title("What does refusing bring?", fontsize=10)
        right.set_ylim(bottom=0)
        for axes in (left, right):
            _finish(axes)
        ends = f"{100 * curve[0][1]:.0f} % to {100 * curve[-1][1]:.0f} %"
        return to_svg(figure, "trust", f"probability against accuracy; wrong answers from {ends} as more are given")


def _finish(axes: Axes) -> None:
    axes.grid(linewidth=0.5)
    axes.set_axisbelow(True)
