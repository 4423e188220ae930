"""The report's plots: scores, differences, losses and bytes, from the numbers of `report.json` alone."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.report_factor_plots import ablation_plot, curve_plot
from simulations.report_svg import ARM_COLOURS, FAINT, INK, RULE, STYLE, to_svg
from simulations.report_text import finding, megabytes, name_of, pair_name, points_text

Values = Mapping[str, Any]

OTHER_COLOURS = ("#b4458c", "#5b4fa8", "#4a7a00", "#a83232")
MARKERS: tuple[Any, ...] = ("o", "s", "D", "^", "v", "P", "X", "*", "<", ">", "p", "h", "d", (4, 1, 0), (3, 2, 0))
"""Every arm has its own, beside its colour; the tuples are a star of four points and three rays."""
WIDTH = 8.4


def draw_plots(report: Values) -> dict[str, str]:
    """The plots that the report has numbers for, as SVG elements by name."""
    with mpl.rc_context(STYLE):
        plots = {
            "differences": _differences(report) if report["differences"] else None,
            "sites": _scores(report, "sites", with_all=True),
            "by_question_type": _scores(report, "by_question_type", with_all=False),
            "losses": _losses(report),
            "bytes": _bytes(report),
            "privacy": _privacy(report),
            "ablation": ablation_plot(report),
            "examples": curve_plot(report),
        }
        return {name: to_svg(plot, name, _summary(name, report)) for name, plot in plots.items() if plot is not None}


def _scores(report: Values, key: str, *, with_all: bool) -> Figure:
    """Percent right, one band a group and one marker an arm, with 95 % intervals."""
    arms = report["arms"]
    groups = sorted({group for scores in arms.values() for group in scores[key]})
    rows = (["all sites"] if with_all else []) + groups
    figure, axes = _canvas(0.9 + 0.17 * len(rows) * (len(arms) + 1.5))
    for index, (arm, scores) in enumerate(arms.items()):
        shift = 0.8 * (index + 0.5) / len(arms) - 0.4
        places = [(row + shift, score) for row, score in _by_row(scores, key, rows)]
        _whiskers(axes, places, _colour(arm, index), MARKERS[index % len(MARKERS)], name_of(arm))
    if (guess := report["baselines"].get("question_only")) is not None:
        for row, score in _by_row(guess, key, rows):
            x, label = 100 * score["mean"], "" if row else "question only"
            axes.plot([x, x], [row - 0.45, row + 0.45], ":", color=FAINT, label=label)
    _bands(axes, rows)
    axes.set_xlabel("test questions right, percent")
    _legend(figure, axes)
    return figure


def _by_row(scores: Values, key: str, rows: Sequence[str]) -> list[tuple[int, Values]]:
    found = {"all sites": scores["overall"], **scores[key]}
    return [(row, found[name]) for row, name in enumerate(rows) if name in found]


def _differences(report: Values) -> Figure:
    """Paired differences in points with their intervals, and each seed's own as a small tick."""
    pairs = report["differences"]
    labels = [pair_name(pair, d) for pair, d in pairs.items()]
    figure, axes = _canvas(0.8 + 0.38 * len(pairs))
    places = [(row, {"mean": d["diff"], "ci95": d["ci95"]}) for row, d in enumerate(pairs.values())]
    _whiskers(axes, places, INK, "o", "difference")
    for row, d in enumerate(pairs.values()):
        if len(d["by_seed"]) > 1:
            axes.plot(
                [100 * v for v in d["by_seed"].values()], [row + 0.28] * len(d["by_seed"]), "|", color=FAINT, ms=7
            )
    axes.axvline(0, color=FAINT, linewidth=1)
    _bands(axes, labels)
    axes.set_xlabel("difference in points of percent, paired by question")
    return figure


