from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import DtypeError, NotFiniteError, ShapeError
from protocol.secagg import fixed_point
from protocol.secagg.errors import RangeError
from protocol.secagg.fixed_point import BLOCK, FixedPoint, choose, decode, encode, worst_error
from protocol.secagg.packed import encode_packed, unpack_mean

UNTIMED = settings(deadline=None, max_examples=100)
CLIPS = st.floats(1e-6, 1e6)
WEIGHTS = st.lists(st.integers(1, 2**40), min_size=3, max_size=20)
FORMATS = st.sampled_from([(bits, rounding) for bits in (32, 64) for rounding in ("nearest", "stochastic")])


def finest(clip, weights, bits, rounding):
    return fixed_point._finest(clip, bits, len(weights), rounding)


def integers(values, fixed, share, seed=0):
    words = np.empty(len(values), fixed.dtype)
    encode(np.asarray(values), words, fixed, share, np.random.default_rng(seed))
    return words.view(f"<i{fixed.word_bits // 8}").tolist()


@UNTIMED
@given(CLIPS, WEIGHTS, FORMATS, st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=8), st.data())
def test_the_mean_of_any_survivors_is_within_the_bound_of_the_exact_one(clip, weights, format_, shape, data):
    fixed = finest(clip, weights, *format_)
    survivors = data.draw(st.sets(st.integers(0, len(weights) - 1), min_size=1), label="survivors")
    total, kept = sum(weights), sum(weights[i] for i in survivors)
    generator = np.random.default_rng(len(weights))
    words = np.zeros(len(shape), fixed.dtype)
    exact = [Fraction(0)] * len(shape)
    for i in survivors:
        values = (np.array(shape, np.float32) * generator.uniform(-1.5, 1.5) * clip).astype(np.float32)
        part = np.empty(len(values), fixed.dtype)
        encode(values, part, fixed, Fraction(weights[i], total), generator)
        words += part
        clipped = [max(-Fraction(clip), min(Fraction(clip), Fraction(float(v)))) for v in values]
        exact = [e + Fraction(weights[i], kept) * v for e, v in zip(exact, clipped, strict=True)]
    mean = decode(words, fixed, Fraction(kept, total))
    bound = fixed.error_bound(len(survivors), Fraction(kept, total))
    assert max(abs(Fraction(float(m)) - e) for m, e in zip(mean, exact, strict=True)) <= Fraction(bound)


@UNTIMED
@given(CLIPS, WEIGHTS, FORMATS, st.sampled_from([-1.0, 1.0]))
def test_the_sum_of_the_largest_updates_does_not_wrap(clip, weights, format_, sign):
    fixed = finest(clip, weights, *format_)
    largest = np.array([sign * 3e38], np.float32)
    total = sum(integers(largest, fixed, Fraction(w, sum(weights)))[0] for w in weights)
    assert abs(total) < 2 ** (fixed.word_bits - 1)
    assert abs(total) * fixed.step >= clip * (1 - 1e-6)


@UNTIMED
@given(CLIPS, WEIGHTS)
def test_one_fraction_bit_more_than_the_finest_is_refused(clip, weights):
    for bits in (32, 64):
        fixed = finest(clip, weights, bits, "nearest")
        fixed.check_no_wrap(len(weights))
        finer = FixedPoint(clip=clip, fraction_bits=fixed.fraction_bits + 1, word_bits=bits, rounding="nearest")
        with pytest.raises(RangeError, match="use fewer fraction bits"):
            finer.check_no_wrap(len(weights))


def test_large_weights_cost_no_precision():
    few = choose(clip=1.0, tolerance=1e-6, weights=[1, 1, 1], threshold=2)
    many = choose(clip=1.0, tolerance=1e-6, weights=[2**40] * 3, threshold=2)
    assert few == many
    assert few.word_bits == 32


def test_words_are_as_short_as_the_tolerance_allows():
    weights = [100, 200, 300, 400]
    assert choose(clip=1.0, tolerance=1e-8, weights=weights, threshold=3).word_bits == 32
    assert choose(clip=1.0, tolerance=1e-9, weights=weights, threshold=3).word_bits == 64
    with pytest.raises(RangeError, match="even in 64 bits; allow more, or clip below 1"):
        choose(clip=1.0, tolerance=1e-17, weights=weights, threshold=3)


def test_a_light_set_of_survivors_makes_the_worst_error():
    fixed = choose(clip=1.0, tolerance=1e-3, weights=[1, 1, 10**6], threshold=2)
    assert worst_error(fixed, [1, 1, 10**6], 2) > 10**5 * worst_error(fixed, [1, 1, 1], 2)
    assert choose(clip=1.0, tolerance=1e-6, weights=[1, 1, 10**6], threshold=2).word_bits == 64


def test_the_stated_bound_is_within_a_factor_of_the_error_that_is_seen():
    fixed = choose(clip=1.0, tolerance=1e-6, weights=[1, 1, 1], threshold=2)
    generator = np.random.default_rng(0)
    update = [generator.uniform(-1, 1, 100_000).astype(np.float32) for _ in range(3)]
    words = np.zeros(100_000, fixed.dtype)
    for values in update:
        part = np.empty_like(words)
        encode(values, part, fixed, Fraction(1, 3))
        words += part
    exact = sum(values.astype(np.longdouble) for values in update) / 3
    error = float(np.abs(decode(words, fixed, Fraction(1)) - exact).max())
    bound = fixed.error_bound(3, Fraction(1))
    assert bound / 3 < error <= bound


