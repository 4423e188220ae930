"""Inner products and distances of updates, against numpy."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from server import geometry
from server.geometry import inner_products, squared_distances
from server.spool import BLOCK
from tests.server.spooled import spooled


@pytest.mark.parametrize("size", [0, 1, BLOCK, 3 * BLOCK + 17])
def test_inner_products_are_those_of_numpy(tmp_path, size):
    rng = np.random.default_rng(size)
    rows = [rng.normal(size=size).astype("float32") for _ in range(5)]
    stacked = np.array(rows, "float64")
    np.testing.assert_allclose(inner_products(spooled(tmp_path, rows)), stacked @ stacked.T, rtol=1e-12, atol=1e-9)


def test_other_arrays_come_after_the_updates_and_all_types_count(tmp_path):
    rng = np.random.default_rng(0)
    packed = [{"float32": rng.normal(size=70_000).astype("float32"), "float64": rng.normal(size=9)} for _ in range(4)]
    stacked = np.array([np.concatenate([arrays["float32"], arrays["float64"]]) for arrays in packed])
    found = inner_products(spooled(tmp_path, packed[:3]), packed[3:])
    np.testing.assert_allclose(found, stacked @ stacked.T, rtol=1e-12, atol=1e-9)


def test_squares_of_float32_values_do_not_overflow(tmp_path):
    found = inner_products(spooled(tmp_path, [np.full(8, 1e38, "float32"), np.ones(8, "float32")]))
    np.testing.assert_allclose(found, [[8e76, 8e38], [8e38, 8]], rtol=1e-6)


def test_an_update_whose_square_overflows_is_infinitely_far_and_hides_no_other_distance(tmp_path):
    rows = [np.array([1e200, -1e200]), np.array([1.0, 0.0]), np.array([0.0, 1.0])]
    far = squared_distances(inner_products(spooled(tmp_path, rows)))
    np.testing.assert_allclose(far, [[0, np.inf, np.inf], [np.inf, 0, 2], [np.inf, 2, 0]])


def test_distances_of_equal_updates_are_never_below_nought():
    row = np.random.default_rng(1).normal(size=1000)
    assert (squared_distances(np.outer([1, 1, 1], [1, 1, 1]) * (row @ row)) == 0).all()


def test_the_pass_has_the_only_threads_so_that_products_wait_for_no_others(tmp_path, monkeypatch):
    seen = []
    sweep = geometry.sweep
    monkeypatch.setattr(geometry, "sweep", lambda *args: (seen.append(blas_threads()), sweep(*args))[1])
    with threadpool_limits(2, user_api="blas"):
        inner_products(spooled(tmp_path, [np.ones(8, "float32")] * 2))
        assert (seen, blas_threads()) == ([{1}], {2})


def blas_threads():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}
