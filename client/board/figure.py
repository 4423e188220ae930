"""The picture of the page: percent right of both models by kind of question, with their intervals."""

import re
from io import BytesIO
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from client.board.facts import Comparison, Group, Share
from client.board.words import figure_text
from mumc_model.figures import CLEAR, RULE, STYLE, VARIABLES, to_svg

LOCAL, FEDERATED = "#c77700", "#0b62b4"
COLOURS = {**VARIABLES, LOCAL: "local", FEDERATED: "federated"}
NAME = "answers"
MODELS = (("local", "local only", LOCAL, "s", -0.17), ("federated", "federated", FEDERATED, "o", 0.17))
MOST = 16
"""Groups in the picture; the table has all."""


def draw(comparison: Comparison) -> Figure | None:
    """The picture, 7 inches wide; None where no model was evaluated."""
    rows = [comparison.overall, *comparison.answer_types, *comparison.question_types][:MOST]
    if not any(isinstance(getattr(row, model), Share) for row in rows for model, *_ in MODELS):
        return None
    with mpl.rc_context(_style()):
        figure = Figure(figsize=(7.0, 0.75 + 0.27 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for model in MODELS:
            _whiskers(axes, rows, *model)
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", linewidth=0.5)
        axes.set_axisbelow(True)
        for edge in np.arange(0.5, len(rows) - 1):
            axes.axhline(edge, color=RULE, linewidth=0.5)
        axes.set_xlabel("test answers right, percent")
        figure.legend(loc="outside upper right", ncols=2)
    return figure


def for_page(comparison: Comparison) -> str:
    """The picture as an SVG element in the page's own colours; empty where there is none."""
    figure = draw(comparison)
    with mpl.rc_context(_style()):
        return to_svg(figure, NAME, figure_text(comparison), COLOURS) if figure else ""


def for_paper(comparison: Comparison) -> bytes:
    """The picture as an SVG file whose letters are outlines, so that every reader draws the same; empty for none."""
    figure, file = draw(comparison), BytesIO()
    if figure is None:
        return b""
    with mpl.rc_context({**_style(), "svg.fonttype": "path", "svg.hashsalt": NAME}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return re.sub(rb"<metadata>.*?</metadata>", b"", file.getvalue(), flags=re.DOTALL)


def _style() -> dict[Any, Any]:
    return {**STYLE, **CLEAR, "font.family": "DejaVu Sans"}


def _whiskers(axes: Any, rows: list[Group], model: str, label: str, colour: str, marker: str, shift: float) -> None:
    found = [(row, getattr(group, model)) for row, group in enumerate(rows)]
    places = [(row + shift, share) for row, share in found if isinstance(share, Share)]
    if not places:
        return
    means = [100 * share.mean for _, share in places]
    low = [max(0.0, 100 * (share.mean - share.low)) for _, share in places]
    high = [max(0.0, 100 * (share.high - share.mean)) for _, share in places]
    axes.errorbar(
        means,
        [y for y, _ in places],
        xerr=[low, high],
        fmt=marker,
        color=colour,
        ms=5,
        lw=1.6,
        label=label,
        clip_on=False,
    )