@pytest.mark.parametrize("bits", [32, 64])
def test_halves_round_to_even_and_negatives_like_positives(bits):
    fixed = FixedPoint(clip=8.0, fraction_bits=1, word_bits=bits, rounding="nearest")
    values = np.array([0.25, 0.75, 1.25, -0.25, -0.75, -1.25, 0.3, -0.3, 0.0, -0.0], np.float64)
    assert integers(values, fixed, Fraction(1)) == [0, 2, 2, 0, -2, -2, 1, -1, 0, 0]


def test_stochastic_rounding_is_unbiased_within_five_standard_errors():
    fixed = FixedPoint(clip=8.0, fraction_bits=0, word_bits=32, rounding="stochastic")
    count = 400_000
    for value in (0.3, -0.3, 2.9, -1.0, 0.0):
        found = np.array(integers(np.full(count, value), fixed, Fraction(1)))
        assert set(found.tolist()) <= {int(np.floor(value)), int(np.floor(value)) + 1}
        share = value - np.floor(value)
        assert abs(found.mean() - value) <= 5 * np.sqrt(share * (1 - share) / count) + 1e-15


def test_nearest_rounding_of_one_value_many_times_is_biased_as_it_must_be():
    fixed = FixedPoint(clip=8.0, fraction_bits=0, word_bits=32, rounding="nearest")
    assert set(integers(np.full(100, 0.3), fixed, Fraction(1))) == {0}


def test_stochastic_rounding_repeats_with_its_generator_and_is_refused_without():
    fixed = FixedPoint(clip=8.0, fraction_bits=0, word_bits=32, rounding="stochastic")
    values = np.linspace(-3, 3, 1001)
    assert integers(values, fixed, Fraction(1), seed=1) == integers(values, fixed, Fraction(1), seed=1)
    assert integers(values, fixed, Fraction(1), seed=1) != integers(values, fixed, Fraction(1), seed=2)
    with pytest.raises(RangeError, match="pass a random generator"):
        encode(values, np.empty(1001, fixed.dtype), fixed, Fraction(1))


@pytest.mark.parametrize("place", [0, BLOCK - 1, BLOCK, 2 * BLOCK + 2])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_wherever_it_is(value, place):
    values = np.zeros(2 * BLOCK + 3, np.float32)
    values[place] = value
    fixed = FixedPoint(clip=1.0, fraction_bits=30, word_bits=32, rounding="nearest")
    with pytest.raises(NotFiniteError, match="cannot be masked"):
        encode(values, np.empty(len(values), fixed.dtype), fixed, Fraction(1))


def test_what_is_beyond_the_clip_range_is_cut_and_counted_over_all_blocks():
    values = np.zeros(2 * BLOCK + 3, np.float32)
    values[[0, BLOCK, -1]], values[5] = [1.5, -7.0, 3.4e38], 1.0
    fixed = FixedPoint(clip=1.0, fraction_bits=8, word_bits=32, rounding="nearest")
    words = np.empty(len(values), fixed.dtype)
    assert encode(values, words, fixed, Fraction(1)) == 3
    assert words.view("<i4")[[0, 5, BLOCK, -1]].tolist() == [256, 256, -256, 256]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_values_of_each_type_are_taken_exactly(dtype):
    fixed = FixedPoint(clip=1.0, fraction_bits=50, word_bits=64, rounding="nearest")
    values = np.random.default_rng(0).uniform(-1, 1, 1000).astype(dtype)
    expected = [round(Fraction(float(v)) * 2**50) for v in values]
    assert integers(values, fixed, Fraction(1)) == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"clip": 0.0},
        {"clip": -1.0},
        {"clip": float("nan")},
        {"clip": float("inf")},
        {"fraction_bits": 513},
        {"word_bits": 16},
        {"word_bits": 33},
        {"rounding": "down"},
    ],
    ids=str,
)
def test_a_format_that_is_none_is_refused(fields):
    with pytest.raises(RangeError):
        FixedPoint(**{"clip": 1.0, "fraction_bits": 8, "word_bits": 32, "rounding": "nearest"} | fields)


# Packed updates.


FIXED = FixedPoint(clip=8.0, fraction_bits=4, word_bits=32, rounding="nearest")


def test_the_arrays_of_an_update_stand_in_the_order_of_their_types():
    arrays = {"float64": np.array([3.0]), "float16": np.array([1.0, 2.0], np.float16)}
    words, clipped = encode_packed(arrays, 3, FIXED, Fraction(1))
    assert (words.tolist(), clipped) == ([16, 32, 48], 0)
    back = unpack_mean(decode(words, FIXED, Fraction(1)), {"float16": 2, "float64": 1})
    assert {name: (str(a.dtype), a.tolist()) for name, a in back.items()} == {
        "float16": ("float16", [1.0, 2.0]),
        "float64": ("float64", [3.0]),
    }


@pytest.mark.parametrize(
    ("arrays", "error"),
    [
        ({"float32": np.zeros(2, np.float32)}, ShapeError),
        ({"float32": np.zeros((3, 1), np.float32)}, ShapeError),
        ({"float32": np.zeros(3)}, DtypeError),
        ({"int32": np.zeros(3, np.int32)}, DtypeError),
    ],
)
def test_an_update_of_another_size_or_type_is_refused(arrays, error):
    with pytest.raises(error):
        encode_packed(arrays, 3, FIXED, Fraction(1))


def test_a_mean_of_another_size_is_refused():
    with pytest.raises(ShapeError):
        unpack_mean(np.zeros(4), {"float32": 3})
