"""From a matplotlib figure to SVG inside a page: text stays text, and colours are the page's variables."""

from typing import Any

from matplotlib.figure import Figure

from mumc_model import figures
from mumc_model.figures import CLEAR, FAINT, INK, RULE

__all__ = ["ARM_COLOURS", "FAINT", "INK", "RULE", "STYLE", "to_svg"]

ARM_COLOURS = {"scratch": "#8c8177", "local": "#d98200", "federated": "#0b62b4", "centralised": "#00875f"}
VARIABLES = figures.VARIABLES | {colour: arm for arm, colour in ARM_COLOURS.items()}
STYLE: dict[Any, Any] = {**figures.STYLE, **CLEAR}


def to_svg(figure: Figure, name: str, summary: str) -> str:
    """The figure as one `<svg>` element of a report's page; `summary` is what a screen reader says."""
    return figures.to_svg(figure, name, summary, VARIABLES)
