"""How sure a number is: cluster bootstrap and exact McNemar.

Questions about one image are answered right or wrong together, so images, not questions, are resampled. Over several
seeds a cluster is the pair (seed, image). numpy only: the report reads this too.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_BLOCK_DRAWS = 2_000_000
"""Cluster draws held at once, so that memory stays bounded however many rows there are."""


class Interval(NamedTuple):
    """An estimate with its confidence limits, in the unit of the values."""

    mean: float
    low: float
    high: float


def bootstrap_mean(
    values: npt.ArrayLike,
    clusters: Sequence[Hashable],
    rng: np.random.Generator,
    *,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Mean of the values with a percentile interval that resamples whole clusters.

    Assumes that clusters are independent of one another; a cluster with more rows weighs more, as it does in the mean.

    Raises:
        ValueError: no values, or not one cluster for each value.

    Source: Field and Welsh, "Bootstrapping clustered data", JRSS B 69 (2007), the randomised cluster bootstrap.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values) or len(values) != len(clusters):
        raise ValueError(
            f"{values.size} values of {values.ndim} dimension(s) and {len(clusters)} clusters; "
            "pass one row of values and one cluster for each of them, and at least one"
        )
    sums, sizes = _cluster_totals(values, clusters)
    means = np.concatenate([_resampled_means(sums, sizes, count, rng) for count in _blocks(resamples, len(sums))])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def paired_difference(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    clusters: Sequence[Hashable],
    rng: np.random.Generator,
    *,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Mean of a - b with its interval, where a[i] and b[i] answer the same question.

    Raises:
        ValueError: a and b differ in length, or as `bootstrap_mean`.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"{a.size} values against {b.size}; pass the answers of both to the same questions, in order")
    return bootstrap_mean(a - b, clusters, rng, resamples=resamples, level=level)


def mcnemar(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Exact two-sided p-value that a and b, right or wrong on the same questions, are right equally often.

    Assumes independent questions: read it beside the clustered interval, never instead of it.

    Source: McNemar, Psychometrika 12 (1947); the exact form is a sign test on the discordant pairs.
    """
    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if a.shape != b.shape:
        raise ValueError(f"{a.size} answers against {b.size}; pass the answers of both to the same questions, in order")
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    discordant = only_a + only_b
    term = tail = 1
    for k in range(min(only_a, only_b)):
        term = term * (discordant - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << discordant))


def _cluster_totals(values: np.ndarray, clusters: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the values and number of rows of every cluster, in the order in which clusters first appear."""
    numbers: dict[Hashable, int] = {}
    index = np.fromiter((numbers.setdefault(cluster, len(numbers)) for cluster in clusters), np.intp, len(clusters))
    return np.bincount(index, weights=values), np.bincount(index).astype(np.float64)


def _resampled_means(sums: np.ndarray, sizes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` means, each of as many clusters as there are, drawn with replacement."""
    drawn = rng.integers(len(sums), size=(count, len(sums)), dtype=np.int32)
    means: np.ndarray = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return means


def _blocks(resamples: int, clusters: int) -> list[int]:
    """How many resamples to draw at a time."""
    block = max(1, _BLOCK_DRAWS // clusters)
    return [min(block, resamples - start) for start in range(0, resamples, block)]
