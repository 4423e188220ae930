"""What a synthetic examination shows, and how often each hospital sees it.

Dimensions: H hospitals, C cells (a cell is one modality, organ and finding that make sense together).
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NO_FINDING = "none"
SIDES = ("left", "right")
SIZES = ("small", "large")
PLACES = ("upper", "lower")
SEEN_IN = {
    ("xray", "chest"): ("mass", "opacity", "effusion", "fracture"),
    ("xray", "head"): ("mass", "opacity", "fracture"),
    ("xray", "abdomen"): ("mass", "effusion", "fracture"),
    ("ct", "chest"): ("mass", "opacity", "effusion", "cyst"),
    ("ct", "head"): ("mass", "bleed", "cyst", "fracture"),
    ("ct", "abdomen"): ("mass", "bleed", "cyst", "effusion"),
    ("mr", "head"): ("mass", "bleed", "cyst", "opacity"),
    ("mr", "abdomen"): ("mass", "bleed", "cyst", "effusion"),
}
"""Findings of each kind of examination."""
CELLS = tuple((modality, organ, finding) for (modality, organ), kinds in SEEN_IN.items() for finding in kinds)
MODALITIES = tuple(dict.fromkeys(modality for modality, _ in SEEN_IN))
ORGANS = tuple(dict.fromkeys(organ for _, organ in SEEN_IN))
FINDINGS = tuple(dict.fromkeys(finding for *_, finding in CELLS))


@dataclass(frozen=True, kw_only=True)
class Case:
    """One examination: what was taken, and what it shows.

    Side is the patient's: by radiological convention the patient's left is on the right of the image.
    """

    modality: str
    organ: str
    finding: str = NO_FINDING
    side: str = ""
    size: str = ""
    place: str = ""

    @property
    def normal(self) -> bool:
        """Whether the examination shows no finding."""
        return self.finding == NO_FINDING

    def labels(self) -> dict[str, str]:
        """What is known of the image, by name; a normal examination has no side, size or place."""
        return {name: value for name, value in vars(self).items() if value}


def pooled_shares() -> NDArray[np.float64]:
    """Share of each cell over all hospitals, [C]; modalities, organs and findings are each evenly spread."""
    shares_C = np.full(len(CELLS), 1 / len(CELLS))
    for _ in range(200):
        for column in range(3):
            names = np.array([cell[column] for cell in CELLS])
            for name in np.unique(names):
                shares_C[names == name] /= shares_C[names == name].sum() * len(np.unique(names))
    return shares_C


def shares_within(modalities: Collection[str]) -> NDArray[np.float64]:
    """`pooled_shares` as far as they are of these modalities, [C]; they sum to 1."""
    shares_C = pooled_shares()
    shares_C[[cell[0] not in modalities for cell in CELLS]] = 0
    shares_C /= shares_C.sum()
    return shares_C


def hospital_shares(
    hospitals: int, unlike: float, rng: np.random.Generator, pooled_C: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Share of each cell at each hospital, [H, C]; rows sum to 1 and their mean is `pooled_C`, by default all cells'.

    Each cell is dealt to the hospitals by a Dirichlet draw whose concentration falls from 30 to 0.05 as `unlike` goes
    from 0 to 1 (at 0 the rows are equal); then hospitals are scaled to equal size, so that only the mix differs.
    """
    pooled_C = pooled_shares() if pooled_C is None else pooled_C
    if unlike == 0 or hospitals == 1:
        return np.tile(pooled_C, (hospitals, 1))
    concentration = 30.0 * 600.0**-unlike
    dealt_HC = rng.dirichlet(np.full(hospitals, concentration), size=len(CELLS)).T + 1e-4
    seen_C = pooled_C > 0
    dealt_HC *= seen_C
    for _ in range(500):
        dealt_HC *= np.divide(pooled_C, dealt_HC.mean(axis=0), where=seen_C, out=np.zeros_like(pooled_C))
        dealt_HC /= dealt_HC.sum(axis=1, keepdims=True)
    return dealt_HC


def draw_cases(count: int, shares_C: NDArray[np.float64], normal_share: float, rng: np.random.Generator) -> list[Case]:
    """Cases in random order; cells, sides, sizes and places come as near to their shares as whole numbers allow."""
    normal_count = int(np.floor(count * normal_share + rng.random()))
    positions = (np.arange(count) + rng.random()) / count
    cells = np.minimum(np.searchsorted(np.cumsum(shares_C), positions), len(CELLS) - 1)
    normal = rng.permutation(np.arange(count) < normal_count)
    octants = rng.permutation(np.arange(count) % 8)
    cases = [
        _case(CELLS[cell], int(octant), bool(empty)) for cell, octant, empty in zip(cells, octants, normal, strict=True)
    ]
    return [cases[position] for position in rng.permutation(count)]


def _case(cell: tuple[str, str, str], octant: int, normal: bool) -> Case:
    modality, organ, finding = cell
    if normal:
        return Case(modality=modality, organ=organ)
    side, size, place = SIDES[octant & 1], SIZES[octant >> 1 & 1], PLACES[octant >> 2]
    return Case(modality=modality, organ=organ, finding=finding, side=side, size=size, place=place)
