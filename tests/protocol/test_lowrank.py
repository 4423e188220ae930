"""Factors in the place of weights: what travels, what the server makes of it, and what it refuses."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.codec import pack, unpack
from protocol.compression import Codec, decode, encode
from protocol.errors import MissingWeightsError, NotFiniteError, SchemaError, ShapeError, UnexpectedWeightsError
from protocol.lowrank import LEFT, RIGHT, LowRank
from protocol.schema import WeightSchema

FULL = WeightSchema.of(
    {
        "block.0.fc.weight": np.zeros((6, 4), np.float32),
        "block.0.fc.bias": np.zeros(6, np.float32),
        "block.1.fc.weight": np.zeros((3, 8), np.float64),
        "block.0.norm.weight": np.zeros(4, np.float32),
        "head.weight": np.zeros((2, 4), np.float32),
        "words": np.zeros((50, 4), np.float32),
    }
)
ADAPTERS = LowRank(rank=2, factored=("block.*.fc.*",), whole=("head.*",))
CODEC = Codec(adapters=ADAPTERS)


def sent(seed=0, scale=1.0):
    generator = np.random.default_rng(seed)
    return {
        name: (generator.standard_normal(shape) * scale).astype(dtype) for name, shape, dtype in ADAPTERS.schema(FULL)
    }


def flat(weights):
    return encode(pack(weights, ADAPTERS.schema(FULL)), CODEC)


def test_factors_of_matrices_travel_and_what_is_named_whole_and_nothing_else():
    forms = {name: (shape, dtype) for name, shape, dtype in ADAPTERS.schema(FULL)}
    assert forms == {
        "block.0.fc.weight" + LEFT: ((6, 2), "float32"),
        "block.0.fc.weight" + RIGHT: ((2, 4), "float32"),
        "block.1.fc.weight" + LEFT: ((3, 2), "float64"),
        "block.1.fc.weight" + RIGHT: ((2, 8), "float64"),
        "head.weight": ((2, 4), "float32"),
    }


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_a_matrix_is_the_product_of_its_factors_and_what_is_frozen_does_not_move(seed):
    weights = sent(seed)
    found = unpack(decode(flat(weights), FULL, CODEC), FULL)
    for name in ("block.0.fc.weight", "block.1.fc.weight"):
        assert np.allclose(found[name], weights[name + LEFT] @ weights[name + RIGHT], rtol=1e-6)
    assert np.array_equal(found["head.weight"], weights["head.weight"])
    assert not any(found[name].any() for name in ("block.0.fc.bias", "block.0.norm.weight", "words"))


def test_the_mean_of_two_sites_is_that_of_their_products_and_not_the_product_of_their_means():
    one, other = sent(1), sent(2)
    name = "block.0.fc.weight"
    decoded = [unpack(decode(flat(weights), FULL, CODEC), FULL)[name] for weights in (one, other)]
    products = [weights[name + LEFT] @ weights[name + RIGHT] for weights in (one, other)]
    left, right = ((one[name + part] + other[name + part]) / 2 for part in (LEFT, RIGHT))
    assert np.allclose(np.mean(decoded, axis=0), np.mean(products, axis=0), rtol=1e-5)
    assert np.abs(np.mean(decoded, axis=0) - left @ right).max() > 0.1


def test_numbers_that_travel_are_those_of_the_closed_form():
    assert ADAPTERS.schema(FULL).flat_sizes == {"float32": 2 * (6 + 4) + 2 * 4, "float64": 2 * (3 + 8)}


def test_factors_go_through_every_codec():
    for kind, bound in (("bfloat16", 0.05), ("int8", 0.1)):
        codec = Codec(kind=kind, block=16, adapters=ADAPTERS)
        weights = sent()
        found = unpack(decode(encode(pack(weights, ADAPTERS.schema(FULL)), codec), FULL, codec), FULL)
        name = "block.0.fc.weight"
        assert np.abs(found[name] - weights[name + LEFT] @ weights[name + RIGHT]).max() < bound


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_factors_whose_product_is_no_number_are_refused(value):
    weights = sent()
    for part in (LEFT, RIGHT):
        weights["block.0.fc.weight" + part][0, 0] = value
    with pytest.raises(NotFiniteError, match=r"block\.0\.fc\.weight"):
        decode(flat(weights), FULL, CODEC)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda sent: {name: array for name, array in sent.items() if name == "float64"}, MissingWeightsError),
        (lambda sent: sent | {"float16": np.zeros(1, np.float16)}, UnexpectedWeightsError),
        (lambda sent: sent | {"float32": np.zeros(FULL.flat_sizes["float32"], np.float32)}, ShapeError),
        (lambda sent: sent | {"float32": sent["float32"][:-1]}, ShapeError),
    ],
)
def test_what_is_not_exactly_these_factors_is_refused(change, error):
    with pytest.raises(error):
        decode(change(flat(sent())), FULL, CODEC)


def test_a_model_without_any_such_matrix_is_refused():
    adapters = LowRank(rank=2, factored=("layer.*",), whole=())
    with pytest.raises(SchemaError, match="no weight of the model changes by an adapter"):
        adapters.schema(FULL)
