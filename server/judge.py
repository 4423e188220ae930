"""Which updates of a plain round are refused at its deadline, when all of them can be compared.

All that is asked are the updates' inner products with one another, with the weights that were sent, and with the last
global step. The limits stand far from where honest sites were measured; docs/robustness.md has the figures, and says
what each screen takes for granted and cannot see.
"""

import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from protocol.errors import FreeRiderError, NormError, OpposedError, UpdateError
from server.config import ScreenConfig
from server.geometry import inner_products
from server.spool import Update

Array = np.ndarray[Any, Any]
Refused = dict[int, UpdateError]
"""Errors by an update's place."""

FRESH = 0.05
"""An update is an echo where no more than this share of its length is new to the sites.

Rounding to int8 alone makes 0.007 to 0.017 of it new."""
SAME = 0.999
"""Two updates with a larger cosine than this are one."""
DEVIATIONS = 5.0
"""The cosine of noise with anything that does not depend on it has mean 0 and deviation 1 / sqrt(values)."""
NOISE_VALUES = 10_000
"""In smaller updates noise may well lie as close to another update as an honest site does."""
OPPOSED = -0.1
"""A cosine below this with more than half of the others makes an update one that points against them."""


@dataclass(frozen=True)
class Verdict:
    """What is known of a round's updates once they have been compared."""

    norms: Mapping[str, float]
    """The L2 norm of every update by site; one that float64 cannot hold stands as the largest float64."""
    refused: Mapping[str, UpdateError]
    """Why a site's update may not be merged. The words go to that site, and so name no other."""


@dataclass(frozen=True)
class Comparison:
    """How n updates lie to one another and to what every site was sent. A cosine is 0 where a norm is, or overflows."""

    values: int
    """Of each update."""
    norm_n: Array
    cosine_nn: Array
    base_n: Array
    """Cosine with the weights that were sent."""
    step_n: Array
    """Cosine with the last global step; 0 where there was none."""
    fresh_n: Array
    """The share of an update's length, 0 to 1, that no combination of these weights and this step explains."""


def judge(
    updates: Sequence[Update],
    *,
    base: Mapping[str, Array],
    last_step: Mapping[str, Array] | None,
    usual: Sequence[float],
    config: ScreenConfig,
    private: bool,
) -> Verdict:
    """The verdict on all updates of one round; what is in them never raises.

    Args:
        updates: All that came, in any order, finite and of one schema.
        base: The packed weights that the sites were sent.
        last_step: How the last round changed the weights, where that is known.
        usual: Norms of updates that were merged in the rounds before.
        config: What is screened.
        private: The updates carry noise for differential privacy, and so may look like noise.
    """
    if not updates:
        return Verdict(norms={}, refused={})
    look = compare(updates, base, last_step)
    refused: Refused = {}
    if config.free_riders:
        refused |= _nothing_new(look)
    if config.norm_factor:
        refused |= _too_long(look, refused, usual, config.norm_factor)
    if config.free_riders:
        refused |= _untrained(look, refused, private)
        # Last, so that a copy which is refused for something else never costs the original its round.
        refused |= _copies(look, refused, updates)
    sites = [update.site for update in updates]
    return Verdict(
        norms=dict(zip(sites, look.norm_n.tolist(), strict=True)),
        refused={sites[place]: error for place, error in sorted(refused.items())},
    )


def compare(updates: Sequence[Update], base: Mapping[str, Array], last_step: Mapping[str, Array] | None) -> Comparison:
    """How the updates lie to one another, from one pass over them."""
    n, known = len(updates), [base] if last_step is None else [base, last_step]
    gram = inner_products(updates, known)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        length = np.sqrt(np.diagonal(gram))
        cosine = np.clip(gram / length[:, None] / length[None, :], -1, 1)
    cosine[~np.isfinite(cosine)] = 0
    cosine_nk = cosine[:n, n:]
    explained = np.einsum("ni,ij,nj->n", cosine_nk, np.linalg.pinv(cosine[n:, n:], hermitian=True), cosine_nk)
    return Comparison(
        values=sum(array.size for array in updates[0].arrays.values()),
        norm_n=np.nan_to_num(length[:n], nan=sys.float_info.max, posinf=sys.float_info.max),
        cosine_nn=cosine[:n, :n],
        base_n=cosine_nk[:, 0],
        step_n=cosine_nk[:, 1] if last_step is not None else np.zeros(n),
        fresh_n=np.sqrt(np.clip(1 - explained, 0, 1)),
    )


