"""A plan in words says the plan's numbers, and never less than them."""

import dataclasses

import pytest

from client.privacy.plan import PlanRequest
from client.privacy.plan_text import rows
from client.privacy.planner import compute


@pytest.fixture(scope="module")
def plan():
    return compute(
        PlanRequest(patients=5000, batch=64, steps=50, rounds=100, noise_multiplier=1.0, delta=1e-5, cap=5.576)
    )


def answers(plan, **changes):
    return dict(rows(dataclasses.replace(plan, **changes)))


def test_both_epsilons_come_with_their_accountants_and_why_they_differ(plan):
    text = answers(plan)["epsilon, this plan"]
    assert "5.576 by PLD (dp-accounting" in text
    assert "6.071 by RDP (dp-accounting" in text
    assert "fixed beforehand" in text


def test_a_cap_is_explained_by_the_step_and_the_refused_round(plan):
    assert "4,275 of 5,000 steps" in answers(plan)["where it stops"]
    assert "round 86 is refused" in answers(plan)["where it stops"]


def test_no_cap_and_a_cap_that_holds_are_told_apart(plan):
    assert "no cap" in answers(plan, cap=None, stops_at_step=None, stops_at_round=None)["where it stops"]
    assert (
        "fits under the cap of 9" in answers(plan, cap=9.0, stops_at_step=None, stops_at_round=None)["where it stops"]
    )


def test_an_attackers_gain_is_rounded_up(plan):
    text = answers(plan, true_positive_rate=0.12301, posterior=0.99601)["what an attacker gains"]
    assert "at most 12.4 %" in text
    assert "at most 99.7 % sure" in text
    assert "at most 100.0 % sure" in answers(plan, posterior=0.99999)["what an attacker gains"]
    assert "at most 12.3 %" in answers(plan, true_positive_rate=0.123)["what an attacker gains"]


def test_accuracy_is_not_invented_where_nothing_was_run_here(plan):
    assert "no runs here yet" in answers(plan)["accuracy"]
    assert answers(plan, own_runs=((3.0, 0.41), (8.0, 0.52)))["accuracy"] == "41.0 % at epsilon 3, 52.0 % at epsilon 8"


def test_a_life_time_that_leaves_no_room_says_so(plan):
    assert "leaves no room" in answers(plan, noise_over_cap=())["noise for other caps"]
