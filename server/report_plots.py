"""The plots of a run's page: losses, norms, what a round cost, epsilon. From the journal's numbers alone."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from mumc_model.figures import CLEAR, FAINT, INK, RULE, STYLE, VARIABLES, to_svg
from server.history import History, loss_of
from server.journal import RoundRecord

MERGED, REFUSED, OTHER = "#0b62b4", "#d98200", "#00875f"
COLOURS: Mapping[str, str] = VARIABLES | {MERGED: "merged", REFUSED: "refused", OTHER: "other"}
SITES = ("#0b62b4", "#d98200", "#00875f", "#b4458c", "#5b4fa8", "#4a7a00", "#a83232", "#8c8177")
"""Where there are no more sites than this each has its own colour."""
WIDTH = 8.4
NAMED = 8
"""So many refused updates are named in the plot."""
PARTS = 5
"""So many parts of the loss are drawn beside the total."""
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
"""Names of losses come from sites; only plain ones are drawn."""

Series = Mapping[str, tuple[Sequence[int], Sequence[float]]]
"""Rounds and values by site."""


def draw_plots(history: History) -> dict[str, str]:
    """The plots that the run has numbers for, as SVG elements by name. The same run gives the same bytes."""
    with mpl.rc_context({**STYLE, **CLEAR}):
        plots = {
            "loss": _loss(history),
            "norms": _norms(history),
            "cost": _cost(history),
            "epsilon": _epsilon(history),
        }
        return {
            name: to_svg(plot, name, f"Plot: {name} by round. The tables hold the same numbers.", COLOURS)
            for name, plot in plots.items()
            if plot is not None
        }


def _loss(history: History) -> Figure | None:
    """The loss that stands for the round, its parts behind it, and the rounds that never came about."""
    having = [record for record in history.merged if loss_of(record) is not None]
    if not having:
        return None
    figure, axes = _canvas()
    values = [loss_of(record) or 0.0 for record in having]
    axes.plot([r.round for r in having], values, _mark(having), color=MERGED, ms=4, lw=1.8, label="loss")
    parts = sorted({name for record in having for name in record.losses} - {"total", "loss"})
    for place, name in enumerate([name for name in parts if _PART.fullmatch(name)][:PARTS]):
        points = [(record.round, record.losses[name]) for record in having if name in record.losses]
        axes.plot(*zip(*points, strict=True), color=FAINT, ls=_DASHES[place], lw=1.1, label=name)
    gone = sorted({record.round for record in history.void} - {record.round for record in history.merged})
    if gone:
        axes.plot(gone, [min(values)] * len(gone), "x", color=REFUSED, ms=6, label="never merged")
    axes.set_ylabel("loss")
    _finish(figure, axes)
    return figure


_DASHES: tuple[Any, ...] = ("--", ":", "-.", (0, (5, 1)), (0, (1, 3)))


def _norms(history: History) -> Figure | None:
    """Length of each site's update, those that were refused marked, and of the mean."""
    inside = _series(history, lambda record: {s: v for s, v in record.norms.items() if s in record.merged})
    outside = _series(history, lambda record: {s: v for s, v in record.norms.items() if s in record.refused})
    if not inside and not outside:
        return None
    figure, axes = _canvas()
    _lines(axes, inside, of="update")
    for place, (site, (rounds, values)) in enumerate(outside.items()):
        axes.plot(rounds, values, "x", color=REFUSED, ms=6, label="" if place else "refused")
        if sum(len(rounds) for rounds, _ in outside.values()) <= NAMED:
            axes.annotate(f" {site}", (rounds[-1], values[-1]), color=REFUSED, fontsize=8, va="center")
    means = [(record.round, record.update_norm) for record in history.merged if record.update_norm > 0]
    if means:
        axes.plot(*zip(*means, strict=True), color=INK, ls="--", lw=1.3, label="mean update")
    positive = [value for series in (inside, outside) for _, values in series.values() for value in values if value > 0]
    if positive and max(positive) > 20 * min(positive):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("L2 norm")
    _finish(figure, axes)
    return figure


