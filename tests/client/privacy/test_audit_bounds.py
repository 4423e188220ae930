"""Lower bounds against closed forms, other programs' numbers, and many simulated audits."""

import math

import numpy as np
import pytest
from scipy import stats

from client.privacy import audit_bounds as bounds
from client.privacy.accounting import epsilon_pld
from client.privacy.errors import PlanError
from client.privacy.event import Event

DELTA = 1e-5


def scores(mu, count, rng):
    return rng.normal(mu, 1, count), rng.normal(0, 1, count)


@pytest.mark.parametrize("noise", [0.3, 1.0, 4.0])
def test_the_epsilon_of_a_gaussian_is_that_of_the_accountant(noise):
    event = Event(sample_rate=1.0, noise_multiplier=noise, steps=1)
    assert bounds.gaussian_epsilon(1 / noise, DELTA) == pytest.approx(epsilon_pld([event], DELTA), rel=1e-3)


def test_epsilon_at_the_ends_of_mu():
    assert bounds.gaussian_epsilon(0.0, DELTA) == 0
    assert bounds.gaussian_epsilon(1e-9, DELTA) == 0
    assert bounds.gaussian_epsilon(1e8, DELTA) == 1000
    with pytest.raises(PlanError):
        bounds.gaussian_epsilon(1.0, 0.0)


@pytest.mark.parametrize("effect", [0.3, 1.0, 2.0, 5.0])
def test_the_bound_on_mu_is_that_of_the_noncentral_t(effect):
    mu = bounds.mu_lower_bound(effect, 1010, 990, 0.99)
    root = math.sqrt(1 / 1010 + 1 / 990)
    assert stats.nct.sf(effect / root, 1998, mu / root) == pytest.approx(0.01, rel=0.25)
    assert mu < effect


def test_no_effect_bounds_nothing():
    assert bounds.mu_lower_bound(-0.2, 100, 100, 0.95) == 0
    assert bounds.mu_lower_bound(0.01, 100, 100, 0.95) == 0


@pytest.mark.parametrize("mu", [0.5, 1.0, 3.0])
def test_the_bound_on_mu_is_above_the_truth_as_often_as_it_says(mu):
    rng = np.random.default_rng(0)
    above = sum(
        bounds.mu_lower_bound(bounds.effect_size(*scores(mu, 500, rng)), 500, 500, 0.9) > mu for _ in range(2000)
    )
    assert stats.binom.cdf(above, 2000, 0.1) > 1e-3
    assert stats.binom.sf(above - 1, 2000, 0.1) > 1e-3


def test_the_band_of_the_effect_holds_as_often_as_it_says():
    rng = np.random.default_rng(1)
    event = Event(sample_rate=0.125, noise_multiplier=1.0, steps=50)
    expected, root = bounds.expected_effect(event), math.sqrt(50)
    band = bounds.two_sided(0.9, 1) * bounds.effect_deviation(expected, 400, 400)
    missed = 0
    for _ in range(1500):
        inside = rng.binomial(50, 0.125, 400) + root * rng.normal(size=400)
        missed += abs(bounds.effect_size(inside, root * rng.normal(size=400)) - expected) > band
    assert stats.binom.cdf(missed, 1500, 0.1) > 1e-3
    assert stats.binom.sf(missed - 1, 1500, 0.1) > 1e-3


def test_the_expected_effect_of_one_step_is_one_over_the_noise_and_grows_as_the_root_of_the_steps():
    assert bounds.expected_effect(Event(sample_rate=1.0, noise_multiplier=4.0, steps=1)) == 0.25
    one, nine = (bounds.expected_effect(Event(sample_rate=0.1, noise_multiplier=2.0, steps=n)) for n in (1, 9))
    assert nine == pytest.approx(3 * one)


def test_one_run_without_delta_is_the_binomial_bound():
    epsilon = bounds.one_run_epsilon(90, 100, 1000, 1e-300, 0.95)
    assert stats.binom.sf(89, 100, 1 / (1 + math.exp(-epsilon))) == pytest.approx(0.05, rel=1e-6)


@pytest.mark.parametrize(
    ("correct", "guesses", "delta", "expected"),
    # By a plain transcription of the program in appendix D of arXiv 2305.08846, for 1,000 canaries.
    [(75, 100, 1e-5, 0.6995), (100, 100, 1e-5, 3.4654), (900, 1000, 1e-5, 2.0206), (500, 1000, 0.5, 0.0)],
)
def test_one_run_numbers(correct, guesses, delta, expected):
    assert bounds.one_run_epsilon(correct, guesses, 1000, delta, 0.95) == pytest.approx(expected, abs=1e-3)


def test_one_run_bounds_of_randomised_response_are_above_the_truth_as_often_as_it_says():
    rng, right = np.random.default_rng(2), 1 / (1 + math.exp(-1.0))
    found = [bounds.one_run_epsilon(int(n), 200, 200, 1e-12, 0.9) for n in rng.binomial(200, right, 400)]
    above = sum(epsilon > 1.0 for epsilon in found)
    assert stats.binom.sf(above - 1, 400, 0.1) > 1e-3
    assert np.mean(found) > 0.7


def test_guesses_that_cannot_be_are_refused():
    with pytest.raises(PlanError, match="101 of 100 guesses"):
        bounds.one_run_epsilon(101, 100, 1000, DELTA, 0.95)


def test_the_highest_are_called_in_and_the_lowest_out():
    inside, outside = np.array([5.0, 4.0, -9.0]), np.array([-5.0, -4.0, 0.0])
    assert bounds.guess_right(inside, outside, 4) == 3
    assert bounds.guess_right(inside, outside, 0) == 0


def test_normals_are_as_far_from_normal_as_is_allowed_and_uniforms_further():
    rng = np.random.default_rng(3)
    gap = bounds.normal_gap(0.99, 1, 2000)
    assert all(bounds.distance_from_normal(rng.normal(7, 3, 2000)) < gap for _ in range(50))
    assert bounds.distance_from_normal(rng.random(2000)) > gap


def test_scores_that_do_not_spread_give_a_large_number_and_not_an_error():
    flat = np.ones(100)
    assert 1e6 < bounds.effect_size(flat, 0 * flat) < math.inf
    assert bounds.effect_size(flat, flat) == 0
    assert bounds.distance_from_normal(flat) == 0.5


def test_several_tests_share_the_doubt():
    assert bounds.two_sided(0.95, 1) == pytest.approx(1.96, abs=1e-3)
    assert bounds.two_sided(0.95, 10) == pytest.approx(stats.norm.isf(0.0025))
