"""The codec of updates: packed differences to fewer bytes and back.

An array of a type travels under that type's name as it is, or as `TYPE.bfloat16` (the upper half of each float32, as
uint16 words, since Flower knows no bfloat16), or as `TYPE.int8` beside `TYPE.scales` (whole steps from -127 to 127, and
a float32 step for each block of values). Blocks run through an array without regard to its tensors.

What rounding takes away is not lost: the site adds it to its next update (`with_feedback`), so that over the rounds the
decoded updates come to the true ones but for the last remainder. Source: EF-SGD, arXiv 1901.09847, algorithm 1.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np

from protocol.errors import (
    CodecError,
    DtypeError,
    MessageError,
    MissingWeightsError,
    NotFiniteError,
    ShapeError,
    UnexpectedWeightsError,
)
from protocol.lowrank import LowRank
from protocol.schema import WeightSchema

Array = np.ndarray[Any, Any]
Kind = Literal["float32", "bfloat16", "int8"]
KINDS: tuple[str, ...] = get_args(Kind)
CODES = ("uint16", "int8")
"""Types of encoded values; scales are float32."""

LEVELS = 127
"""Whole steps to either side of 0. The code -128 is never sent, so that every code has its negative."""
LARGEST = 2.0**100
"""Largest magnitude that a lossy codec takes: far beyond any update, and far enough from the largest float32."""
LEAST_SCALE = float(np.finfo(np.float32).tiny)
"""Below this a step is 0, and so is its block: float32 would be too coarse there to hold the bound of `int8`."""
_CHUNK = 1 << 16
"""Values at a time, whole blocks: they stay in the processor's cache."""
_ENDLESS = 0x7F80
"""The exponent of bfloat16 that only NaN and the infinities have."""