def _cost(history: History) -> Figure | None:
    """Megabytes and seconds of each round, its attempts together."""
    if not history.records:
        return None
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    rounds = sorted({record.round for record in history.records})
    sums = {round: [record for record in history.records if record.round == round] for round in rounds}
    up = [sum(record.bytes_up for record in sums[round]) / 1e6 for round in rounds]
    down = [sum(record.bytes_down for record in sums[round]) / 1e6 for round in rounds]
    left.bar(rounds, down, width=0.8, color=OTHER, label="to the sites")
    left.bar(rounds, up, width=0.8, bottom=down, color=MERGED, label="from the sites")
    left.set_ylabel("MB")
    void = [sum(record.seconds for record in sums[round] if not record.sites_merged) for round in rounds]
    good = [sum(record.seconds for record in sums[round] if record.sites_merged) for round in rounds]
    right.bar(rounds, good, width=0.8, color=MERGED, label="merged")
    if any(void):
        right.bar(rounds, void, width=0.8, bottom=good, color=REFUSED, label="attempts that came to nothing")
    right.set_ylabel("seconds")
    for axes in (left, right):
        _finish(figure, axes, legend=axes)
    return figure


def _epsilon(history: History) -> Figure | None:
    """What each site's patients have spent, life-time."""
    spent = _series(history, lambda record: record.epsilon)
    if not spent:
        return None
    figure, axes = _canvas()
    _lines(axes, spent, of="site")
    axes.set_ylabel("epsilon")
    axes.set_ylim(bottom=0)
    _finish(figure, axes)
    return figure


def _series(history: History, values_of: Callable[[RoundRecord], Mapping[str, float]]) -> Series:
    """Rounds and values of each site, from all records; of several attempts the last that has a value."""
    found: dict[str, dict[int, float]] = {}
    for record in history.records:
        for site, value in values_of(record).items():
            found.setdefault(site, {})[record.round] = value
    return {site: (sorted(told), [told[round] for round in sorted(told)]) for site, told in sorted(found.items())}


def _broken(rounds: Sequence[int], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """The same with a gap where rounds are missing, so that no line is drawn over an absence."""
    places: list[float] = []
    heights: list[float] = []
    for place, (round, value) in enumerate(zip(rounds, values, strict=True)):
        if place and round > rounds[place - 1] + 1:
            places.append(round - 0.5)
            heights.append(math.nan)
        places.append(round)
        heights.append(value)
    return places, heights


def _lines(axes: Axes, series: Series, of: str) -> None:
    """A line a site; where they are many, all of them faint, with their median and the highest named."""
    if len(series) <= len(SITES):
        for colour, (site, (rounds, values)) in zip(SITES, series.items(), strict=False):
            axes.plot(*_broken(rounds, values), "o-", color=colour, ms=3, lw=1.2, label=site)
        return
    for place, (rounds, values) in enumerate(series.values()):
        axes.plot(*_broken(rounds, values), color=RULE, lw=1, label="" if place else f"each {of}")
    every = sorted({round for rounds, _ in series.values() for round in rounds})
    by_round = {
        round: [v for rounds, vs in series.values() for r, v in zip(rounds, vs, strict=True) if r == round]
        for round in every
    }
    axes.plot(every, [median(by_round[round]) for round in every], color=MERGED, lw=1.8, label="median")
    highest = max(series, key=lambda site: max(series[site][1]))
    axes.plot(*_broken(*series[highest]), color=REFUSED, lw=1.3, label=f"highest: {highest}")


def _canvas() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    return figure, figure.subplots()


def _mark(records: Sequence[RoundRecord]) -> str:
    return "o-" if len(records) <= 60 else "-"


def _finish(figure: Figure, axes: Axes, legend: Axes | None = None) -> None:
    axes.grid(axis="y", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("round")
    entries, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    if legend is not None:
        legend.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(labels), handlelength=1.2)
    else:
        figure.legend(
            entries, labels, loc="outside upper left", ncols=min(len(labels), 8), fontsize=8.5, handletextpad=0.4
        )
