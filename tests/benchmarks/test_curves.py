"""The curves that are measured, at sizes that take no time."""

import curves
import pytest
from growth.plot import TITLES

from client.privacy import loss_distribution


def test_every_curve_has_a_title_in_the_figure():
    assert set(TITLES) == {*curves.STEPS, *curves.ROUNDS, *curves.PLANS}


def test_patches_are_squares_of_whole_sides():
    assert all((side := round(patches**0.5)) ** 2 == patches and side > 1 for patches in curves.STEPS["patches"][1])


@pytest.mark.parametrize("name", curves.PARTS)
def test_a_rounds_curve_has_a_cost_a_size_and_a_turn_and_the_slope_of_each_part(name, tmp_path, monkeypatch):
    monkeypatch.setattr(curves, "VALUES", 1000)
    sizes = (1000, 2000) if name == "values" else (2, 3)
    found = curves.of_round(name, sizes, 2, tmp_path, curves.CLOCKS["wall"])
    assert [len(turn) for turn in found.turns] == [2, 2]
    assert all(cost > 0 for turn in found.turns for cost in turn)
    assert list(dict(found.facts)["parts"]) == list(curves.PARTS[name])
    assert list(tmp_path.iterdir()) == []


def test_no_plan_is_timed_that_was_made_before():
    seconds = curves.planner(curves.PLANS["plan_noise"], curves.CLOCKS["cpu"])
    for _ in range(2):
        assert seconds(2) > 0
        assert loss_distribution.composed.cache_info().misses > 0
