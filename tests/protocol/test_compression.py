"""The codec of updates: bounds in closed form, what feedback owes, and arrays that nobody honest sends."""

import json
import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as some_arrays

from protocol.codec import pack, unpack
from protocol.compression import LARGEST, Codec, decode, encode, restore, with_feedback
from protocol.errors import (
    CodecError,
    DtypeError,
    MessageError,
    MissingWeightsError,
    NotFiniteError,
    ShapeError,
    UnexpectedWeightsError,
    UpdateError,
)
from protocol.lowrank import LowRank
from protocol.schema import WeightSchema

BLOCK = 16
HALF, BYTE = Codec(kind="bfloat16"), Codec(kind="int8", block=BLOCK)
LOSSY = pytest.mark.parametrize("codec", [HALF, BYTE], ids=lambda codec: codec.kind)
VALUES = st.floats(-LARGEST, LARGEST, width=32)
FLATS = some_arrays(np.float32, st.integers(0, 100), elements=VALUES)
NEAR_ZERO = 2e-36


def there_and_back(flat, codec):
    sizes = {"float32": flat.size}
    return restore(encode({"float32": flat}, codec), sizes, codec)["float32"]


def normals(size, seed=0, scale=0.01):
    return np.random.default_rng(seed).standard_normal(size, dtype=np.float32) * np.float32(scale)


@given(FLATS)
@settings(deadline=None)
def test_int8_moves_a_value_by_at_most_half_a_step_of_its_block(flat):
    decoded = there_and_back(flat, BYTE)
    for start in range(0, flat.size, BLOCK):
        part = flat[start : start + BLOCK].astype(float)
        bound = np.abs(part).max() / 254 * (1 + 1e-4) + NEAR_ZERO
        assert np.abs(decoded[start : start + BLOCK] - part).max() <= bound


@given(FLATS)
@settings(deadline=None)
def test_bfloat16_moves_a_value_by_at_most_a_256th_of_itself(flat):
    assert np.all(np.abs(there_and_back(flat, HALF) - flat.astype(float)) <= np.abs(flat) / 256 + NEAR_ZERO)


@given(some_arrays(np.float32, st.integers(1, 100), elements=VALUES))
@settings(deadline=None)
def test_bfloat16_rounds_as_torch_does(flat):
    assert np.array_equal(there_and_back(flat, HALF), torch.tensor(flat).bfloat16().float().numpy())


@pytest.mark.parametrize(
    ("given", "rounded"),
    [
        (1 + 2**-8, 1.0),
        (1 + 3 * 2**-8, 1 + 2**-6),
        (1 + 2**-8 + 2**-20, 1 + 2**-7),
        (-(1 + 2**-8), -1.0),
        (0.0, 0.0),
    ],
)
def test_bfloat16_takes_ties_to_the_even_neighbour(given, rounded):
    assert there_and_back(np.array([given], np.float32), HALF)[0] == rounded


def test_a_block_is_whole_steps_of_its_largest_value():
    flat = np.array([127, -127, 1, -64, 0.4, 0, *[0] * 10, 2.54, -0.02], np.float32)
    encoded = encode({"float32": flat}, BYTE)
    assert encoded["float32.scales"].tolist() == [1.0, np.float32(2.54) / np.float32(127)]
    assert encoded["float32.int8"].tolist() == [127, -127, 1, -64, 0, 0, *[0] * 10, 127, -1]


@LOSSY
def test_blocks_of_nothing_come_back_as_nothing(codec):
    flat = np.zeros(40, np.float32)
    flat[20] = 1e-41
    decoded = there_and_back(flat, codec)
    assert not decoded[:20].any()
    assert np.abs(decoded).max() <= 1e-41


def test_every_type_comes_back_as_itself_and_float16_is_never_halved():
    given = {"float16": normals(33).astype(np.float16), "float32": normals(70), "float64": normals(17).astype(float)}
    sizes = {dtype: flat.size for dtype, flat in given.items()}
    for codec in (Codec(), HALF, BYTE):
        decoded = restore(encode(given, codec), sizes, codec)
        assert {dtype: flat.dtype.name for dtype, flat in decoded.items()} == {dtype: dtype for dtype in given}
        assert all(np.abs(decoded[dtype] - given[dtype]).max() < 1e-3 for dtype in given)
    assert np.array_equal(encode(given, HALF)["float16"], given["float16"])


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 65_536, 65_537, 200_000])
def test_bytes_are_those_of_the_closed_form(size):
    flat = {"float32": np.ones(size, np.float32)}
    sent = {codec.kind: sum(array.nbytes for array in encode(flat, codec).values()) for codec in (Codec(), HALF, BYTE)}
    assert sent == {"float32": 4 * size, "bfloat16": 2 * size, "int8": size + 4 * math.ceil(size / BLOCK)}
    for codec in (Codec(), HALF, BYTE):
        written = {name: (array.dtype.name, array.size) for name, array in encode(flat, codec).items()}
        assert codec.form({"float32": size}) == written


