"""A plan in words says the plan's numbers, and never less than them."""

import dataclasses

import pytest

from client.privacy.own_runs import OwnRun, OwnRuns
from client.privacy.plan import PlanRequest
from client.privacy.plan_text import rows
from client.privacy.planner import compute


@pytest.fixture(scope="module")
def plan():
    return compute(
        PlanRequest(patients=5000, batch=64, steps=50, rounds=100, noise_multiplier=1.0, delta=1e-5, cap=5.576)
    )


RUN = OwnRun(
    run="privacy-1",
    arm="warm-3",
    data="synthetic",
    sites=2,
    images_a_site=400.0,
    seeds=3,
    epsilon=3.0,
    delta=1e-4,
    noise_multiplier=2.2,
    accuracy=0.41,
    accuracy_ci95=(0.35, 0.47),
    answers=600,
    retrieval_at_5=0.2,
    retrieval_at_5_seeds=(0.18, 0.21),
    without_noise={"infinity": 0.5},
)


def answers(plan, runs=(), problems=(), **changes):
    return dict(rows(dataclasses.replace(plan, **changes), OwnRuns(found=tuple(runs), problems=tuple(problems))))


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
    assert answers(plan)["accuracy"].startswith("no runs yet: ")


def test_own_runs_come_with_their_interval_the_sites_size_and_what_they_had_without_noise(plan):
    lines = answers(plan, runs=[RUN])["accuracy"].splitlines()
    assert lines[0] == (
        "epsilon 3 at delta 0.0001: 41.0 % of 600 answers right (95 %: 35.0 % to 47.0 %); caption among the first 5 "
        "20.0 % (18.0 % to 21.0 % by seed); warm-3 in privacy-1, 2 synthetic sites of 400 images, 3 seeds"
    )
    assert lines[1] == "without noise in privacy-1: 50.0 % infinity"
    assert "not this site's" in lines[2]


def test_a_run_without_retrieval_and_of_one_seed_says_neither(plan):
    one = dataclasses.replace(RUN, seeds=1, retrieval_at_5=None, retrieval_at_5_seeds=None, without_noise={})
    text = answers(plan, runs=[one])["accuracy"]
    assert "47.0 %); warm-3" in text
    assert text.splitlines()[0].endswith("1 seed")
    assert "without noise" not in text


def test_reports_that_were_left_out_are_named(plan):
    text = answers(plan, problems=[f"{number}.json: broken" for number in range(5)])["accuracy"]
    assert "left out, 2.json: broken\nleft out, and 2 reports more" in text


def test_a_life_time_that_leaves_no_room_says_so(plan):
    assert "leaves no room" in answers(plan, noise_over_cap=())["noise for other caps"]
