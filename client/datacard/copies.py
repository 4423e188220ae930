"""How many images are copies of others: inside the site, across patients and splits, and of another set.

Dimensions: N images, V values that tell images apart (digests or hashes), P pairs of values that count as the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.datacard.facts import Cell, Copies, NotMeasured
from mumc_model.data.near import near_pairs
from mumc_model.data.schema import SPLITS

BIT = {split: 1 << place for place, split in enumerate(SPLITS)}
SPLIT_PAIRS = tuple((late, early) for place, late in enumerate(SPLITS) for early in SPLITS[:place])
"""`(test, train)`: what is asked last, and what was learnt from before."""
NO_PATIENTS = NotMeasured("copies across patients", "the site's unit is the image, so its data knows no patients")

_NOBODY = np.iinfo(np.int64).max
Ints = NDArray[np.int64]
Pairs = Iterable[tuple[Ints, Ints]]


@dataclass(frozen=True)
class Images:
    """The images that are compared, in one order."""

    sides_N: Ints
    """Bits of the splits that an image serves."""
    first_N: Ints
    """The least number of a patient whom the image belongs to."""
    last_N: Ints
    """The greatest; another than the first where two patients have the very same file."""
    knows_patients: bool

    def cell(self, chosen_N: NDArray[np.bool_]) -> Cell:
        """How many images are chosen, and of how many units."""
        of_units = self.first_N[chosen_N] if self.knows_patients else np.flatnonzero(chosen_N)
        return Cell(count=int(chosen_N.sum()), units=len(np.unique(of_units)))


def exact_copies(images: Images, digests: Sequence[str]) -> Copies:
    """Images that are the same byte for byte."""
    _, value_N = np.unique(np.array(digests, dtype=str), return_inverse=True)
    return _copies(images, value_N, ())


def near_copies(images: Images, hashes: Sequence[int]) -> Copies:
    """Images whose hashes are near."""
    values, value_N = np.unique(np.array(hashes, dtype=np.uint64), return_inverse=True)
    return _copies(images, value_N, near_pairs(values))


def near_those(hashes: Sequence[int], others: Sequence[int], bits: Sequence[int]) -> Ints:
    """For each hash, the bits of the others that are near it, joined by or."""
    values = np.unique(np.array([*hashes, *others], dtype=np.uint64))
    marks = np.zeros(len(values), np.int64)
    np.bitwise_or.at(marks, np.searchsorted(values, np.array(others, dtype=np.uint64)), np.array(bits, dtype=np.int64))
    reached = marks.copy()
    for left, right in near_pairs(values):
        np.bitwise_or.at(reached, left, marks[right])
        np.bitwise_or.at(reached, right, marks[left])
    return reached[np.searchsorted(values, np.array(hashes, dtype=np.uint64))]


def images_of(keys: Sequence[str], sides: Mapping[str, int], patients: Mapping[str, set[str]], known: bool) -> Images:
    """The images of these keys; `known` says whether the data knows its patients."""
    names = sorted({patient for found in patients.values() for patient in found})
    number = {patient: place for place, patient in enumerate(names)}
    own = [sorted(number[patient] for patient in patients[key]) for key in keys]
    return Images(
        np.array([sides[key] for key in keys], dtype=np.int64),
        np.array([found[0] for found in own], dtype=np.int64),
        np.array([found[-1] for found in own], dtype=np.int64),
        known,
    )


def _copies(images: Images, value_N: Ints, pairs: Pairs) -> Copies:
    """What holds of the neighbourhood of each value holds of all images that have it. Each pair is seen once."""
    count = int(value_N.max()) + 1 if len(value_N) else 0
    held = np.bincount(value_N, minlength=count)
    sides, first, last = np.zeros(count, np.int64), np.full(count, _NOBODY), np.full(count, -1)
    np.bitwise_or.at(sides, value_N, images.sides_N)
    np.minimum.at(first, value_N, images.first_N)
    np.maximum.at(last, value_N, images.last_N)
    around = held.copy(), sides.copy(), first.copy(), last.copy()
    for one, other in pairs:
        for here, there in ((one, other), (other, one)):
            np.add.at(around[0], here, held[there])
            np.bitwise_or.at(around[1], here, sides[there])
            np.minimum.at(around[2], here, first[there])
            np.maximum.at(around[3], here, last[there])
    found_N, sides_N, first_N, last_N = (each[value_N] for each in around)
    return Copies(
        images=images.cell(found_N > 1),
        across_patients=images.cell(first_N != last_N) if images.knows_patients else NO_PATIENTS,
        across_splits={
            f"{late} in {early}": images.cell((images.sides_N & BIT[late] > 0) & (sides_N & BIT[early] > 0))
            for late, early in SPLIT_PAIRS
        },
    )