@LOSSY
def test_values_are_the_same_wherever_the_array_is_cut_into_pieces(codec, monkeypatch):
    flat = normals(1000)
    whole = encode({"float32": flat}, codec)
    monkeypatch.setattr("protocol.compression._CHUNK", 64)
    pieces = encode({"float32": flat}, codec)
    assert all(np.array_equal(whole[name], pieces[name]) for name in whole)
    assert np.array_equal(there_and_back(flat, codec), restore(whole, {"float32": 1000}, codec)["float32"])


@LOSSY
def test_what_is_encoded_is_left_as_it_was(codec):
    flat, residual = normals(100), normals(100, 1)
    before = flat.copy(), residual.copy()
    encoded, _ = with_feedback({"float32": flat}, {"float32": residual}, codec)
    decode(encoded, WeightSchema.of({"w": flat}), codec)
    assert np.array_equal(flat, before[0])
    assert np.array_equal(residual, before[1])


@LOSSY
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("owes", [True, False])
def test_what_is_owed_is_to_the_bit_the_sum_less_what_the_server_reads_of_it(codec, dtype, owes, monkeypatch):
    monkeypatch.setattr("protocol.compression._CHUNK", 64)
    flat, residual = normals(1000).astype(dtype), normals(1000, 1, 1e-5).astype(dtype)
    encoded, owed = with_feedback({dtype: flat}, {dtype: residual} if owes else None, codec)
    whole = flat + residual if owes else flat
    expected = encode({dtype: whole}, codec)
    assert encoded.keys() == expected.keys()
    assert all(np.array_equal(encoded[name], expected[name]) for name in expected)
    assert np.array_equal(owed[dtype], whole - restore(expected, {dtype: 1000}, codec)[dtype])


@LOSSY
@given(seed=st.integers(0, 2**32 - 1), rounds=st.integers(1, 12), size=st.integers(1, 300))
@settings(deadline=None, max_examples=40)
def test_all_that_arrives_and_what_is_still_owed_are_the_true_updates(codec, seed, rounds, size):
    generator = np.random.default_rng(seed)
    true, arrived, owed = np.zeros(size), np.zeros(size), None
    for _ in range(rounds):
        update = generator.standard_normal(size, dtype=np.float32) * np.float32(10 ** generator.uniform(-6, 2))
        encoded, owed = with_feedback({"float32": update}, owed, codec)
        true += update
        arrived += restore(encoded, {"float32": size}, codec)["float32"]
    assert np.abs(arrived + owed["float32"] - true).max() <= 1e-6 * rounds * 500


@LOSSY
def test_with_feedback_a_constant_drift_below_half_a_step_arrives(codec):
    update = np.full(BLOCK, 1e-3, np.float32)
    update[0] = 1.0
    alone, with_it, owed = 0.0, 0.0, None
    for _ in range(1000):
        encoded, owed = with_feedback({"float32": update}, owed, codec)
        with_it += restore(encoded, {"float32": BLOCK}, codec)["float32"][1:].astype(float).mean()
        alone += there_and_back(update, codec)[1:].astype(float).mean()
    assert with_it == pytest.approx(1.0, abs=0.005)
    if codec.kind == "int8":
        assert alone == 0.0


def test_an_exact_codec_sends_what_it_gets_and_owes_nothing():
    update = {"float32": normals(10)}
    encoded, owed = with_feedback(update, None, Codec())
    assert owed is None
    assert encoded["float32"] is update["float32"]


def test_a_residual_of_another_model_is_refused():
    with pytest.raises(ShapeError, match="another model"):
        with_feedback({"float32": normals(10)}, {"float32": normals(9)}, BYTE)


@LOSSY
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2 * LARGEST])
@pytest.mark.parametrize("where", [0, 17, 39])
def test_a_value_that_no_training_gives_never_leaves(codec, value, where):
    flat = normals(40)
    flat[where] = value
    with pytest.raises(NotFiniteError, match="training has diverged"):
        encode({"float32": flat}, codec)


def spoiled(name, change):
    sent = dict(encode({"float32": normals(40)}, BYTE))
    sent[name] = change(sent[name].copy())
    return sent


def put(value):
    def change(array):
        array[1] = value
        return array

    return change


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1e-3, 2 * LARGEST])
def test_a_scale_that_is_no_step_is_refused(value):
    with pytest.raises(NotFiniteError, match="scales"):
        restore(spoiled("float32.scales", put(value)), {"float32": 40}, BYTE)


def test_the_code_that_no_site_writes_is_refused():
    with pytest.raises(CodecError, match="below -127"):
        restore(spoiled("float32.int8", put(-128)), {"float32": 40}, BYTE)


