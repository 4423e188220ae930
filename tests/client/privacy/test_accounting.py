"""Accounting against closed forms, numerical integrals, other people's accountants and the figures it was chosen by."""

import logging
import math
import subprocess
import sys
import warnings
from typing import get_args

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import GaussianAccountant, PRVAccountant
from scipy.integrate import quad
from scipy.stats import norm

from client.privacy import renyi
from client.privacy.accounting import (
    PLD_NAME,
    RDP_NAME,
    Accountant,
    attack_bound,
    best_order,
    delta_of,
    epsilon_pld,
    epsilon_rdp,
    noise_for,
    posterior,
    steps_within,
)
from client.privacy.errors import PlanError
from client.privacy.event import Event

RATE, NOISE, STEPS, DELTA = 0.0128, 1.0, 5000, 1e-5
RATES = st.sampled_from([0.001, 0.0128, 0.05, 0.2])
NOISES = st.floats(0.8, 4.0).map(lambda noise: round(noise, 2))
COUNTS = st.integers(1, 300)
HISTORIES = st.tuples(st.sampled_from([0.001, 0.0128, 0.05]), NOISES, COUNTS)


def event(sample_rate=RATE, noise_multiplier=NOISE, steps=STEPS):
    return Event(sample_rate=sample_rate, noise_multiplier=noise_multiplier, steps=steps)


def opacus_epsilon(accountant, events, **options):
    """What an accountant of Opacus says of the same history."""
    accountant.history = [(row.noise_multiplier, row.sample_rate, row.steps) for row in events]
    with warnings.catch_warnings():
        # Opacus says that its search for a start found the largest order; the start is no part of its answer.
        warnings.filterwarnings("ignore", message="Optimal order is the largest alpha")
        return accountant.get_epsilon(DELTA, **options)


def gaussian_delta(epsilon, noise):
    """The exact delta of one Gaussian release. Source: Balle and Wang, arXiv 1805.06530, theorem 8."""
    half = 1 / (2 * noise)
    return norm.cdf(half - epsilon * noise) - math.exp(epsilon) * norm.cdf(-half - epsilon * noise)


def test_the_figures_by_which_the_accountants_were_chosen():
    assert epsilon_pld([event()], DELTA) == pytest.approx(5.576, abs=5e-4)
    assert epsilon_rdp([event()], DELTA) == pytest.approx(6.071, abs=5e-4)
    assert opacus_epsilon(PRVAccountant(), [event()]) == pytest.approx(5.584, abs=5e-4)


def test_the_central_limit_accountant_of_opacus_is_below_the_truth_and_is_not_offered():
    with pytest.warns(UserWarning, match="can underestimate"):
        central_limit = GaussianAccountant()
    assert opacus_epsilon(central_limit, [event()]) == pytest.approx(5.342, abs=5e-4)
    assert epsilon_pld([event()], DELTA) > 5.5
    assert get_args(Accountant) == ("pld", "rdp")


@pytest.mark.parametrize(("noise", "epsilon"), [(0.5, 3.0), (1.0, 0.0), (1.0, 1.0), (3.0, 0.2)])
def test_delta_of_one_release_over_all_is_the_exact_one_and_never_below(noise, epsilon):
    exact = gaussian_delta(epsilon, noise)
    found = delta_of([event(1.0, noise, 1)], epsilon)
    assert exact <= found <= 1.01 * exact


def test_releases_over_all_units_are_one_release_with_less_noise():
    exact = gaussian_delta(2.0, 5.0 / math.sqrt(100))
    assert exact <= delta_of([event(1.0, 5.0, 100)], 2.0) <= 1.01 * exact


@pytest.mark.parametrize("noise", [0.7, 2.0])
def test_the_divergence_of_a_release_over_all_is_alpha_over_two_sigma_squared(noise):
    np.testing.assert_allclose(renyi.divergence([event(1.0, noise, 3)]), 3 * renyi.orders() / (2 * noise**2))