@dataclass(frozen=True, kw_only=True)
class Codec:
    """How the updates of a run travel."""

    kind: str = "float32"
    """`float32` sends every array as it is, of whatever type."""
    block: int = 256
    """Values that share a scale under `int8`; a power of two."""
    adapters: LowRank | None = None
    """Where only adapters learn: factors travel in the place of the weights that these change."""

    def __post_init__(self) -> None:
        """Refuse what neither side could write."""
        if self.kind not in KINDS:
            raise MessageError(f"the codec is {self.kind!r:.40}, not one of {', '.join(KINDS)}")
        if self.block not in (1 << bits for bits in range(4, 17)):
            raise MessageError(f"the codec's block is {self.block}; choose a power of two from 16 to {_CHUNK}")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The codec that an order names.

        Raises:
            MessageError: it names none that this side knows.
        """
        held = {name: type(value) for name, value in values.items()}
        if held != {"kind": str, "block": int, "adapters": dict}:
            raise MessageError("order.codec holds a kind, a block and adapters; install the same fedmumc at both ends")
        adapters = LowRank.of(values["adapters"]) if values["adapters"] else None
        return cls(kind=values["kind"], block=values["block"], adapters=adapters)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        adapters = self.adapters.to_dict() if self.adapters else {}
        return {"kind": self.kind, "block": self.block, "adapters": adapters}

    @property
    def exact(self) -> bool:
        """Whether no value is rounded."""
        return self.kind == "float32"

    @property
    def plain(self) -> bool:
        """Whether the packed differences of all weights travel as they are."""
        return self.exact and self.adapters is None

    def sent(self, schema: WeightSchema) -> WeightSchema:
        """What is packed in the place of the weights of this schema: they themselves, or factors of them."""
        return self.adapters.schema(schema) if self.adapters else schema

    def form(self, sizes: Mapping[str, int]) -> dict[str, tuple[str, int]]:
        """Type and length of each array that travels for packed arrays of these lengths, by its name."""
        found: dict[str, tuple[str, int]] = {}
        for dtype, size in sizes.items():
            if self.kind == "int8":
                found |= {f"{dtype}.int8": ("int8", size), f"{dtype}.scales": ("float32", -(-size // self.block))}
            elif self._halves(dtype):
                found[f"{dtype}.bfloat16"] = ("uint16", size)
            else:
                found[dtype] = (dtype, size)
        return found

    def _halves(self, dtype: str) -> bool:
        """Whether an array of this type is sent as bfloat16; one of float16 would only lose by it."""
        return self.kind == "bfloat16" and np.dtype(dtype).itemsize > 2


def encode(arrays: Mapping[str, Array], codec: Codec) -> dict[str, Array]:
    """The arrays that travel for packed ones; as large as `Codec.form` says.

    With b a block's largest magnitude, `int8` moves a value by at most b / 254, and `bfloat16` (round to nearest, ties
    to even) moves a value x by at most |x| / 256; besides the rounding of float32 itself, and 2e-36 near 0.

    Raises:
        NotFiniteError: a value is NaN, infinite, or beyond `LARGEST`, where the codec is lossy.
    """
    found: dict[str, Array] = {}
    for dtype, flat in arrays.items():
        if codec.kind == "int8":
            found[f"{dtype}.int8"], found[f"{dtype}.scales"] = _to_int8(flat, codec.block)
        elif codec._halves(dtype):
            found[f"{dtype}.bfloat16"] = _to_bfloat16(flat)
        else:
            found[dtype] = flat
    return found


def decode(arrays: Mapping[str, Array], schema: WeightSchema, codec: Codec) -> dict[str, Array]:
    """The packed arrays that `protocol.codec.unpack` takes, every value of a lossy codec finite.

    Under a plain codec these are the arrays that came, whose values were not looked at.

    Raises:
        UpdateError: the arrays are not exactly those that the codec writes for this schema.
    """
    flat = restore(arrays, codec.sent(schema).flat_sizes, codec)
    return codec.adapters.expand(flat, schema) if codec.adapters else flat


def restore(arrays: Mapping[str, Array], sizes: Mapping[str, int], codec: Codec) -> dict[str, Array]:
    """The same for packed arrays of these lengths.

    Raises:
        UpdateError: the arrays are not exactly those that the codec writes for these lengths.
    """
    check_form(arrays, sizes, codec)
    found: dict[str, Array] = {}
    for dtype in sizes:
        if codec.kind == "int8":
            codes, scales = arrays[f"{dtype}.int8"], arrays[f"{dtype}.scales"]
            found[dtype] = _from_int8(codes, scales, codec.block, dtype)
        elif codec._halves(dtype):
            found[dtype] = _from_bfloat16(arrays[f"{dtype}.bfloat16"], dtype)
        else:
            found[dtype] = arrays[dtype]
    return found


def check_form(arrays: Mapping[str, Array], sizes: Mapping[str, int], codec: Codec) -> None:
    """Return only if the arrays have the names, types and lengths that the codec writes.

    Raises:
        UpdateError: they do not.
    """
    form = codec.form(sizes)
    if missing := sorted(form.keys() - arrays.keys()):
        raise MissingWeightsError(f"{len(missing)} arrays are missing: {_some(missing)}; {_SAME_RUN}")
    if extra := sorted(arrays.keys() - form.keys()):
        raise UnexpectedWeightsError(f"{len(extra)} arrays are none of {codec.kind}: {_some(extra)}; {_SAME_RUN}")
    for name, (dtype, size) in form.items():
        if arrays[name].shape != (size,):
            raise ShapeError(f"{name} has shape {list(arrays[name].shape)} instead of [{size}]; {_SAME_RUN}")
        if arrays[name].dtype != np.dtype(dtype):
            raise DtypeError(f"{name} is {arrays[name].dtype} instead of {dtype}; {_SAME_RUN}")


def with_feedback(
    update: Mapping[str, Array], residual: Mapping[str, Array] | None, codec: Codec
) -> tuple[dict[str, Array], dict[str, Array] | None]:
    """What travels for an update and what earlier ones still owe, and what is owed after it (None: nothing ever).

    Factors owe nothing: those of the next round are of other products.

    Raises:
        NotFiniteError: a value is NaN, infinite, or beyond `LARGEST`, where the codec is lossy.
        ShapeError: the residual is of another model.
    """
    if codec.exact or codec.adapters:
        return encode(update, codec), None
    sizes = {dtype: flat.size for dtype, flat in update.items()}
    if residual is not None and {dtype: flat.size for dtype, flat in residual.items()} != sizes:
        raise ShapeError("what this site kept of earlier updates is of another model; start a run under another name")
    encoded: dict[str, Array] = {}
    owed: dict[str, Array] = {}
    for dtype, flat in update.items():
        sent = {name: np.empty(size, kind) for name, (kind, size) in codec.form({dtype: flat.size}).items()}
        encoded |= sent
        owed[dtype] = _owed(flat, residual[dtype] if residual else None, dtype, codec, sent)
    return encoded, owed


def _owed(flat: Array, residual: Array | None, dtype: str, codec: Codec, sent: dict[str, Array]) -> Array:
    """What is owed after an update of a type, whose encoded values are written into `sent`; in one pass over memory."""
    owed, scratch = np.empty_like(flat), _Scratch(codec.block)
    for start, stop in _chunks(flat.size):
        part = owed[start:stop]
        if residual is None:
            part[:] = flat[start:stop]
        else:
            np.add(flat[start:stop], residual[start:stop], out=part)
        if codec.kind == "int8":
            codes = sent[f"{dtype}.int8"][start:stop]
            scales = sent[f"{dtype}.scales"][start // codec.block : -(-stop // codec.block)]
            scratch.encode(part, codes, scales)
            part -= _fitting(scratch.decode(codes, scales), dtype)
        else:
            encoded = encode({dtype: part}, codec)
            for name, array in encoded.items():
                sent[name][start:stop] = array
            part -= restore(encoded, {dtype: part.size}, codec)[dtype]
    return owed


def _to_int8(flat: Array, block: int) -> tuple[Array, Array]:
    codes, scales = np.empty(flat.size, np.int8), np.empty(-(-flat.size // block), np.float32)
    scratch = _Scratch(block)
    for start, stop in _chunks(flat.size):
        scratch.encode(flat[start:stop], codes[start:stop], scales[start // block : -(-stop // block)])
    return codes, scales


def _from_int8(codes: Array, scales: Array, block: int, dtype: str) -> Array:
    if not np.all((scales >= 0) & (scales <= LARGEST)):
        raise NotFiniteError(f"scales of the update are negative, NaN, or beyond {LARGEST:.3g}; nothing honest is")
    flat, scratch = np.empty(codes.size, dtype), _Scratch(block)
    for start, stop in _chunks(codes.size):
        part = codes[start:stop]
        if int(part.min()) < -LEVELS:
            raise CodecError(f"codes of the update lie below -{LEVELS}, where the codec writes none; {_SAME_RUN}")
        flat[start:stop] = _fitting(scratch.decode(part, scales[start // block : -(-stop // block)]), dtype)
    return flat


def _fitting(value: Array, dtype: str) -> Array:
    """The float32 values for an array of a type, of which float16 holds less."""
    if np.dtype(dtype).itemsize >= value.itemsize:
        return value
    with np.errstate(over="ignore"):
        cast = value.astype(dtype)
    if not np.isfinite(cast).all():
        raise NotFiniteError(f"values of the update are beyond any {dtype}")
    return cast


class _Scratch:
    """Memory in which chunk after chunk becomes `int8` and is read back; it stays in the processor's cache."""

    def __init__(self, block: int) -> None:
        self._block = block
        self._held, self._sizes = np.empty(_CHUNK, np.float32), np.empty(_CHUNK, np.float32)

    def encode(self, part: Array, codes: Array, scales: Array) -> None:
        """Write the codes of a chunk, and the scale of each of its blocks."""
        value_RB = self._rows(part)
        size_RB = np.abs(value_RB, out=self._sizes[: value_RB.size].reshape(value_RB.shape))
        # Without their signs floats are in the order of their bits, NaN above all, and whole numbers are compared
        # several at a time.
        peak_R = size_RB.view(np.int32).max(axis=1).view(np.float32)
        _check_peaks(peak_R)
        np.divide(peak_R, np.float32(LEVELS), out=scales)
        scales[scales < LEAST_SCALE] = 0
        step_R = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales > 0)
        value_RB *= step_R[:, None]
        np.rint(value_RB, out=value_RB)
        np.copyto(codes, value_RB.reshape(-1)[: part.size], casting="unsafe")

    def decode(self, codes: Array, scales: Array) -> Array:
        """The values of a chunk, float32, until the next one is asked for."""
        value_RB = self._rows(codes)
        value_RB *= scales[:, None]
        flat: Array = value_RB.reshape(-1)[: codes.size]
        return flat

    def _rows(self, part: Array) -> Array:
        """The values of a chunk, a block a row, the last filled up with 0."""
        rows = -(-part.size // self._block)
        flat = self._held[: rows * self._block]
        flat[: part.size] = part
        flat[part.size :] = 0
        return flat.reshape(rows, self._block)


def _to_bfloat16(flat: Array) -> Array:
    words = np.empty(flat.size, np.uint16)
    for start, stop in _chunks(flat.size):
        bits = flat[start:stop].astype(np.float32).view(np.uint32)
        _check_peaks(np.abs(bits.view(np.float32)))
        # Half of the last place that stays, less one where that place is even: ties go to the even neighbour.
        odd = (bits >> np.uint32(16)) & np.uint32(1)
        words[start:stop] = (bits + odd + np.uint32(0x7FFF)) >> np.uint32(16)
    return words


def _from_bfloat16(words: Array, dtype: str) -> Array:
    flat = np.empty(words.size, dtype)
    for start, stop in _chunks(words.size):
        part = words[start:stop].astype(np.uint32)
        if np.any((part & _ENDLESS) == _ENDLESS):
            raise NotFiniteError("values of the update are NaN or infinite")
        flat[start:stop] = (part << np.uint32(16)).view(np.float32)
    return flat


def _check_peaks(peaks: Array) -> None:
    if not np.all(peaks <= LARGEST):
        raise NotFiniteError(
            f"the update has values that are NaN, infinite or beyond {LARGEST:.3g}, which no codec sends; training has "
            "diverged: lower pretrain.optimizer.lr"
        )


def _chunks(size: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + _CHUNK, size)) for start in range(0, size, _CHUNK))


def _some(names: list[str]) -> str:
    return ", ".join(f"{name:.60}" for name in names[:3]) + (", ..." if len(names) > 3 else "")


_SAME_RUN = "use the model, the codec and the version of fedmumc that the order names"
