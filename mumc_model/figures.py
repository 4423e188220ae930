"""The look of every plot on a page, and the way of a matplotlib figure into it as SVG. No torch."""

import re
from collections.abc import Mapping
from html import escape
from io import StringIO
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

# Figures are drawn with these colours, which `to_svg` rewrites to the page's variables of the same name.
INK, FAINT, RULE = "#101112", "#707172", "#d0d1d2"
VARIABLES = {INK: "ink", FAINT: "faint", RULE: "rule"}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": FAINT,
    "ytick.color": INK,
    "grid.color": RULE,
    "legend.frameon": False,
}
CLEAR: dict[Any, Any] = {"figure.facecolor": "none", "axes.facecolor": "none"}
"""Beside `STYLE` where the page is the paper."""


def to_svg(figure: Figure, name: str, summary: str, variables: Mapping[str, str] = VARIABLES) -> str:
    """The figure as one `<svg>` element that fills its place in the page. The same figure gives the same bytes.

    Args:
        figure: Text stays text.
        name: Keeps the identifiers of several figures on a page apart.
        summary: What a screen reader says.
        variables: The page's variable, without its dashes, by the colour that stands for it in the figure.
    """
    text = StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: ([0-9.]+px) [^;\"]+", r"font-size: \1", svg)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", svg)
    head = re.match(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', svg)
    assert head is not None
    svg = f'<svg {head[1]} role="img" aria-label="{escape(summary)}">' + svg[head.end() :].replace("xlink:href", "href")
    for colour, variable in variables.items():
        svg = svg.replace(colour, f"var(--{variable}, {colour})")
    return svg.strip()