@pytest.mark.parametrize(("sample_rate", "noise", "order"), [(0.0128, 1.0, 4.3), (0.2, 2.0, 8.0), (0.5, 0.8, 2.5)])
def test_the_divergence_of_a_sampled_release_is_its_integral_and_never_below(sample_rate, noise, order):
    def power(x):
        return (
            norm.pdf(x, scale=noise) * (1 - sample_rate + sample_rate * math.exp((2 * x - 1) / (2 * noise**2))) ** order
        )

    integral, _ = quad(power, -30 * noise, 60 * noise, points=[0.0, order], limit=500)
    place = int(np.flatnonzero(np.isclose(renyi.orders(), order))[0])
    found = renyi.divergence([event(sample_rate, noise, 1)])[place]
    exact = math.log(integral) / (order - 1)
    assert (1 - 1e-9) * exact <= found <= (1 + 1e-3) * exact


@pytest.mark.parametrize(
    "events",
    [
        [event(0.0128, 1.0, 5000)],
        [event(0.05, 2.0, 300), event(0.01, 0.8, 50)],
        [event(1.0, 20.0, 4)],
        [event(1e-4, 2.0, 1)],
        [event(1e-6, 50.0, 1)],
    ],
)
def test_rdp_says_what_the_accountant_of_dp_accounting_says(events):
    accountant = RdpAccountant(neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE)
    for row in events:
        accountant.compose(PoissonSampledDpEvent(row.sample_rate, GaussianDpEvent(row.noise_multiplier)), row.steps)
    assert epsilon_rdp(events, DELTA) == pytest.approx(accountant.get_epsilon(DELTA), abs=1e-9)


@pytest.mark.parametrize(
    "events",
    [
        [event(0.0128, 1.0, 1000)],
        [event(0.05, 2.0, 300)],
        [event(0.01, 0.7, 200)],
        [event(0.1, 4.0, 500), event(0.02, 1.5, 400)],
    ],
)
def test_pld_is_within_two_hundredths_of_the_prv_accountant_and_below_rdp(events):
    found = epsilon_pld(events, DELTA)
    assert found == pytest.approx(opacus_epsilon(PRVAccountant(), events, eps_error=0.005), abs=0.02)
    assert found < epsilon_rdp(events, DELTA)


@given(rate=RATES, noise=NOISES, steps=COUNTS, more=st.integers(1, 300))
@settings(max_examples=8, deadline=None)
def test_more_steps_never_cost_less_and_rdp_is_above_pld(rate, noise, steps, more):
    few, many = event(rate, noise, steps), event(rate, noise, steps + more)
    assert epsilon_pld([few], DELTA) <= epsilon_pld([many], DELTA) + 1e-9
    assert epsilon_rdp([few], DELTA) <= epsilon_rdp([many], DELTA)
    assert epsilon_pld([many], DELTA) <= epsilon_rdp([many], DELTA) + 1e-3


@given(rate=RATES, noise=NOISES, steps=COUNTS, less=st.floats(0.5, 0.95))
@settings(max_examples=8, deadline=None)
def test_less_noise_costs_more(rate, noise, steps, less):
    quiet, loud = event(rate, less * noise, steps), event(rate, noise, steps)
    assert epsilon_pld([quiet], DELTA) >= epsilon_pld([loud], DELTA)
    assert epsilon_rdp([quiet], DELTA) >= epsilon_rdp([loud], DELTA)


@given(rate=st.floats(0.001, 0.2), noise=NOISES, steps=COUNTS)
@settings(max_examples=8, deadline=None)
def test_a_larger_sample_rate_costs_more(rate, noise, steps):
    assert epsilon_pld([event(2 * rate, noise, steps)], DELTA) >= epsilon_pld([event(rate, noise, steps)], DELTA)
    assert epsilon_rdp([event(2 * rate, noise, steps)], DELTA) >= epsilon_rdp([event(rate, noise, steps)], DELTA)


@given(first=HISTORIES, second=HISTORIES)
@settings(max_examples=6, deadline=None)
def test_two_histories_together_cost_at_least_each_and_at_most_both_at_half_delta(first, second):
    one, other = event(*first), event(*second)
    for price in (epsilon_pld, epsilon_rdp):
        together = price([one, other], DELTA)
        assert together >= max(price([one], DELTA), price([other], DELTA)) - 1e-9
    assert epsilon_pld([one, other], DELTA) <= epsilon_pld([one], DELTA / 2) + epsilon_pld([other], DELTA / 2) + 1e-2


