"""Slopes of costs that are known, and what counts as growing too fast."""

import pytest
from growth.slopes import Curve, in_turns, last_slope, slope
from hypothesis import given, settings
from hypothesis import strategies as st

SIZES = (2, 6, 20, 64)


def curve(*turns, **facts):
    return Curve(name="of", size="sites", cost="seconds", sizes=SIZES, turns=turns, **facts)


@settings(deadline=None)
@given(st.floats(-2, 3), st.floats(1e-6, 1e6))
def test_a_power_laws_slope_is_its_exponent_whatever_the_unit(exponent, unit):
    costs = [unit * size**exponent for size in SIZES]
    assert slope(SIZES, costs) == pytest.approx(exponent, abs=1e-9)
    assert last_slope(SIZES, costs) == pytest.approx(exponent, abs=1e-9)


def test_a_fixed_part_shows_less_at_the_largest_sizes():
    costs = [50 + size for size in SIZES]
    assert 0 < slope(SIZES, costs) < last_slope(SIZES, costs) < 1


def test_a_cost_that_turns_quadratic_at_the_end_is_told_by_the_last_slope():
    costs = [100, 100, 100, 100 * (64 / 20) ** 2]
    row = curve(costs).to_dict()
    assert row["slope"] < 1.15
    assert (row["last_slope"], row["met"]) == (2.0, False)


@pytest.mark.parametrize(("exponent", "met"), [(0.0, True), (1.0, True), (1.14, True), (1.16, False), (2.0, False)])
def test_linear_is_met_and_more_is_not(exponent, met):
    assert curve([size**exponent for size in SIZES]).to_dict()["met"] is met


def test_what_the_closed_form_asks_for_is_no_defect_and_costs_as_much_a_gflop_at_every_size():
    work = [size + size**2 / 20 for size in SIZES]
    row = curve([0.5 * gflop for gflop in work], work=work).to_dict()
    assert row["slope"] > 1.2
    assert (row["met"], row["excess"]) == (True, 0)
    assert (row["slope_per_gflop"], row["seconds_per_gflop"]) == (0, [0.5] * 4)


def test_work_that_hardly_grows_leaves_a_cost_that_does_linear():
    row = curve(list(SIZES), work=[10, 10, 10, 11]).to_dict()
    assert row["met"]
    assert row["slope_per_gflop"] > 0.9


def test_one_slow_turn_moves_the_range_and_not_the_slope():
    plain = [float(size) for size in SIZES]
    row = curve(plain, [1, 1, 1, 1e4], plain).to_dict()
    assert row["slope"] == 1
    assert row["slope_range"][0] == 1
    assert row["slope_range"][1] > 2


def test_sizes_take_turns():
    asked = []
    in_turns((1, 2), lambda size: asked.append(size) or 0.0, 3)
    assert asked == [1, 2, 1, 2, 1, 2]
