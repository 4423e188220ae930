import hashlib
import struct

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.codec import digest, pack, unpack
from protocol.errors import DtypeError, MissingWeightsError, SchemaError, ShapeError, UnexpectedWeightsError
from protocol.schema import WeightSchema

UNTIMED = settings(deadline=None, max_examples=50)

ARRAYS = st.sampled_from(["float16", "float32", "float64"]).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
WEIGHTS = st.dictionaries(st.text("abc._", min_size=1, max_size=6), ARRAYS, min_size=1, max_size=6)


def some_weights() -> dict[str, np.ndarray]:
    return {
        "b": np.arange(6, dtype="float32").reshape(2, 3),
        "a": np.ones(4, "float32"),
        "temp": np.float64(0.07).reshape(()),
    }


@UNTIMED
@given(WEIGHTS)
def test_what_is_packed_unpacks_to_the_same_bytes(weights):
    schema = WeightSchema.of(weights)
    unpacked = unpack(pack(weights, schema), schema)
    assert list(unpacked) == sorted(weights)
    for name, weight in weights.items():
        assert unpacked[name].shape == weight.shape
        assert unpacked[name].dtype == weight.dtype
        assert unpacked[name].tobytes() == weight.tobytes()


def test_there_is_one_flat_array_for_each_type():
    weights = some_weights()
    packed = pack(weights, WeightSchema.of(weights))
    assert {name: array.shape for name, array in packed.items()} == {"float32": (10,), "float64": (1,)}


def test_unpacked_tensors_are_views():
    weights = some_weights()
    schema = WeightSchema.of(weights)
    packed = pack(weights, schema)
    assert all(np.shares_memory(tensor, packed[str(tensor.dtype)]) for tensor in unpack(packed, schema).values())


def test_the_order_of_the_given_names_does_not_show():
    weights = some_weights()
    backwards = dict(reversed(weights.items()))
    assert WeightSchema.of(weights).digest == WeightSchema.of(backwards).digest
    assert WeightSchema.of(weights) == WeightSchema.of(backwards)


@pytest.mark.parametrize("array", [np.zeros(3, "int64"), np.zeros(2, bool), np.zeros(2, "complex64"), np.array(["x"])])
def test_a_tensor_that_is_not_floating_point_has_no_schema(array):
    with pytest.raises(SchemaError, match=r"cannot be averaged: steps .*keep counters"):
        WeightSchema.of({"steps": array, "w": np.zeros(2, "float32")})


def test_a_schema_in_another_order_is_refused():
    with pytest.raises(SchemaError, match="not sorted"):
        WeightSchema(names=("b", "a"), shapes=((), ()), dtypes=("float32", "float32"))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda w: w.pop("a"), MissingWeightsError, "1 arrays are missing: a"),
        (lambda w: w.update(z=np.zeros(1, "float32")), UnexpectedWeightsError, "1 arrays are not in the schema: z"),
        (lambda w: w.update(a=np.ones((1, 4), "float32")), ShapeError, r"a has shape \[1, 4\] instead of \[4\]"),
        (lambda w: w.update(a=np.ones(4, "float64")), DtypeError, "a is float64 instead of float32"),
        (lambda w: w.update(a=np.ones(4, ">f4")), DtypeError, "a is >f4 instead of float32"),
    ],
)
def test_weights_that_differ_from_the_schema_are_not_packed(change, error, message):
    weights = some_weights()
    schema = WeightSchema.of(weights)
    change(weights)
    with pytest.raises(error, match=message):
        pack(weights, schema)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda p: p.pop("float64"), MissingWeightsError),
        (lambda p: p.update(float16=np.zeros(1, "float16")), UnexpectedWeightsError),
        (lambda p: p.update(float32=p["float32"][:-1]), ShapeError),
        (lambda p: p.update(float32=p["float32"][None]), ShapeError),
        (lambda p: p.update(float64=np.zeros((), "float64")), ShapeError),
        (lambda p: p.update(float32=p["float32"].astype("float64")), DtypeError),
    ],
)
def test_flat_arrays_that_differ_from_the_schema_are_not_unpacked(change, error):
    weights = some_weights()
    schema = WeightSchema.of(weights)
    packed = pack(weights, schema)
    change(packed)
    with pytest.raises(error):
        unpack(packed, schema)


def test_the_digest_sees_a_single_bit_and_the_layout():
    weights = some_weights()
    schema = WeightSchema.of(weights)
    packed = pack(weights, schema)
    before = digest(packed, schema)
    assert digest({name: array.copy() for name, array in packed.items()}, schema) == before
    flipped = {**packed, "float32": np.nextafter(packed["float32"], np.float32(9))}
    assert digest(flipped, schema) != before
    turned = WeightSchema.of({**weights, "b": weights["b"].reshape(3, 2)})
    assert digest(packed, turned) != before


def test_the_digest_is_the_same_on_every_machine():
    schema = WeightSchema.of({"w": np.zeros(3, "float32")})
    by_hand = hashlib.sha256(b'[["w",[3],"float32"]]').hexdigest()
    assert schema.digest == by_hand
    expected = hashlib.sha256(by_hand.encode() + b"|float32:3|" + struct.pack("<3f", 1, 2, 3)).hexdigest()
    assert digest({"float32": np.array([1, 2, 3], "float32")}, schema) == expected
    assert digest({"float32": np.array([1, 2, 3], ">f4")}, schema) == expected
