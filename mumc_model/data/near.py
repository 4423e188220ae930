"""Images and texts that are nearly the same, found without comparing each with each.

Dimensions: N hashes, P pairs. A hash is 64 bits, each of which says whether one low frequency of the image is stronger
than the middle one. Images that were scaled, compressed anew or made a little brighter keep nearly all of them.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

from mumc_model.data.images import to_eight_bits

SIDE = 32
"""Pixels along a side of what is transformed."""
LOW = 8
"""Frequencies along a side that are kept, from the first after the constant one."""
DISTANCE = 4
"""Bits in which near images differ at most."""
_FLAT = 1e-6
"""Of 255: a frequency that is weaker is rounding, so that flat images have one hash."""
_ROWS = 1 << 20
"""Pairs looked at in one go: memory stays flat."""

Hashes = NDArray[np.uint64]
Rows = NDArray[np.int64]


def image_hash(image: Image.Image) -> int:
    """The perceptual hash of an image, as 64 bits."""
    grey = to_eight_bits(image).convert("L")
    return pixel_hash(np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.LANCZOS), dtype=np.float64))


def pixel_hash(grey: NDArray[np.float64]) -> int:
    """The hash of a grey square of `SIDE`: bit u * 8 + v is set where frequency (u + 1, v + 1) is above the median.

    Source: C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010, section 3.2.1.
    """
    low = dctn(grey, norm="ortho")[1 : LOW + 1, 1 : LOW + 1].ravel()
    low[np.abs(low) < _FLAT] = 0.0
    bits = np.packbits(low > np.median(low), bitorder="little")
    return int.from_bytes(bits.tobytes(), "little")


def bits_set(values: Hashes) -> NDArray[np.int64]:
    """How many bits of each value are set: of two hashes' difference (`^`), their distance."""
    found: NDArray[np.int64] = _BITS[np.ascontiguousarray(values).view(np.uint8)].reshape(-1, 8).sum(axis=1)
    return found


def near_pairs(hashes: Hashes, most: int = DISTANCE) -> Iterator[tuple[Rows, Rows]]:
    """Every pair of rows whose hashes differ in at most `most` bits, each once, in portions.

    The 64 bits are cut into `most` + 2 bands. Hashes that differ in `most` bits agree on two bands at least, so only
    those that share two whole bands are compared. Equal hashes make a pair of each with each: give each hash once.
    """
    masks = list(_band_pairs(most + 2))
    for number, mask in enumerate(masks):
        earlier = masks[:number]
        for left, right in _sharing(hashes, mask):
            differing = hashes[left] ^ hashes[right]
            found = bits_set(differing) <= most
            for other in earlier:
                # A pair that shares other bands too was given when those were looked at.
                found &= (differing & other) != 0
            if found.any():
                yield left[found], right[found]


def plain_form(text: str) -> str:
    """The words of a text in one spelling: without case, accents of compatibility, punctuation and spacing."""
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def _band_pairs(bands: int) -> Iterator[np.uint64]:
    """The bits of each two bands."""
    edges = [64 * band // bands for band in range(bands + 1)]
    masks = [(1 << after) - (1 << before) for before, after in itertools.pairwise(edges)]
    return (np.uint64(one | other) for one, other in itertools.combinations(masks, 2))


def _sharing(hashes: Hashes, mask: np.uint64) -> Iterator[tuple[Rows, Rows]]:
    """Every pair of rows that agree on the bits of the mask, in portions."""
    kept = hashes & mask
    order = np.argsort(kept, kind="stable")
    kept = kept[order]
    starts = np.flatnonzero(np.concatenate(([True], kept[1:] != kept[:-1]))) if len(kept) else np.empty(0, np.int64)
    sizes = np.diff(np.append(starts, len(kept)))
    # Row r of a run of n is paired with the n - 1 - r rows after it.
    follow = np.repeat(starts + sizes, sizes) - np.arange(len(kept)) - 1
    done = np.concatenate(([0], np.cumsum(follow)))
    first = 0
    while first < len(kept):
        last = max(first + 1, int(np.searchsorted(done, done[first] + _ROWS, side="right")) - 1)
        counts = follow[first:last]
        left = np.repeat(np.arange(first, last), counts)
        right = left + 1 + np.arange(len(left)) - np.repeat(done[first:last] - done[first], counts)
        if len(left):
            yield order[left], order[right]
        first = last


_BITS = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.int64)
_WORD = re.compile(r"\w+")