def _nothing_new(look: Comparison) -> Refused:
    """Updates that are zero, or made of what every site was sent."""
    found: Refused = {}
    for place, norm in enumerate(look.norm_n):
        if norm == 0:
            found[place] = FreeRiderError("the update is nothing, all its values are 0; look whether the site trains")
        elif look.fresh_n[place] <= FRESH:
            found[place] = FreeRiderError(
                f"the update is what the server sent: its cosine with the weights is {look.base_n[place]:.7f}, with "
                f"their last step {look.step_n[place]:.7f}, and {look.fresh_n[place]:.1e} of its length is new, where "
                f"more than {FRESH:g} is asked for; look whether the site trains"
            )
    return found


def _untrained(look: Comparison, refused: Refused, private: bool) -> Refused:
    """Updates that point nowhere in particular, or against most others."""
    places = [place for place in range(len(look.norm_n)) if place not in refused]
    nearest = {place: _nearest(look, place, places) for place in places}
    limit = DEVIATIONS / math.sqrt(max(1, look.values))
    found: Refused = {}
    for place in places:
        others = [other for other in places if other != place]
        trained = sum(nearest[other] > limit for other in others)
        against = sum(bool(look.cosine_nn[place, other] < OPPOSED) for other in others)
        if not private and look.values >= NOISE_VALUES and nearest[place] <= limit and 0 < len(others) <= 2 * trained:
            found[place] = FreeRiderError(
                f"the update cannot be told from noise: no cosine of it with another update or with the last step is "
                f"above {nearest[place]:.1e}, and noise of {look.values} values stays below {limit:.1e}, as {trained} "
                f"of {len(others)} others do not; look whether the site trains on its own data"
            )
        elif len(others) >= 2 and 2 * against > len(others):
            found[place] = OpposedError(
                f"the update points against {against} of {len(others)} others, its cosine with each below {OPPOSED:g}; "
                "look at the site's data, or set screen.free_riders=false if they are that unlike"
            )
    return found


def _nearest(look: Comparison, place: int, places: Sequence[int]) -> float:
    """The largest cosine, in size, of an update with the last step and with any other one that is no copy of it."""
    cosines = [abs(float(look.cosine_nn[place, other])) for other in places if other != place]
    return max([cosine for cosine in cosines if cosine <= SAME] + [abs(float(look.step_n[place]))])


def _too_long(look: Comparison, refused: Refused, usual: Sequence[float], factor: float) -> Refused:
    """Updates that are long beside those of the others, and beside those of earlier rounds."""
    places = [place for place in range(len(look.norm_n)) if place not in refused]
    # Of an even number the lower one: half of the norms of earlier rounds may be a liar's, where two sites take part.
    earlier = statistics.median_low(usual) if usual else 0.0
    found: Refused = {}
    for place in places:
        others = [float(look.norm_n[other]) for other in places if other != place]
        # And here the upper one: fewer than half are liars, so that it is no longer than the longest honest one.
        beside = statistics.median_high(others) if others else 0.0
        norm, most = float(look.norm_n[place]), factor * max(beside, earlier)
        if 0 < most < norm:
            found[place] = NormError(
                f"the update's norm is {norm:.4g}, above {most:.4g}, which is screen.norm_factor, {factor:g}, times "
                f"what is usual: {beside:.4g} this round, {earlier:.4g} in earlier ones; look whether the site's loss "
                "diverges, or raise screen.norm_factor"
            )
    return found


def _copies(look: Comparison, refused: Refused, updates: Sequence[Update]) -> Refused:
    """All but one of the updates that are equal but for their length.

    Nothing in them says whose it was first, and to refuse all would let a copy cost the original its round. What is
    kept is the one that claims the fewest examples, then the shortest, so that no copy makes it weigh more.
    """
    kept: list[int] = []
    found: Refused = {}
    order = sorted(
        (place for place in range(len(updates)) if place not in refused),
        key=lambda place: (updates[place].report.examples, look.norm_n[place], updates[place].site),
    )
    for place in order:
        nearest = max((float(look.cosine_nn[place, other]) for other in kept), default=0.0)
        if nearest > SAME:
            found[place] = FreeRiderError(
                f"the update is another site's: the cosine of the two is {nearest:.9f}, and one of them is enough; "
                "look whether two sites share a folder or a key"
            )
        else:
            kept.append(place)
    return found