def _losses(report: Values) -> Figure | None:
    """One panel a loss: the mean over seeds and sites of each arm, round by round, and every run of it faintly."""
    arms = {arm: scores["losses"] for arm, scores in report["arms"].items() if scores["losses"]}
    terms = sorted({t for runs in arms.values() for run in runs for r in run["rounds"] for t in r})
    if not terms:
        return None
    columns = min(3, len(terms))
    lines = math.ceil(len(terms) / columns)
    figure = Figure(figsize=(WIDTH, 0.5 + 1.9 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel, term in zip(panels, terms, strict=False):
        for arm, runs in arms.items():
            index = list(report["arms"]).index(arm)
            _curve(panel, term, runs, _colour(arm, index), MARKERS[index % len(MARKERS)], name_of(arm))
        panel.set_title(term, loc="left", fontsize=10, color=INK)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(axis="y", linewidth=0.5)
        panel.set_xlabel("round")
    for panel in panels[len(terms) :]:
        panel.set_axis_off()
    _legend(figure, panels[0])
    return figure


def _curve(axes: Axes, term: str, runs: Sequence[Values], colour: str, marker: str, label: str) -> None:
    length = max(len(run["rounds"]) for run in runs)
    values = np.full((len(runs), length), np.nan)
    for row, run in zip(values, runs, strict=True):
        found = [losses.get(term) for losses in run["rounds"]]
        row[: len(found)] = [np.nan if value is None else value for value in found]
    rounds = np.arange(1, length + 1)
    if len(runs) > 1:
        axes.plot(rounds, values.T, color=colour, alpha=0.25, linewidth=0.8)
    known = ~np.isnan(values).all(axis=0)
    mean = np.nanmean(values[:, known], axis=0)
    axes.plot(rounds[known], mean, color=colour, marker=marker, markersize=4, label=label)


def _bytes(report: Values) -> Figure | None:
    """Megabytes to and from the server, by arm."""
    arms = {arm: s for arm, s in report["arms"].items() if s["bytes_up"] or s["bytes_down"]}
    if not arms:
        return None
    figure, axes = _canvas(0.8 + 0.5 * len(arms))
    for row, (arm, scores) in enumerate(arms.items()):
        for offset, key, label in ((-0.19, "bytes_up", "up"), (0.19, "bytes_down", "down")):
            colour = _colour(arm, list(report["arms"]).index(arm))
            size = scores[key] / 1e6
            axes.barh(row + offset, size, 0.34, color=colour, alpha=1.0 if label == "up" else 0.55)
            axes.text(size, row + offset, f"  {megabytes(scores[key])} {label}", va="center", fontsize=9)
    _bands(axes, [name_of(arm) for arm in arms])
    axes.margins(x=0.2)
    axes.set_xlabel("MB moved between sites and server, all sites and rounds")
    return figure


def _privacy(report: Values) -> Figure | None:
    """Percent right, and retrieval, over the epsilon of each private arm; arms without a budget are lines."""
    spent = {arm: f["epsilon"] for arm, f in report["facts"].items() if "epsilon" in f}
    if not spent:
        return None
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    for index, (arm, scores) in enumerate(report["arms"].items()):
        facts = report["facts"].get(arm, {})
        retrieved = facts.get("retrieval_at_5")
        values = [100 * scores["overall"]["mean"], None if retrieved is None else 100 * retrieved]
        for panel, value in zip(panels, values, strict=True):
            if value is not None and arm in spent:
                look = {"marker": MARKERS[index % len(MARKERS)], "ls": "none", "color": _colour(arm, index)}
                panel.plot(spent[arm], value, label=arm, **look)
            elif value is not None:
                panel.axhline(value, ls=":", lw=1, color=_colour(arm, index), label=name_of(arm))
    for panel, label in zip(
        panels, ("test questions right, percent", "retrieval: right among 5, percent"), strict=True
    ):
        panel.set(xscale="log", xlabel="epsilon of the pre-training (PLD)", ylabel=label)
        ticks = sorted({float(f"{value:.2g}") for value in spent.values()})
        panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.minorticks_off()
        panel.grid(linewidth=0.5)
    panels[0].legend(fontsize=7, ncols=2)
    return figure


def _canvas(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _whiskers(axes: Axes, places: Iterable[tuple[float, Values]], colour: str, marker: Any, label: str) -> None:
    places = list(places)
    means = [100 * score["mean"] for _, score in places]
    low = [max(0.0, mean - 100 * score["ci95"][0]) for mean, (_, score) in zip(means, places, strict=True)]
    high = [max(0.0, 100 * score["ci95"][1] - mean) for mean, (_, score) in zip(means, places, strict=True)]
    look: dict[str, Any] = {"marker": marker, "ls": "none", "color": colour, "ms": 5, "lw": 1.6, "label": label}
    axes.errorbar(means, [y for y, _ in places], xerr=[low, high], **look)


def _bands(axes: Axes, labels: Sequence[str]) -> None:
    """One labelled row a group, read from the top."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", linewidth=0.5)
    axes.set_axisbelow(True)
    for edge in np.arange(0.5, len(labels) - 1):
        axes.axhline(edge, color=RULE, linewidth=0.5)


def _legend(figure: Figure, axes: Axes) -> None:
    entries = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    if "question only" in entries:
        entries["question only"] = entries.pop("question only")
    labels = list(entries)
    # More in a row than fit the page would squeeze the plot.
    columns = len(labels) if len(labels) <= 6 else 4
    figure.legend(entries.values(), labels, loc="outside upper left", ncols=columns, fontsize=9, handletextpad=0.4)


def _colour(arm: str, index: int) -> str:
    return ARM_COLOURS.get(arm, OTHER_COLOURS[index % len(OTHER_COLOURS)])


def _summary(name: str, report: Values) -> str:
    """What a screen reader says instead of the picture; the tables hold every number."""
    if name == "differences":
        return " ".join(finding(pair, d) + f" {points_text(d)}" for pair, d in report["differences"].items())
    return f"Plot: {name.replace('_', ' ')}. The tables of this page hold the same numbers."
