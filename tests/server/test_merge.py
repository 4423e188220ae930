import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.schema import WeightSchema
from server.merge import StreamingMean, norm, slices

UNTIMED = settings(deadline=None, max_examples=50)

FLOATS = st.floats(-1e6, 1e6, width=32)


@st.composite
def updates(draw, least=1):
    count, width = draw(st.integers(least, 6)), draw(st.integers(0, 5))
    rows = draw(st.lists(st.lists(FLOATS, min_size=width, max_size=width), min_size=count, max_size=count))
    weights = draw(st.lists(st.integers(1, 10**6), min_size=count, max_size=count))
    return np.array(rows, "float32").reshape(count, width), weights


def merged(rows, weights):
    merge = StreamingMean(WeightSchema.of({"w": rows[0]}))
    for row, weight in zip(rows, weights, strict=True):
        merge.add({str(row.dtype): row}, int(weight))
    return merge.mean()[str(rows[0].dtype)]


@UNTIMED
@given(updates())
def test_the_streaming_mean_equals_numpys_weighted_average(case):
    rows, weights = case
    expected = np.average(rows.astype("float64"), axis=0, weights=weights)
    np.testing.assert_allclose(merged(rows, weights), expected, rtol=1e-12, atol=1e-9)


@UNTIMED
@given(updates())
def test_the_streaming_mean_is_the_exact_mean_rounded_once_or_twice(case):
    rows, weights = case
    exact = [
        sum(Fraction(float(x)) * w for x, w in zip(column, weights, strict=True)) / sum(weights) for column in rows.T
    ]
    np.testing.assert_allclose(merged(rows, weights), [float(x) for x in exact], rtol=4e-16, atol=1e-300)


@UNTIMED
@given(updates(least=2), st.randoms(use_true_random=False))
def test_the_order_of_arrival_changes_nothing(case, random):
    rows, weights = case
    order = list(range(len(rows)))
    random.shuffle(order)
    first, second = merged(rows, weights), merged(rows[order], [weights[i] for i in order])
    np.testing.assert_allclose(first, second, rtol=1e-12, atol=1e-12)
    assert np.array_equal(first.astype("float32"), second.astype("float32"))


def test_where_plain_summing_forgets_the_small_site_the_merge_does_not():
    rows = np.array([[1e8], [1.0], [-1e8]], "float32")
    weights = [10**9, 1, 10**9]
    assert merged(rows, weights)[0] * sum(weights) == pytest.approx(1.0, rel=1e-12)
    naive = rows[:, 0].astype("float64") * weights
    assert naive[0] + naive[1] + naive[2] != 1.0


@UNTIMED
@given(updates())
def test_the_mean_lies_between_the_smallest_and_the_largest_update(case):
    rows, weights = case
    mean = merged(rows, weights)
    assert np.all(mean >= np.nextafter(rows.min(axis=0).astype("float64"), -np.inf, dtype="float64"))
    assert np.all(mean <= np.nextafter(rows.max(axis=0).astype("float64"), np.inf, dtype="float64"))


@UNTIMED
@given(updates(least=2))
def test_no_site_moves_the_mean_by_more_than_its_share_of_the_examples(case):
    rows, weights = case
    without, share = merged(rows[1:], weights[1:]), weights[0] / sum(weights)
    moved = np.abs(merged(rows, weights) - without)
    np.testing.assert_array_less(moved, share * np.abs(rows[0] - without) * (1 + 1e-9) + 1e-9)


def test_an_update_longer_than_a_slice_is_merged_whole():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3, 150_001)).astype("float32")
    expected = np.average(rows.astype("float64"), axis=0, weights=[3, 1, 2])
    np.testing.assert_allclose(merged(rows, [3, 1, 2]), expected, rtol=1e-12, atol=1e-15)


def test_half_precision_updates_are_summed_in_double():
    rows = np.full((3, 2), 60_000, "float16")
    np.testing.assert_array_equal(merged(rows, [1, 1, 1]), [60_000, 60_000])


def test_adding_leaves_the_sites_update_as_it_was():
    rows = np.ones((2, 3), "float32")
    rows.flags.writeable = False
    merged(rows, [1, 2])


def test_the_norm_is_over_all_arrays_together():
    assert norm({"float32": np.full(70_000, 3, "float32"), "float64": np.full(70_000, 4.0)}) == pytest.approx(
        5 * math.sqrt(70_000), rel=1e-12
    )


@UNTIMED
@given(st.integers(0, 300_000))
def test_slices_cover_everything_once(size):
    parts = list(slices(size))
    assert sum(part.stop - part.start for part in parts) == size
    assert all(a.stop == b.start for a, b in itertools.pairwise(parts))
