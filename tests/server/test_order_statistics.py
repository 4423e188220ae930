"""The sorting network, by the 0-1 principle, and the means of what lies in the middle, against numpy and fractions."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.order_statistics import middle_mean, network, sort_rows
from server.spool import BLOCK
from tests.server.spooled import in_memory, spooled

UNTIMED = settings(deadline=None, max_examples=60)


@pytest.mark.parametrize("count", range(1, 15))
def test_the_network_sorts_every_row_of_noughts_and_ones_and_so_any_values(count):
    cases = ((np.arange(2**count) >> np.arange(count)[:, None]) & 1).astype("float32")
    found = sort_rows([*cases.copy(), np.empty(2**count, "float32")])
    assert (np.array(found) == np.sort(cases, axis=0)).all()


def test_the_network_is_batchers():
    assert [len(network(count)) for count in (1, 2, 3, 4, 8, 16, 32)] == [0, 1, 3, 5, 19, 63, 191]


@pytest.mark.parametrize("count", [1, 2, 3, 8, 33])
@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_medians_are_numpys(tmp_path, count, kind):
    rows = np.random.default_rng(count).normal(size=(count, BLOCK + 1001)).astype(kind)
    found = middle_mean(spooled(tmp_path, list(rows)), (count - 1) // 2)[kind]
    expected = np.median(rows.astype("float64"), axis=0)
    assert (found == expected.astype(found.dtype)).all()


@UNTIMED
@given(st.integers(1, 9), st.data())
def test_trimmed_means_are_the_exact_ones_rounded(count, data):
    cut = data.draw(st.integers(0, (count - 1) // 2))
    column = data.draw(
        st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=count, max_size=count)
    )
    found = middle_mean(in_memory([np.array([value], "float32") for value in column]), cut)["float32"][0]
    kept = sorted(map(Fraction, column))[cut : count - cut]
    assert found == pytest.approx(
        float(sum(kept) / len(kept)), rel=2**-23, abs=2**-120 + 2**-50 * float(max(map(abs, kept)))
    )
    assert float(kept[0]) <= found <= float(kept[-1])


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_the_largest_numbers_there_are_have_a_finite_median(kind):
    largest = np.finfo(kind).max
    found = middle_mean(in_memory([np.array([largest, -largest], kind)] * 4), 1)[kind]
    assert found.tolist() == [largest, -largest]


def test_there_is_one_zero_in_whichever_order_two_come():
    zeros = [np.array([value], "float32") for value in (0.0, -0.0, -0.0)]
    means = [middle_mean(in_memory([zeros[i] for i in order]), 1)["float32"] for order in ([0, 1, 2], [2, 1, 0])]
    assert [mean.tobytes() for mean in means] == [bytes(4)] * 2