@given(rate=RATES, noise=NOISES, counts=st.lists(COUNTS, min_size=2, max_size=5))
@settings(max_examples=6, deadline=None)
def test_equal_rows_cost_what_one_row_with_all_their_steps_costs(rate, noise, counts):
    rows = [event(rate, noise, count) for count in counts]
    assert epsilon_pld(rows, DELTA) == epsilon_pld([event(rate, noise, sum(counts))], DELTA)
    assert epsilon_rdp(rows, DELTA) == epsilon_rdp([event(rate, noise, sum(counts))], DELTA)


def test_the_order_of_different_rows_does_not_matter():
    rows = [event(0.05, 2.0, 300), event(0.01, 0.8, 50), event(1.0, 20.0, 2)]
    assert epsilon_pld(rows, DELTA) == epsilon_pld(rows[::-1], DELTA)
    assert epsilon_rdp(rows, DELTA) == epsilon_rdp(rows[::-1], DELTA)


@pytest.mark.parametrize("events", [[], [event(steps=0)]])
def test_nothing_done_costs_nothing(events):
    assert epsilon_pld(events, DELTA) == epsilon_rdp(events, DELTA) == delta_of(events, 0.0) == 0
    assert attack_bound(events, 0.01) == pytest.approx(0.01)


def test_delta_and_epsilon_are_one_curve():
    epsilon = epsilon_pld([event()], DELTA)
    assert delta_of([event()], epsilon) == pytest.approx(DELTA, rel=1e-3)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 5.576])
def test_the_noise_for_a_target_keeps_it_and_a_little_less_does_not(epsilon):
    noise = noise_for(epsilon=epsilon, delta=DELTA, sample_rate=RATE, steps=STEPS)
    assert epsilon_pld([event(noise_multiplier=noise)], DELTA) <= epsilon
    assert epsilon_pld([event(noise_multiplier=0.999 * noise)], DELTA) > epsilon


def test_rdp_asks_for_more_noise_than_pld_and_keeps_the_target_too():
    by_rdp = noise_for(epsilon=3.0, delta=DELTA, sample_rate=RATE, steps=STEPS, accountant="rdp")
    assert epsilon_rdp([event(noise_multiplier=by_rdp)], DELTA) <= 3.0
    assert epsilon_rdp([event(noise_multiplier=0.999 * by_rdp)], DELTA) > 3.0
    assert by_rdp > noise_for(epsilon=3.0, delta=DELTA, sample_rate=RATE, steps=STEPS)


def test_a_target_that_no_noise_reaches_is_refused():
    with pytest.raises(PlanError, match="no noise multiplier"):
        noise_for(epsilon=1e-9, delta=1e-9, sample_rate=1.0, steps=10**9, accountant="rdp")


def test_a_cap_planned_by_pld_is_reached_earlier_under_the_rdp_filter():
    assert steps_within(spent=[], sample_rate=RATE, noise_multiplier=NOISE, cap=5.576, delta=DELTA) == 4275


@given(cap=st.floats(0.5, 20.0), noise=NOISES, spent=st.integers(0, 200))
@settings(max_examples=25, deadline=None)
def test_the_last_step_within_a_cap_fits_and_the_next_does_not(cap, noise, spent):
    before = [event(0.02, 1.3, spent)]
    if epsilon_rdp(before, DELTA) >= cap:
        return
    last = steps_within(spent=before, sample_rate=RATE, noise_multiplier=noise, cap=cap, delta=DELTA)
    assert epsilon_rdp([*before, event(RATE, noise, last)], DELTA) <= cap
    assert epsilon_rdp([*before, event(RATE, noise, last + 1)], DELTA) > cap


def test_what_was_spent_before_leaves_fewer_steps():
    numbers = {"sample_rate": RATE, "noise_multiplier": NOISE, "cap": 5.576, "delta": DELTA}
    assert steps_within(spent=[event(steps=1000)], **numbers) == 3275
    assert steps_within(spent=[event(steps=4275)], **numbers) == 0
    assert steps_within(spent=[event(steps=9000)], **numbers) == 0


def test_a_filter_of_one_fixed_order_never_admits_more_and_at_the_right_order_no_less():
    numbers = {"spent": [], "sample_rate": RATE, "noise_multiplier": NOISE, "cap": 5.576, "delta": DELTA}
    assert steps_within(**numbers, order=best_order([event(steps=4275)], DELTA)) == 4275
    assert all(steps_within(**numbers, order=order) <= 4275 for order in (2.0, 4.0, 6.0, 32.0))
    assert epsilon_rdp([event()], DELTA, order=2.0) > epsilon_rdp([event()], DELTA)


