"""From a matplotlib figure to SVG inside a page: text stays text, and colours are the page's variables."""

import re
from html import escape
from io import StringIO
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

# Figures are drawn with these colours, which are then rewritten to the page's variables of the same name.
INK, FAINT, RULE = "#101112", "#707172", "#d0d1d2"
ARM_COLOURS = {"scratch": "#8c8177", "local": "#d98200", "federated": "#0b62b4", "centralised": "#00875f"}
VARIABLES = {INK: "ink", FAINT: "faint", RULE: "rule"} | {colour: arm for arm, colour in ARM_COLOURS.items()}
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
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
}


def to_svg(figure: Figure, name: str, summary: str) -> str:
    """The figure as one `<svg>` element that fills its place in the page; `summary` is what a screen reader says.

    `name` keeps the identifiers of several figures on a page apart. The same figure gives the same bytes.
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
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable}, {colour})")
    return svg.strip()
