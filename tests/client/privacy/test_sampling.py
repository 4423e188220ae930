"""Samples are Poisson samples of units, which is what the accountant prices."""

import numpy as np
import pytest
import torch
from scipy import stats

from client.privacy.errors import PlanError
from client.privacy.pretrain import private_site
from client.privacy.randomness import SecureSource
from client.privacy.sampling import PoissonSampler
from tests.client.privacy.mechanism import Records, key, recipe
from tests.client.privacy.officer import policy

UNITS = tuple(f"patient-{unit}" for unit in range(60) for _ in range(1 + unit % 3))
"""Patients with one, two or three records."""
RATE, STEPS = 0.3, 4000


def drawn(sampler, steps=STEPS):
    """How often each record was drawn in each step."""
    return torch.stack([torch.bincount(sampler.draw(), minlength=len(UNITS)) for _ in range(steps)]).numpy()


def by_unit(count_SR):
    return np.stack([count_SR[:, [u == unit for u in UNITS]].sum(axis=1) for unit in dict.fromkeys(UNITS)], axis=1)


def check_one_record_a_unit(count_SR):
    assert by_unit(count_SR).max() == 1


def check_inclusions(count_SR):
    """Each unit comes as often as a coin of that rate, however many records it has."""
    for total in by_unit(count_SR).sum(axis=0):
        assert stats.binomtest(int(total), len(count_SR), RATE).pvalue > 1e-6


def check_independent(count_SR):
    """Units come apart from one another, and the sizes of the steps vary as Poisson samples' do."""
    unit_SU = by_unit(count_SR) > 0
    steps, units = unit_SU.shape
    correlation = np.corrcoef(unit_SU.T)[np.triu_indices(units, 1)]
    assert abs(correlation).max() < stats.norm.isf(1e-8) / np.sqrt(steps)
    assert abs(correlation.mean()) < 6 / np.sqrt(steps * len(correlation))
    sizes = unit_SU.sum(axis=1)
    low, high = stats.chi2.interval(1 - 1e-6, steps - 1)
    assert low < sizes.var(ddof=1) * (steps - 1) / (units * RATE * (1 - RATE)) < high


@pytest.fixture(scope="module")
def samples():
    """How often each record was drawn in each step."""
    return drawn(PoissonSampler(UNITS, RATE, SecureSource(key(1))))


def test_every_unit_is_in_a_step_with_the_public_rate(samples):
    check_inclusions(samples)


def test_units_are_drawn_apart_from_one_another_and_batch_sizes_vary(samples):
    check_independent(samples)
    assert len(set(samples.sum(axis=1))) > 10


def test_a_step_takes_no_notice_of_the_step_before(samples):
    unit_SU = by_unit(samples) > 0
    before, after = unit_SU[:-1].ravel(), unit_SU[1:].ravel()
    assert abs(np.corrcoef(before, after)[0, 1]) < 6 / np.sqrt(len(before))


def test_a_unit_gives_one_record_at_most(samples):
    check_one_record_a_unit(samples)


def test_a_unit_s_records_are_drawn_alike_often(samples):
    for unit in dict.fromkeys(UNITS):
        totals = samples[:, [u == unit for u in UNITS]].sum(axis=0)
        assert len(totals) == 1 or stats.chisquare(totals).pvalue > 1e-6


def test_a_patient_in_many_places_of_the_list_is_one_unit():
    sampler = PoissonSampler(["a", "b", "a", "c", "a"], 1.0, SecureSource(key(2)))
    assert len(sampler) == 3
    draws = [sampler.draw().tolist() for _ in range(200)]
    assert all(len(rows) == 3 and {1, 3} < set(rows) for rows in draws)
    assert {row for rows in draws for row in rows} == {0, 1, 2, 3, 4}


def test_a_rate_of_one_draws_every_unit_in_every_step():
    assert {len(PoissonSampler(UNITS, 1.0, SecureSource(key(3))).draw()) for _ in range(5)} == {60}


def test_nobody_may_be_drawn_at_all():
    sampler = PoissonSampler(["a"], 1e-9, SecureSource(key(4)))
    assert sampler.draw().shape == (0,)
    assert PoissonSampler([], 0.5, SecureSource(key(4))).draw().shape == (0,)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.01, float("nan")])
def test_a_rate_that_is_no_probability_is_refused(rate):
    with pytest.raises(PlanError, match="the sample rate is"):
        PoissonSampler(UNITS, rate, SecureSource(key(5)))


@pytest.mark.parametrize(("unit", "count"), [("patient", 3), ("record", 9)])
def test_a_site_s_units_are_its_patients_or_its_images_as_the_run_says(unit, count):
    records = Records(9, 0, per_patient=3)
    site = private_site(records, lambda r: torch.arange(9), policy(), recipe(privacy={"unit": unit}))
    sampler = PoissonSampler(site.units, 1.0, SecureSource(key(6)))
    assert len(sampler) == count
    assert len({records.patient_ids[row] for row in sampler.draw().tolist()}) == 3


def test_rows_that_may_not_be_used_are_no_unit_and_the_rate_is_the_policy_s():
    records, allowed = Records(9, 0, per_patient=3), torch.tensor([0, 7])
    site = private_site(records, lambda r: allowed, policy(units=200), recipe())
    assert site.units == ("patient-0", "patient-2")
    assert site.patients == {"patient-0", "patient-2"}
    assert site.sample_rate == 4 / 200
    sampler = PoissonSampler(site.units, 1.0, SecureSource(key(7)))
    assert {row for _ in range(20) for row in site.rows[sampler.draw()].tolist()} == {0, 7}


def test_the_rate_does_not_follow_how_many_patients_there_are():
    rates = {
        private_site(Records(n, 0), lambda r, n=n: torch.arange(n), policy(units=200), recipe()).sample_rate
        for n in (2, 20)
    }
    assert rates == {4 / 200}