@pytest.mark.parametrize("word", [0x7F80, 0xFF80, 0x7FC0, 0x7F81])
def test_a_bfloat16_that_is_no_number_is_refused(word):
    sent = encode({"float32": normals(40)}, HALF)
    sent["float32.bfloat16"][7] = word
    with pytest.raises(NotFiniteError, match="NaN or infinite"):
        restore(sent, {"float32": 40}, HALF)


def test_a_scale_too_large_for_half_precision_is_refused():
    sent = encode({"float16": normals(40).astype(np.float16)}, BYTE)
    sent["float16.scales"][0] = 1e9
    with pytest.raises(NotFiniteError, match="float16"):
        restore(sent, {"float16": 40}, BYTE)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda sent: {}, MissingWeightsError),
        (lambda sent: {"float32.int8": sent["float32.int8"]}, MissingWeightsError),
        (lambda sent: {"float32": np.zeros(40, np.float32)}, MissingWeightsError),
        (lambda sent: sent | {"float32": np.zeros(40, np.float32)}, UnexpectedWeightsError),
        (lambda sent: sent | {"float64.int8": sent["float32.int8"]}, UnexpectedWeightsError),
        (lambda sent: sent | {"float32.int8": sent["float32.int8"][:-1]}, ShapeError),
        (lambda sent: sent | {"float32.int8": sent["float32.int8"].reshape(8, 5)}, ShapeError),
        (lambda sent: sent | {"float32.scales": np.ones(1, np.float32)}, ShapeError),
        (lambda sent: sent | {"float32.scales": np.ones(4, np.float32)}, ShapeError),
        (lambda sent: sent | {"float32.int8": sent["float32.int8"].astype(np.uint16)}, DtypeError),
        (lambda sent: sent | {"float32.scales": sent["float32.scales"].astype(float)}, DtypeError),
    ],
)
def test_arrays_that_are_not_exactly_the_codec_s_are_refused(change, error):
    sent = encode({"float32": normals(40)}, BYTE)
    with pytest.raises(error):
        decode(change(dict(sent)), WeightSchema.of({"w": normals(40)}), BYTE)


@given(st.binary(max_size=120), st.sampled_from([np.int8, np.uint16, np.float32]), st.sampled_from([HALF, BYTE]))
@settings(deadline=None)
def test_whatever_bytes_come_are_refused_or_finite(content, dtype, codec):
    flat = np.frombuffer(content[: len(content) // 4 * 4], dtype)
    sent: Mapping[str, np.ndarray] = dict.fromkeys(codec.form({"float32": 30}), flat)
    sent = {name: flat[: 30 if name != "float32.scales" else 2] for name in sent}
    try:
        decoded = restore(sent, {"float32": 30}, codec)
    except UpdateError:
        return
    assert np.isfinite(decoded["float32"]).all()


@LOSSY
def test_what_is_decoded_is_what_unpack_takes(codec):
    weights = {"a": normals(12).reshape(3, 4), "b": normals(5).astype(np.float64), "c": normals(7)}
    schema = WeightSchema.of(weights)
    named = unpack(decode(encode(pack(weights, schema), codec), schema, codec), schema)
    assert {name: weight.shape for name, weight in named.items()} == {n: w.shape for n, w in weights.items()}
    assert all(np.abs(named[name] - weights[name]).max() < 1e-3 for name in weights)


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "int4"},
        {"kind": "auto"},
        {"kind": ["int8"]},
        {"block": 100},
        {"block": 8},
        {"block": 1 << 17},
        {"block": 256.0},
        {"block": True},
        {"feedback": False},
        {"adapters": None},
        {"adapters": {"rank": 0, "factored": [], "whole": []}},
        {"adapters": {"rank": 1.0, "factored": [], "whole": []}},
        {"adapters": {"rank": 1, "factored": [1], "whole": []}},
        {"adapters": {"rank": 1, "factored": ["*"] * 65, "whole": []}},
        {"adapters": {"rank": 1, "factored": []}},
    ],
)
def test_a_codec_that_nobody_knows_is_refused(values):
    with pytest.raises(MessageError, match="codec"):
        Codec.of(BYTE.to_dict() | values)


@pytest.mark.parametrize("name", ["kind", "block", "adapters"])
def test_a_codec_that_lacks_a_part_is_refused(name):
    with pytest.raises(MessageError, match="a kind, a block and adapters"):
        Codec.of({key: value for key, value in BYTE.to_dict().items() if key != name})


def test_a_codec_s_plain_values_are_the_codec():
    for codec in (BYTE, Codec(kind="bfloat16", adapters=LowRank(rank=2, factored=("a.*",), whole=()))):
        assert Codec.of(json.loads(json.dumps(codec.to_dict()))) == codec
