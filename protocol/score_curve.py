"""How sure sites' models are of right answers, as shares at fixed points: what one site may learn of all others.

A site tells the share of its validation questions whose score (1 less the probability of the right answer) is at most
each point, as one of twenty values. Neighbouring shares tell how many questions lie between their points, often one or
two; so a site tells its curve only where each value stands for at least as many counts as its smallest group has
questions. The server averages the shares over sites, by questions, and tells the mean of three sites or more: of one it
would be that site's own, and of two each could subtract its own.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from protocol.errors import MessageError

GRID = tuple(round(0.05 * point, 2) for point in range(1, 21))
"""The points; `mumc_model.conformal.GRID` is the same."""
SHARE_METRICS = tuple(f"answer_score_{round(100 * point):03d}" for point in GRID)
"""Under these names the shares leave a site."""
SCORES_FILE = "answer_scores.json"
"""Beside exported weights."""
VALIDATED = "validated"
"""The metric that says how many questions the shares are of."""
STEPS = 20
"""A share leaves a site and the server as one of so many values: 0, 5 ... 95 %, of which the last stands for all above.

Of n questions, n/20 counts or more have the same value, rounded down: from 200 questions on 10, of 20 a single one."""
LEAST_SITES = 3
MOST_QUESTIONS = 1000
"""A site weighs no more than this many, whatever it says of itself."""


@dataclass(frozen=True, kw_only=True)
class ScoreCurve:
    """The mean over sites."""

    share: tuple[float, ...]
    """Of questions whose score is at most each point of the grid."""
    sites: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"grid": list(GRID), "share": [round(share, 4) for share in self.share], "sites": self.sites}


def fewest_questions(smallest: int) -> int:
    """Questions from which on every value that a site tells stands for at least `smallest` counts."""
    return STEPS * max(1, smallest)


def curve_metrics(share: Sequence[float], questions: int, smallest: int) -> dict[str, float]:
    """The metrics in which a site tells its curve; none where it has none, or too few questions to hide a few among.

    `smallest` is the number of questions of the smallest group that the site tells anything about.
    """
    if not share or questions < fewest_questions(smallest):
        return {}
    return {**dict(zip(SHARE_METRICS, map(_stepped, share), strict=True)), VALIDATED: float(questions)}


def merged(sites: Iterable[Mapping[str, float]]) -> ScoreCurve | None:
    """The mean of the curves that sites' metrics hold; None where fewer than three hold a whole one.

    Sites have rounded their shares down, and the mean is rounded down again: a share here is of up to two steps more.
    """
    curves = [(curve, weight) for metrics in sites for curve, weight in _read(metrics)]
    if len(curves) < LEAST_SITES:
        return None
    total = sum(weight for _, weight in curves)
    share = tuple(_stepped(sum(curve[at] * weight for curve, weight in curves) / total) for at in range(len(GRID)))
    return ScoreCurve(share=share, sites=len(curves))


def from_json(text: str) -> ScoreCurve:
    """The curve in a file beside exported weights.

    Raises:
        MessageError: it is no curve of these points.
    """
    try:
        values = json.loads(text)
        share, grid, sites = tuple(map(float, values["share"])), tuple(values["grid"]), int(values["sites"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise MessageError("the curve of sites' answer scores is damaged; export the run again") from error
    if grid != GRID or not _rises(share):
        raise MessageError("the curve of sites' answer scores is of other points or falls; export the run again")
    return ScoreCurve(share=share, sites=sites)


def _read(metrics: Mapping[str, float]) -> list[tuple[tuple[float, ...], float]]:
    """The curve among a site's metrics with its weight, if there is a whole one."""
    if not {*SHARE_METRICS, VALIDATED} <= metrics.keys():
        return []
    share, weight = tuple(metrics[name] for name in SHARE_METRICS), min(metrics[VALIDATED], MOST_QUESTIONS)
    return [(share, weight)] if _rises(share) and weight >= 1 else []


def _stepped(share: float) -> float:
    """The share rounded down to one of the values, which never makes a short list shorter."""
    return min(math.floor(share * STEPS + 1e-9), STEPS - 1) / STEPS


def _rises(share: Sequence[float]) -> bool:
    return len(share) == len(GRID) and list(share) == sorted(share) and all(0 <= value <= 1 for value in share)
