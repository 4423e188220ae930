"""How a pool of patients is split over hospitals: pure functions from labels to shares."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from configs.loader import ConfigurationError

Shares = list[list[int]]


@dataclass(frozen=True, kw_only=True)
class PartitionConfig:
    """Which patients go to which hospital."""

    scheme: Literal["given", "alike", "dirichlet", "label", "size"] = "given"
    """`given` keeps the source's hospitals; the others pool the patients and deal them out."""
    label: str = "modality"
    """The label that `dirichlet` and `label` split by."""
    concentration: float = 0.3
    """Of the Dirichlet draw: 0.1 very unlike, 100 alike."""
    questions: Literal["same", "alike"] = "same"
    """`alike` deals out the patients with questions at random, whatever the scheme for the archive."""


def partition(labels: Sequence[str], hospitals: int, config: PartitionConfig, rng: np.random.Generator) -> Shares:
    """For each hospital the sorted indices of its units; every unit is at exactly one hospital.

    Args:
        labels: One label a unit (a unit is a patient, or an image where there are no patients).
        hospitals: How many hospitals, each of which gets at least one unit.
        config: The scheme; `given` is not a split and is refused.
        rng: Source of the draw.

    Raises:
        ConfigurationError: there are fewer units than hospitals, or the scheme cannot give each one a unit.
    """
    if len(labels) < hospitals:
        raise ConfigurationError(f"{len(labels)} patients cannot be split over {hospitals} hospitals; ask for fewer")
    for _ in range(100):
        shares = _SCHEMES[config.scheme](labels, hospitals, config, rng)
        if all(shares):
            return [sorted(share) for share in shares]
    raise ConfigurationError(
        f"partition {config.scheme} left a hospital empty in 100 draws of {len(labels)} patients over {hospitals} "
        f"hospitals; raise partition.concentration (now {config.concentration:g}) or ask for fewer hospitals"
    )


def _alike(labels: Sequence[str], hospitals: int, config: PartitionConfig, rng: np.random.Generator) -> Shares:
    order = rng.permutation(len(labels))
    return [order[i::hospitals].tolist() for i in range(hospitals)]


def _dirichlet(labels: Sequence[str], hospitals: int, config: PartitionConfig, rng: np.random.Generator) -> Shares:
    shares: Shares = [[] for _ in range(hospitals)]
    for label in sorted(set(labels)):
        units = rng.permutation([i for i, other in enumerate(labels) if other == label])
        cuts = np.cumsum(rng.dirichlet([config.concentration] * hospitals))[:-1] * len(units)
        for share, part in zip(shares, np.split(units, cuts.round().astype(int)), strict=True):
            share.extend(part.tolist())
    return shares


def _by_label(labels: Sequence[str], hospitals: int, config: PartitionConfig, rng: np.random.Generator) -> Shares:
    """Units sorted by label, the most frequent first, and cut into equal runs: few labels at each hospital."""
    rank = {
        label: i for i, (label, _) in enumerate(sorted(Counter(labels).items(), key=lambda item: (-item[1], item[0])))
    }
    shuffled = rng.permutation(len(labels))
    order = sorted(shuffled.tolist(), key=lambda i: rank[labels[i]])
    return [part.tolist() for part in np.array_split(np.array(order), hospitals)]


def _by_size(labels: Sequence[str], hospitals: int, config: PartitionConfig, rng: np.random.Generator) -> Shares:
    sizes = 0.5 ** np.arange(hospitals)
    cuts = np.cumsum(sizes / sizes.sum())[:-1] * len(labels)
    return [part.tolist() for part in np.split(rng.permutation(len(labels)), cuts.round().astype(int))]


_SCHEMES = {"alike": _alike, "dirichlet": _dirichlet, "label": _by_label, "size": _by_size}
