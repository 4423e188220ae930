"""Updates as integers whose sum cannot wrap, and the mean out of the sum.

A site i of public weight w_i encodes w_i / W of its update, W being the weight of all sites of the session. The sum is
then at most as large as one clipped update, whatever the weights are: large weights cost no precision.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np

from protocol.errors import NotFiniteError
from protocol.secagg.content import Content
from protocol.secagg.errors import RangeError

Array = np.ndarray[Any, Any]

NEAREST, STOCHASTIC = "nearest", "stochastic"
ROUNDINGS = (NEAREST, STOCHASTIC)
WORDS: dict[int, np.dtype[Any]] = {32: np.dtype("<u4"), 64: np.dtype("<u8")}
SIGNED: dict[int, np.dtype[Any]] = {32: np.dtype("<i4"), 64: np.dtype("<i8")}
EXACT = 2**51
"""Largest sum, in steps: so that float64 holds every product to half a step in total, and every sum exactly."""
MAX_FRACTION_BITS = 512
BLOCK = 1 << 15
"""Values that are converted at a time: three float64 buffers of them stay in the processor's cache."""


@dataclass(frozen=True, kw_only=True)
class FixedPoint(Content):
    """How updates become integers; all sites of a session use the same."""

    kind: ClassVar[str] = "secagg_fixed_point"
    clip: float
    """Largest absolute value of a coordinate of an update; what lies beyond is cut to it."""
    fraction_bits: int
    """The grid's step is 2 to the power of minus this."""
    word_bits: int
    """32 or 64: the modulus is 2 to the power of this."""
    rounding: str
    """`nearest` (half to even), or `stochastic` (up or down at random, so that the mean of the error is zero)."""

    def __post_init__(self) -> None:
        """Refuse what is no format."""
        if not (0 < self.clip < float("inf")):
            raise RangeError(f"the clip range is {self.clip}; give a positive, finite number")
        if abs(self.fraction_bits) > MAX_FRACTION_BITS:
            raise RangeError(f"fraction_bits is {self.fraction_bits}, beyond {MAX_FRACTION_BITS}; rescale the updates")
        if self.word_bits not in WORDS or self.rounding not in ROUNDINGS:
            raise RangeError(
                f"words of {self.word_bits} bits with {self.rounding[:40]!r} rounding; there are 32 and 64 bits, "
                f"and {' and '.join(ROUNDINGS)}"
            )

    @property
    def step(self) -> float:
        """The distance of two neighbouring values, in the update's unit."""
        return 2.0**-self.fraction_bits

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the words that travel: unsigned, little-endian."""
        return WORDS[self.word_bits]

    def check_no_wrap(self, sites: int) -> None:
        """Return only if the sum of that many encoded updates fits the words, whatever the updates are.

        Raises:
            RangeError: it might wrap, or leave the integers that float64 holds exactly.
        """
        largest, limit = _scaled(self.clip, self.fraction_bits), min(EXACT, 2 ** (self.word_bits - 1) - 2 - sites)
        if largest > limit:
            raise RangeError(
                f"clip {self.clip:g} with {self.fraction_bits} fraction bits makes sums of {sites} sites as large as "
                f"{float(largest):.4g} steps, above {limit}; use fewer fraction bits"
            )

    def error_bound(self, survivors: int, share: Fraction) -> float:
        """Most that a coordinate of the decoded mean differs from the exact weighted mean of the clipped updates.

        `share` is the survivors' weight over that of all sites. Each site rounds once, by half a step or (stochastic)
        a step; one step more covers float64's own rounding in all sites together; the last term that of decoding.
        """
        steps = survivors * (0.5 if self.rounding == NEAREST else 1.0) + 1.0
        error = steps * self.step / float(share)
        return error + (self.clip + error) * 2.0**-50


def choose(
    *, clip: float, tolerance: float, weights: Iterable[int], threshold: int, rounding: str = NEAREST
) -> FixedPoint:
    """The format with the shorter words that keeps every tolerated mean within the tolerance, in the update's unit.

    The worst tolerated mean is that of the `threshold` lightest sites: their weight shares the error of the grid.

    Raises:
        RangeError: not even 64-bit words do.
    """
    ordered = sorted(weights)
    worst = None
    for bits in WORDS:
        fixed = _finest(clip, bits, len(ordered), rounding)
        worst = worst_error(fixed, ordered, threshold)
        if worst <= tolerance:
            return fixed
    raise RangeError(
        f"the mean of the {threshold} lightest sites would be off by up to {worst:.3g}, above the tolerance of "
        f"{tolerance:.3g}, even in 64 bits; allow more, or clip below {clip:g}"
    )


def worst_error(fixed: FixedPoint, weights: Iterable[int], threshold: int) -> float:
    """The largest `error_bound` over all sets of survivors of at least `threshold` sites."""
    ordered = sorted(weights)
    total = sum(ordered)
    sizes = range(threshold, len(ordered) + 1)
    return max(fixed.error_bound(size, Fraction(sum(ordered[:size]), total)) for size in sizes)


def encode(
    values: Array, words: Array, fixed: FixedPoint, share: Fraction, generator: np.random.Generator | None = None
) -> int:
    """Write the values times `share`, in steps modulo 2**word_bits, to `words`; how many coordinates were clipped.

    Values of float16, float32 and float64 are all taken exactly. Memory beyond `words` is a constant.

    Raises:
        NotFiniteError: a value is NaN or infinite.
        RangeError: stochastic rounding was agreed and no generator given.
    """
    assert values.shape == words.shape, "one word a value"
    assert words.dtype == fixed.dtype, "the words are those of the format"
    if fixed.rounding == STOCHASTIC and generator is None:
        raise RangeError("this session rounds stochastically; pass a random generator of the site's own")
    multiplier = float(share * _scaled(1.0, fixed.fraction_bits))
    integers, wide = words.view(SIGNED[fixed.word_bits]), np.empty(BLOCK)
    clipped = 0
    for start in range(0, len(values), BLOCK):
        part = values[start : start + BLOCK]
        buffer = wide[: len(part)]
        np.copyto(buffer, part)
        clipped += _clip(part, buffer, fixed.clip)
        buffer *= multiplier
        _round(buffer, fixed.rounding, generator)
        np.copyto(integers[start : start + BLOCK], buffer, casting="unsafe")
    return clipped


def decode(words: Array, fixed: FixedPoint, share: Fraction) -> Array:
    """The weighted mean (float64, in the update's unit) out of the sum of the survivors' words."""
    mean: Array = words.view(SIGNED[fixed.word_bits]).astype(np.float64)
    mean *= float(1 / (share * _scaled(1.0, fixed.fraction_bits)))
    return mean


def _clip(part: Array, buffer: Array, clip: float) -> int:
    """How many of the part were beyond; its copy in the buffer is cut. Minimum and maximum are NaN where a value is."""
    low, high = float(part.min()), float(part.max())
    if -clip <= low and high <= clip:
        return 0
    if not (np.isfinite(low) and np.isfinite(high)):
        raise NotFiniteError("the update holds NaN or infinite values and cannot be masked; look into the training")
    count = int(np.count_nonzero(np.abs(buffer) > clip))
    np.clip(buffer, -clip, clip, out=buffer)
    return count


def _round(buffer: Array, rounding: str, generator: np.random.Generator | None) -> None:
    if rounding == NEAREST:
        np.rint(buffer, out=buffer)
        return
    assert generator is not None, "checked before the first block"
    buffer += generator.random(len(buffer))
    np.floor(buffer, out=buffer)


def _finest(clip: float, word_bits: int, sites: int, rounding: str) -> FixedPoint:
    """The format of the finest step whose sums still fit."""
    limit = min(EXACT, 2 ** (word_bits - 1) - 2 - sites)
    FixedPoint(clip=clip, fraction_bits=0, word_bits=word_bits, rounding=rounding)
    # The clip is at least half of 2**exponent, so that not even one bit more than these could fit.
    bits = limit.bit_length() - int(np.frexp(clip)[1]) + 1
    while _scaled(clip, bits) > limit:
        bits -= 1
    return FixedPoint(clip=clip, fraction_bits=bits, word_bits=word_bits, rounding=rounding)


def _scaled(value: float, bits: int) -> Fraction:
    """The value times 2**bits, exactly."""
    return Fraction(value) * Fraction(2) ** bits
