"""The weighted mean of updates on the disk: against exact fractions, numpy and Flower."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from hypothesis import given, settings
from hypothesis import strategies as st

from server.merge import all_finite, combination, difference, error_bound, norm, slices, weighted_mean
from server.spool import BLOCK
from tests.server.spooled import in_memory, spooled

UNTIMED = settings(deadline=None, max_examples=60)
KINDS = st.sampled_from(["float16", "float32", "float64"])


@st.composite
def cases(draw, least=1, most=6):
    """Rows of one type, from the smallest numbers it has to the largest, and weights."""
    kind, count, width = draw(KINDS), draw(st.integers(least, most)), draw(st.integers(1, 5))
    values = st.floats(width=np.dtype(kind).itemsize * 8, allow_nan=False, allow_infinity=False)
    near = st.floats(-1, 1, width=np.dtype(kind).itemsize * 8)
    rows = draw(st.lists(st.lists(values | near, min_size=width, max_size=width), min_size=count, max_size=count))
    weights = draw(st.lists(st.integers(1, 10**6) | st.floats(2**-10, 2**10, width=32), min_size=count, max_size=count))
    return np.array(rows, kind).reshape(count, width), weights


def merged(rows, weights):
    updates = in_memory(rows)
    return weighted_mean(updates, weights)[rows.dtype.name]


def exact(rows, weights):
    shares = [Fraction(weight) / sum(map(Fraction, weights)) for weight in weights]
    return [sum(share * Fraction(float(x)) for share, x in zip(shares, column, strict=True)) for column in rows.T]


def bound(rows, weights):
    shares = [weight / math.fsum(weights) for weight in weights]
    return Fraction(float(error_bound(in_memory(rows), shares, rows.dtype.name)[0]))


@UNTIMED
@given(cases(least=2))
def test_the_mean_is_the_exact_one_within_the_bound_that_is_stated(case):
    rows, weights = case
    found = merged(rows, weights)
    assert found.dtype == (np.float64 if rows.dtype == np.float64 else np.float32)
    limit = bound(rows, weights)
    for value, true in zip(found, exact(rows, weights), strict=True):
        assert abs(Fraction(float(value)) - true) <= limit


@pytest.mark.parametrize("count", [2, 32, 256, 600])
def test_the_mean_is_as_exact_of_256_sites_as_of_two_and_loses_no_more_than_the_words_lack(count):
    rows, weights = np.random.default_rng(count).normal(size=(count, 3)).astype("float32"), [1] * count
    peak = np.abs(rows).max()
    limit = bound(rows, weights)
    assert limit <= 1.8 * 2**-22 * max(1, count / 256) * float(peak)
    for value, true in zip(merged(rows, weights), exact(rows, weights), strict=True):
        assert abs(Fraction(float(value)) - true) <= limit


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
@pytest.mark.parametrize("size", [0, 1, BLOCK, 9 * BLOCK + 17])
def test_updates_of_any_length_are_merged_whole_as_numpy_does(tmp_path, kind, size):
    rng = np.random.default_rng(size)
    rows, weights = rng.normal(size=(3, size)).astype(kind), [3, 1, 2.5]
    found = weighted_mean(spooled(tmp_path, list(rows)), weights)[kind]
    expected = np.average(rows.astype("float64"), axis=0, weights=weights)
    np.testing.assert_allclose(found, expected, rtol=0, atol=5 * (2**-51 if kind == "float64" else 2**-22))


def test_every_block_has_a_grid_of_its_own(tmp_path):
    scales = np.repeat(np.array([1e-20, 1e20, 0.0, 1.0]), BLOCK)[: 3 * BLOCK + 9]
    rows = [(np.random.default_rng(i).normal(size=scales.size) * scales).astype("float32") for i in range(3)]
    found = weighted_mean(spooled(tmp_path, rows), [1, 2, 3])["float32"]
    off = np.abs(found - np.average(np.array(rows, "float64"), axis=0, weights=[1, 2, 3]))
    assert (off <= 2**-22 * 5 * scales).all()


def test_flower_merges_the_same_values_to_the_same_mean(tmp_path):
    rng = np.random.default_rng(0)
    rows, weights = [rng.normal(size=100_000).astype("float32") for _ in range(5)], [10, 1, 7, 30, 2]
    records = [
        RecordDict({"arrays": ArrayRecord({"w": Array(row)}), "metrics": MetricRecord({"num-examples": weight})})
        for row, weight in zip(rows, weights, strict=True)
    ]
    theirs = aggregate_arrayrecords(records, "num-examples")["w"].numpy()
    np.testing.assert_allclose(weighted_mean(spooled(tmp_path, rows), weights)["float32"], theirs, rtol=0, atol=2e-6)


@UNTIMED
@given(cases(least=2), st.randoms(use_true_random=False))
def test_the_order_of_the_sites_changes_no_bit(case, random):
    rows, weights = case
    order = list(range(len(rows)))
    random.shuffle(order)
    assert merged(rows, weights).tobytes() == merged(rows[order], [weights[i] for i in order]).tobytes()


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_no_bit(tmp_path, monkeypatch, threads):
    rows = [np.random.default_rng(i).normal(size=12 * BLOCK + 1).astype("float32") for i in range(3)]
    updates = spooled(tmp_path, rows)
    expected = weighted_mean(updates, [1, 2, 3])["float32"]
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(threads)))
    monkeypatch.setattr("server.sweep._VALUES", 1 << 18)
    assert weighted_mean(updates, [1, 2, 3])["float32"].tobytes() == expected.tobytes()


@UNTIMED
@given(cases())
def test_the_mean_of_equal_updates_is_the_update(case):
    rows, weights = case
    equal = np.repeat(rows[:1], len(rows), axis=0)
    off = np.abs(merged(equal, weights).astype("longdouble") - rows[0].astype("longdouble"))
    assert (off <= (float(bound(equal, weights)) if len(rows) > 1 else 0)).all()


@UNTIMED
@given(cases(least=2))
def test_no_site_moves_the_mean_by_more_than_its_share(case):
    rows, weights = case
    share = Fraction(weights[0]) / sum(map(Fraction, weights))
    slack = bound(rows, weights) + bound(rows[1:], weights[1:])
    for value, without, own in zip(merged(rows, weights), merged(rows[1:], weights[1:]), rows[0], strict=True):
        value, without, own = Fraction(float(value)), Fraction(float(without)), Fraction(float(own))
        assert abs(value - without) <= share * abs(own - without) + slack


def test_the_largest_numbers_there_are_have_a_finite_mean():
    for kind in ("float32", "float64"):
        largest = np.finfo(kind).max
        found = merged(np.full((3, 2), largest, kind), [1, 1, 1])
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found / largest, 1, rtol=1e-6)


def test_nothing_is_nothing_however_many_say_so():
    assert merged(np.zeros((300, 7), "float32"), [1] * 300).tobytes() == bytes(28)


def test_shares_that_come_to_less_than_one_shorten_the_mean():
    rows = np.array([[1.0], [3.0]])
    np.testing.assert_allclose(combination(in_memory(rows), [0.25, 0.25])["float64"], [1.0], rtol=1e-15)


@UNTIMED
@given(cases(least=2, most=8), st.data())
def test_of_any_mix_of_honest_and_refused_updates_the_honest_ones_are_merged(case, data):
    rows, weights = case
    kept = sorted(data.draw(st.sets(st.integers(0, len(rows) - 1), min_size=1)))
    updates = in_memory(rows)
    found = weighted_mean([updates[i] for i in kept], [weights[i] for i in kept])[rows.dtype.name]
    expected = merged(rows[kept], [weights[i] for i in kept])
    assert found.tobytes() == expected.tobytes()
    limit = bound(rows[kept], [weights[i] for i in kept])
    for value, true in zip(found, exact(rows[kept], [weights[i] for i in kept]), strict=True):
        assert abs(Fraction(float(value)) - true) <= limit


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


def test_what_is_asked_of_all_numbers_finds_one_at_any_place_of_several_parts():
    arrays = {"float32": np.zeros(2 * 8 * BLOCK + 5, "float32"), "float64": np.zeros(3)}
    assert all_finite(arrays)
    assert norm(arrays) == 0
    for place in (0, BLOCK, 8 * BLOCK - 1, 8 * BLOCK, 16 * BLOCK + 4):
        changed = {**arrays, "float32": arrays["float32"].copy()}
        changed["float32"][place] = 3
        assert norm(changed) == 3
        left = difference(changed, arrays)["float32"]
        assert np.flatnonzero(left).tolist() == [place]
        for bad in (np.nan, np.inf):
            changed["float32"][place] = bad
            assert not all_finite(changed)
