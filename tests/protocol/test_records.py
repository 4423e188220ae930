import subprocess
import sys

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from protocol.errors import DtypeError, MessageError, ShapeError
from protocol.messages import Order, Refusal, Report
from protocol.records import arrays_to_record, order_from_record, payload_bytes, reply_from_record, to_record

ORDER = Order(
    run_id="r",
    round=1,
    attempt=1,
    action="train.pretrain",
    recipe={},
    vocabulary=("a",),
    first_step=0,
    steps=1,
    total_steps=1,
    seed=0,
    base_digest="0" * 64,
)
REPORT = Report(run_id="r", round=1, attempt=1, site="", examples=1, metrics={}, base_digest="0" * 64)
REFUSAL = Refusal(code="data", text="no captions")
PACKED = {"float32": np.array([1, -2, np.nan], "float32"), "float16": np.array([0.5], "float16")}
RAW = "fedmumc.raw-little-endian"


def test_an_order_and_its_weights_survive_the_record():
    order, arrays = order_from_record(to_record(ORDER, PACKED))
    assert order == ORDER
    assert {name: array.tobytes() for name, array in arrays.items()} == {n: a.tobytes() for n, a in PACKED.items()}


@pytest.mark.parametrize("message", [REPORT, REFUSAL], ids=lambda m: m.kind)
def test_a_reply_may_come_without_arrays(message):
    assert reply_from_record(to_record(message)) == (message, {})


def test_one_array_record_serves_the_messages_to_all_sites():
    shared = arrays_to_record(PACKED)
    first, second = to_record(ORDER, shared), to_record(ORDER, shared)
    assert first["arrays"] is second["arrays"]
    assert set(order_from_record(second)[1]) == set(PACKED)


def test_arrays_are_read_without_a_copy():
    record = to_record(REPORT, PACKED)
    array = reply_from_record(record)[1]["float32"]
    assert np.shares_memory(array, np.frombuffer(record["arrays"]["float32"].data, "uint8"))
    assert not array.flags.writeable


@pytest.mark.parametrize("words", ["uint32", "uint64"])
def test_masked_words_travel_bit_by_bit(words):
    array = np.array([0, 1, np.iinfo(words).max], words)
    (there,) = reply_from_record(to_record(REPORT, {words: array}))[1].values()
    assert (there.tobytes(), there.dtype) == (array.tobytes(), array.dtype)


def test_an_empty_array_travels():
    assert reply_from_record(to_record(REPORT, {"float32": np.zeros(0, "float32")}))[1]["float32"].size == 0


def test_payload_counts_arrays_and_text():
    with_arrays, without = to_record(REPORT, PACKED), to_record(REPORT)
    assert payload_bytes(with_arrays) - payload_bytes(without) == 3 * 4 + 1 * 2
    assert payload_bytes(without) == len(without["message"]["json"])


def test_an_order_is_no_reply_and_a_reply_no_order():
    with pytest.raises(MessageError, match="an order was expected, but a report came"):
        order_from_record(to_record(REPORT))
    with pytest.raises(MessageError, match="an order came"):
        reply_from_record(to_record(ORDER))


@pytest.mark.parametrize(
    "record",
    [
        RecordDict(),
        RecordDict({"message": MetricRecord({"json": 1})}),
        RecordDict({"message": ConfigRecord({"json": 1})}),
        RecordDict({"message": ConfigRecord({"json": b"{}"})}),
        RecordDict({"message": to_record(REPORT)["message"], "arrays": ConfigRecord({})}),
        RecordDict({"message": to_record(REPORT)["message"], "code": ConfigRecord({"pickle": b"..."})}),
    ],
)
def test_content_of_another_form_is_refused(record):
    with pytest.raises(MessageError):
        reply_from_record(record)


@pytest.mark.parametrize(
    ("array", "error"),
    [
        (Array(np.ones(2, "float32")), DtypeError),  # numpy's own format has a header to trust
        (Array("object", (1,), RAW, b"12345678"), DtypeError),
        (Array("int64", (1,), RAW, b"12345678"), DtypeError),
        (Array("float32", (3,), RAW, b"12345678"), ShapeError),
        (Array("float32", (1, 2), RAW, b"12345678"), ShapeError),
        (Array("float32", (-2,), RAW, b"12345678"), ShapeError),
        (Array("float32", (10**30, 0), RAW, b""), ShapeError),
        (Array("float32", (2,), RAW, b"123456789"), ShapeError),
    ],
)
def test_an_array_whose_bytes_do_not_fit_its_description_is_refused(array, error):
    record = to_record(REPORT)
    record["arrays"] = ArrayRecord({"float32": array})
    with pytest.raises(error):
        reply_from_record(record)


def test_the_protocol_needs_no_torch():
    code = "import sys, protocol.records, protocol.codec; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
