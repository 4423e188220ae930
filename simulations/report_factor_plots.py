"""Plots of arms that are set apart by factors, from the numbers of `report.json` alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.report_factors import Curve, ablated, curves, name_of_setting
from simulations.report_svg import ARM_COLOURS, FAINT, RULE

Values = Mapping[str, Any]

STYLES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "D", "^")
WIDTH = 8.4


def ablation_plot(report: Values) -> Figure | None:
    """Difference from the full model in points, one row a part left out and one mark a setting; seeds are ticks."""
    settings = ablated(report)
    parts = list(dict.fromkeys(part for by_part in settings.values() for part in by_part))
    if not parts:
        return None
    figure = Figure(figsize=(WIDTH, 1.0 + 0.3 * len(parts) * len(settings)), layout="constrained")
    axes = figure.subplots()
    for index, (setting, by_part) in enumerate(settings.items()):
        shift = 0.7 * (index + 0.5) / len(settings) - 0.35
        colour, marker = ARM_COLOURS.get(setting, FAINT), MARKERS[index % len(MARKERS)]
        rows = [parts.index(part) + shift for part in by_part]
        _difference_marks(axes, rows, list(by_part.values()), colour, marker, setting)
    axes.axvline(0, color=FAINT, linewidth=1)
    axes.set_yticks(range(len(parts)), [f"without {part}" for part in parts])
    axes.set_ylim(len(parts) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", linewidth=0.5)
    for row in range(1, len(parts)):
        axes.axhline(row - 0.5, color=RULE, linewidth=0.5)
    axes.set_xlabel("difference from the full model in points of percent, paired by question")
    figure.legend(loc="outside upper left", ncols=len(settings), fontsize=9)
    return figure


def _difference_marks(
    axes: Axes, rows: Sequence[float], differences: Sequence[Values], colour: str, marker: str, label: str
) -> None:
    means = [100 * d["diff"] for d in differences]
    axes.errorbar(means, rows, xerr=_reach(means, differences), fmt=marker, color=colour, ms=5, lw=1.6, label=label)
    for row, difference in zip(rows, differences, strict=True):
        seeds = [100 * value for value in difference["by_seed"].values()]
        if len(seeds) > 1:
            axes.plot(seeds, [row + 0.14] * len(seeds), "|", color=colour, alpha=0.6, ms=6)


def curve_plot(report: Values) -> Figure | None:
    """Percent right over the number of examples, a line a curve with its intervals; seeds are small dots."""
    found = curves(report)
    counts = sorted({count for points in found.values() for count in points})
    if not counts:
        return None
    figure = Figure(figsize=(WIDTH, 4.0), layout="constrained")
    axes = figure.subplots()
    for index, (curve, points) in enumerate(found.items()):
        shift = 0.24 * ((index + 0.5) / len(found) - 0.5)
        _curve_line(axes, [counts.index(n) + shift for n in points], list(points.values()), curve, _style(curve, found))
    _guesses(axes, report)
    axes.set_xticks(range(len(counts)), [str(count) for count in counts])
    axes.set_xlabel("training questions at the new hospital")
    axes.set_ylabel("test questions right, percent")
    axes.grid(axis="y", linewidth=0.5)
    figure.legend(loc="outside upper left", ncols=3, fontsize=9)
    return figure


def _curve_line(axes: Axes, places: Sequence[float], points: Sequence[Values], curve: Curve, style: int) -> None:
    setting, tuning = curve
    colour, means = ARM_COLOURS.get(setting, FAINT), [100 * scores["overall"]["mean"] for scores in points]
    reach = _reach(means, [scores["overall"] for scores in points])
    label = f"pre-training: {name_of_setting(setting)}, {tuning}"
    look: dict[str, Any] = {"marker": MARKERS[style % len(MARKERS)], "ls": STYLES[style % len(STYLES)], "ms": 5}
    axes.errorbar(places, means, yerr=reach, color=colour, lw=1.4, label=label, **look)
    for place, scores in zip(places, points, strict=True):
        if len(scores["by_seed"]) > 1:
            seeds = [100 * value for value in scores["by_seed"].values()]
            axes.plot([place + 0.03] * len(seeds), seeds, ".", color=colour, alpha=0.5, ms=4)


def _guesses(axes: Axes, report: Values) -> None:
    guess = report["baselines"].get("question_only")
    if guess is not None:
        axes.axhline(100 * guess["overall"]["mean"], ls=":", color=FAINT, lw=1, label="question only, all examples")


def _style(curve: Curve, found: Mapping[Curve, Any]) -> int:
    """Ways of fine-tuning differ by line and mark, what came before by colour."""
    return list(dict.fromkeys(tuning for _, tuning in found)).index(curve[1])


def _reach(means: Sequence[float], scores: Sequence[Values]) -> list[list[float]]:
    low = [max(0.0, mean - 100 * score["ci95"][0]) for mean, score in zip(means, scores, strict=True)]
    high = [max(0.0, 100 * score["ci95"][1] - mean) for mean, score in zip(means, scores, strict=True)]
    return [low, high]