def test_an_order_that_is_not_looked_at_is_refused_with_the_nearest():
    with pytest.raises(PlanError, match=r"4\.23.*4\.2"):
        epsilon_rdp([event()], DELTA, order=4.23)


def test_no_number_of_steps_is_free_where_a_divergence_is_lost_in_rounding():
    assert steps_within(spent=[], sample_rate=1e-9, noise_multiplier=1e5, cap=1.0, delta=DELTA) < 10**15


@pytest.mark.parametrize("mu", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("false_positive_rate", [0.001, 0.01, 0.1, 0.5])
def test_the_attack_bound_of_one_release_over_all_is_its_trade_off_curve(mu, false_positive_rate):
    exact = norm.cdf(norm.ppf(false_positive_rate) + mu)
    found = attack_bound([event(1.0, 1 / mu, 1)], false_positive_rate)
    assert exact - 1e-9 <= found <= exact + 1e-3


def test_an_attacker_gains_from_more_steps_and_never_loses_against_guessing():
    rates = [attack_bound([event(steps=steps)], 0.01) for steps in (1, 100, 5000)]
    assert 0.01 <= rates[0] < rates[1] < rates[2] < 1


def test_the_posterior_is_that_of_bayes():
    assert posterior(math.log(3)) == pytest.approx(0.75)
    assert posterior(math.log(3), prior=0.25) == pytest.approx(0.5)
    assert posterior(0.0, prior=0.3) == pytest.approx(0.3)
    assert posterior(1e6) == 1


@pytest.mark.parametrize(("epsilon", "prior"), [(-1.0, 0.5), (math.nan, 0.5), (1.0, 1.5), (1.0, -0.1)])
def test_a_posterior_of_impossible_numbers_is_refused(epsilon, prior):
    with pytest.raises(PlanError, match="prior"):
        posterior(epsilon, prior)


def test_a_plan_that_protects_nobody_is_priced_without_filling_the_memory():
    hopeless = [event(1.0, 0.1, 10**6)]
    assert epsilon_pld(hopeless, DELTA) == epsilon_rdp(hopeless, DELTA) > 1e6
    assert delta_of(hopeless, 1.0) == attack_bound(hopeless, 0.01) == 1


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
@pytest.mark.parametrize("price", [epsilon_pld, epsilon_rdp, best_order])
def test_a_delta_outside_of_zero_and_one_is_refused(price, delta):
    with pytest.raises(PlanError, match="delta is"):
        price([event()], delta)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.inf, math.nan])
def test_a_target_or_cap_that_is_no_finite_positive_number_is_refused(epsilon):
    with pytest.raises(PlanError, match="epsilon is"):
        noise_for(epsilon=epsilon, delta=DELTA, sample_rate=RATE, steps=1)
    with pytest.raises(PlanError, match="epsilon is"):
        steps_within(spent=[], sample_rate=RATE, noise_multiplier=NOISE, cap=epsilon, delta=DELTA)


@pytest.mark.parametrize("epsilon", [-0.1, math.inf, math.nan])
def test_the_delta_of_an_impossible_epsilon_is_refused(epsilon):
    with pytest.raises(PlanError, match="epsilon is"):
        delta_of([event()], epsilon)


@pytest.mark.parametrize("rate", [0.0, 1.0, math.nan])
def test_a_false_positive_rate_that_is_none_is_refused(rate):
    with pytest.raises(PlanError, match="false-positive"):
        attack_bound([event()], rate)


def test_both_names_say_which_version_counted():
    assert PLD_NAME.startswith("PLD (dp-accounting 0.")
    assert RDP_NAME.startswith("RDP (dp-accounting 0.")


def test_a_series_that_does_not_converge_is_left_out_silently_and_safely(capfd, caplog):
    with caplog.at_level(logging.WARNING):
        found = renyi.divergence([event(0.0128, 0.382045, 1)])
    assert np.isinf(found).any()
    assert np.isfinite(found).any()
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_accounting_loads_silently_and_leaves_torch_and_dp_accounting_for_later():
    code = (
        "import sys, client.privacy.accounting\n"
        "assert not {'torch', 'scipy', 'dp_accounting'} & set(sys.modules)\n"
        "import dp_accounting.pld, dp_accounting.rdp\n"
        "assert 'torch' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
