"""The pointing game: does the hottest patch lie in what the question is about, and more often than luck would?

A patch lies in a mask when at least a quarter of the smaller of the two is shared: of the patch, or of a mask that is
smaller than a patch. Random patches and the image's centre are judged by the same rule.

Dimensions: H rows, W columns of a mask, P patches along a side of the heat.

Source: Zhang et al., "Top-down neural attention by excitation backprop", arXiv 1608.00507, section 4.1; the share of
heat inside: Wang et al., "Score-CAM", arXiv 1910.01279, section 4.2.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mumc_model.statistics import Interval, bootstrap_mean, paired_difference

LEAST_SHARED = 0.25
Grid = NDArray[np.float64]


@dataclass(frozen=True)
class Pointed:
    """One question's game: each value is a share in [0, 1]."""

    hit: float
    """1 if the hottest patch lies in the mask; of patches that are equally hot, the share that does."""
    random: float
    """Share of all patches that lie in the mask: what a random patch hits."""
    centre: float
    """Of the patches at the image's centre (four where their number is even), the share that lies in the mask."""
    energy: float
    """Share of the heat that lies in the mask, patch by patch as much as is covered."""
    area: float
    """Share of the image that the mask covers: the energy of an even heat."""


def point(heat_PP: NDArray[np.floating], mask_HW: NDArray[np.bool_]) -> Pointed:
    """One game. Heat that is 0 everywhere points nowhere: it hits nothing and holds no energy.

    Raises:
        ValueError: the mask is empty, so that nothing could be hit.
    """
    if not mask_HW.any():
        raise ValueError("the mask is empty; leave out questions that are about nothing in the image")
    heat_PP = np.asarray(heat_PP, dtype=np.float64)
    covered_PP = coverage(mask_HW, len(heat_PP))
    inside_PP = lies_in(covered_PP)
    hottest_PP = (heat_PP == heat_PP.max()) & (heat_PP > 0)
    total = heat_PP.sum()
    return Pointed(
        hit=float(inside_PP[hottest_PP].mean()) if hottest_PP.any() else 0.0,
        random=float(inside_PP.mean()),
        centre=float(inside_PP[_centre(len(heat_PP))].mean()),
        energy=float((heat_PP * covered_PP).sum() / total) if total > 0 else 0.0,
        area=float(covered_PP.mean()),
    )


def coverage(mask_HW: NDArray[np.bool_], side: int) -> Grid:
    """Share of each patch that the mask covers, PP; the image is squeezed to a square as the model sees it."""
    down_PH, across_PW = (_overlaps(side, pixels) for pixels in mask_HW.shape)
    covered_PP: Grid = down_PH @ mask_HW @ across_PW.T
    return covered_PP


def lies_in(covered_PP: Grid, least: float = LEAST_SHARED) -> NDArray[np.bool_]:
    """Which patches lie in the mask that covers this share of each; that with the most of it does in any case."""
    smaller = min(1.0, covered_PP.sum())
    # Rounding must not lose a quarter that is one exactly.
    enough_PP = covered_PP >= least * smaller - 1e-6
    inside_PP: NDArray[np.bool_] = (covered_PP > 0) & (enough_PP | (covered_PP == covered_PP.max()))
    return inside_PP


def _overlaps(side: int, pixels: int) -> NDArray[np.float64]:
    """What each pixel of a line covers of each of `side` patches of that line, one row a patch; rows sum to 1."""
    edges, patch = np.arange(pixels + 1) * (side / pixels), np.arange(side)[:, None]
    return np.diff(edges.clip(patch, patch + 1))


def _centre(side: int) -> tuple[slice, slice]:
    middle = slice((side - 1) // 2, side // 2 + 1)
    return middle, middle


@dataclass(frozen=True)
class PointingGame:
    """All questions' games together, with intervals that resample images."""

    questions: int
    hit: Interval
    random: Interval
    centre: Interval
    energy: Interval
    area: Interval
    above_random: Interval
    """Hits beyond those of a random patch, question by question."""
    above_centre: Interval
    """Hits beyond those of the image's centre."""
    energy_above_area: Interval


def summarise(games: Sequence[Pointed], images: Sequence[Hashable], rng: np.random.Generator) -> PointingGame:
    """The means of some games, of which `images` names each one's image.

    Raises:
        ValueError: there are no games.
    """
    names = ("hit", "random", "centre", "energy", "area")
    values = {name: [getattr(game, name) for game in games] for name in names}
    means = {name: bootstrap_mean(values[name], images, rng) for name in names}

    def above(one: str, other: str) -> Interval:
        return paired_difference(values[one], values[other], images, rng)

    return PointingGame(
        questions=len(games),
        **means,
        above_random=above("hit", "random"),
        above_centre=above("hit", "centre"),
        energy_above_area=above("energy", "area"),
    )
