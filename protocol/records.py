"""Messages and arrays to Flower's records and back. Arrays travel as raw little-endian bytes: no header to trust."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from protocol.compression import CODES
from protocol.envelope import Seal
from protocol.errors import DtypeError, MessageError, ShapeError
from protocol.messages import Message, Order, Refusal, Report, from_json, to_json
from protocol.schema import FLOATS

NumpyArray = np.ndarray[Any, Any]

_MESSAGE, _ARRAYS, _SEAL, _JSON = "message", "arrays", "seal", "json"
_RAW = "fedmumc.raw-little-endian"
WORDS = ("uint32", "uint64")
"""Types of a masked update; in every other message only floats and the codec's `CODES` travel."""


def arrays_to_record(arrays: Mapping[str, NumpyArray]) -> ArrayRecord:
    """Flat arrays as a record; it may be shared by the messages to all sites."""
    return ArrayRecord({name: _to_flower(array) for name, array in arrays.items()})


def to_record(
    message: Message, arrays: ArrayRecord | Mapping[str, NumpyArray] | None = None, seal: Seal | None = None
) -> RecordDict:
    """The content of a Flower message: the message as JSON and, if any, the packed arrays and the seal beside it."""
    record = RecordDict({_MESSAGE: ConfigRecord({_JSON: to_json(message)})})
    if arrays is not None:
        record[_ARRAYS] = arrays if isinstance(arrays, ArrayRecord) else arrays_to_record(arrays)
    if seal is not None:
        record[_SEAL] = ConfigRecord({_JSON: seal.to_json()})
    return record


def order_from_record(record: RecordDict) -> tuple[Order, dict[str, NumpyArray]]:
    """The order and the packed base weights, which are read-only views of the message's bytes.

    Raises:
        MessageError: the content is not an order.
        UpdateError: an array's bytes do not hold what its shape and type say.
    """
    message, arrays = _from_record(record)
    if not isinstance(message, Order):
        raise MessageError(f"an order was expected, but a {message.kind} came")
    return message, arrays


def reply_from_record(record: RecordDict) -> tuple[Report | Refusal, dict[str, NumpyArray]]:
    """A site's report or refusal and the packed update, if any (read-only views of the message's bytes).

    Raises:
        MessageError: the content is neither.
        UpdateError: an array's bytes do not hold what its shape and type say.
    """
    message, arrays = _from_record(record)
    if isinstance(message, Order):
        raise MessageError("a report or refusal was expected, but an order came")
    return message, arrays


def seal_from_record(record: RecordDict) -> Seal | None:
    """The seal beside a message, or None; nothing of it has been checked.

    Raises:
        EnvelopeError: what stands in its place is none.
    """
    config = record.get(_SEAL)
    if config is None:
        return None
    text = config.get(_JSON) if isinstance(config, ConfigRecord) and set(config) == {_JSON} else None
    return Seal.from_json(text if isinstance(text, str) else "")


def payload_bytes(record: RecordDict) -> int:
    """Bytes of the arrays and texts in a record, without the transport's own overhead."""
    # `record.array_records` would tie the record into a cycle, and so keep its arrays until the collector runs.
    arrays = sum(len(a.data) for r in record.values() if isinstance(r, ArrayRecord) for a in r.values())
    values = (v for r in record.values() if isinstance(r, ConfigRecord) for v in r.values())
    return arrays + sum(len(v) for v in values if isinstance(v, (str, bytes)))


def _from_record(record: RecordDict) -> tuple[Message, dict[str, NumpyArray]]:
    if extra := sorted(set(record) - {_MESSAGE, _ARRAYS, _SEAL}):
        raise MessageError(f"the content has records that nobody reads: {', '.join(str(e)[:60] for e in extra[:3])}")
    config, arrays = record.get(_MESSAGE), record.get(_ARRAYS, ArrayRecord())
    if not isinstance(config, ConfigRecord) or not isinstance(arrays, ArrayRecord):
        raise MessageError(f"the content has no ConfigRecord '{_MESSAGE}', or its '{_ARRAYS}' are no ArrayRecord")
    text = config.get(_JSON)
    if set(config) != {_JSON} or not isinstance(text, str):
        raise MessageError(f"the record '{_MESSAGE}' holds exactly one string, '{_JSON}'")
    return from_json(text), {name: _from_flower(name, array) for name, array in arrays.items()}


def _to_flower(array: NumpyArray) -> Array:
    assert array.ndim == 1, "only packed, and so flat, arrays travel"
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return Array(dtype=str(array.dtype), shape=tuple(array.shape), stype=_RAW, data=little.tobytes())


def _from_flower(name: str, array: Array) -> NumpyArray:
    if array.stype != _RAW or array.dtype not in (*FLOATS, *CODES, *WORDS):
        raise DtypeError(
            f"array {name[:60]!r} travels as {array.stype[:40]!r} of {array.dtype[:40]!r}; expected {_RAW!r}"
        )
    dtype = np.dtype(array.dtype).newbyteorder("<")
    if array.shape != (len(array.data) // dtype.itemsize,) or len(array.data) % dtype.itemsize:
        raise ShapeError(f"array {name[:60]!r} has {len(array.data)} bytes, not those of its shape {array.shape[:8]}")
    return np.frombuffer(array.data, dtype=dtype)
