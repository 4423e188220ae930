"""The one release of a test split: how far a patient can move it, and how much noise it has."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from client.privacy.metrics import SENSITIVITY, SMALLEST_COUNT, Released, correctness, event, release, total
from client.privacy.optimizer import grid_step
from client.privacy.randomness import SecureSource
from tests.client.privacy.mechanism import key

SHARES = st.fractions(0, 1, max_denominator=40).map(float)
NOISE, TIMES = 3.0, 4000


class Silent:
    """A source whose noise is 0."""

    def normals(self, count):
        return SecureSource(key(0)).normals(count) * 0


@given(st.lists(SHARES, max_size=30), SHARES)
def test_one_unit_moves_the_total_by_the_stated_sensitivity_at_most(others, own):
    with_it, without = np.array(total([*others, own])), np.array(total(others))
    assert np.linalg.norm(with_it - without) <= SENSITIVITY


@pytest.mark.parametrize("own", [0.0, 1.0])
def test_a_unit_that_is_all_wrong_or_all_right_moves_it_by_exactly_that(own):
    moved = np.array(total([0.3, own])) - np.array(total([0.3]))
    assert np.linalg.norm(moved) == pytest.approx(SENSITIVITY, rel=1e-12)


@given(st.lists(SHARES, max_size=30), st.randoms())
def test_the_total_is_the_same_in_whatever_order_units_come(correct, random):
    shuffled = random.sample(correct, len(correct))
    assert total(shuffled) == total(correct)


def test_a_unit_counts_once_however_many_questions_it_has():
    units = ["a", "b", "a", "a", "a", "c"]
    assert correctness([True, False, True, True, False, True], units) == [0.75, 0.0, 1.0]


def test_the_noise_has_the_declared_level_in_both_numbers_and_is_apart():
    source, correct = SecureSource(key(1)), [0.25, 1.0, 0.5]
    deviation = NOISE * SENSITIVITY
    found = [release(correct, NOISE, source) for _ in range(TIMES)]
    noise_N2 = np.array([[each.above_half, each.count] for each in found]) - total(correct)
    for noise_N in noise_N2.T:
        assert 1e-4 < stats.chi2.cdf((noise_N**2).sum() / deviation**2, TIMES) < 1 - 1e-4
        assert stats.kstest(noise_N, "norm", args=(0, deviation)).pvalue > 1e-4
    assert abs(np.corrcoef(noise_N2.T)[0, 1]) < 5 / TIMES**0.5
    assert {each.deviation for each in found} == {deviation}


def test_what_is_released_lies_on_a_grid_that_does_not_depend_on_the_data():
    step = grid_step(NOISE * SENSITIVITY)
    for correct in ([], [1 / 3], [0.1] * 5000):
        found = release(correct, NOISE, SecureSource(key(2)))
        assert (found.above_half / step).is_integer()
        assert (found.count / step).is_integer()


def test_two_releases_share_no_noise():
    first, second = (release([0.5] * 20, NOISE, SecureSource()) for _ in range(2))
    assert first.count != second.count


def test_it_is_charged_as_one_step_over_everybody():
    assert event(NOISE).to_dict() == {
        "mechanism": "poisson_sampled_gaussian",
        "adjacency": "add_or_remove_one",
        "sample_rate": 1.0,
        "noise_multiplier": NOISE,
        "steps": 1,
    }


def test_without_noise_the_accuracy_is_the_mean_over_units():
    correct = [1.0] * 12 + [0.5] * 6 + [0.0] * 2
    assert release(correct, NOISE, Silent()).accuracy == pytest.approx(15 / 20, abs=1e-5)


@pytest.mark.parametrize(("above", "accuracy"), [(90.0, 1.0), (-90.0, 0.0), (10.0, 0.6)])
def test_the_accuracy_is_clamped(above, accuracy):
    assert Released(above_half=above, count=100.0, deviation=1.0).accuracy == pytest.approx(accuracy)


def test_the_stated_error_is_the_spread_of_the_accuracy_that_noise_alone_makes():
    source, correct = SecureSource(key(3)), [1.0] * 700 + [0.0] * 300
    found = [release(correct, NOISE, source) for _ in range(2000)]
    spread = np.std([each.accuracy for each in found])
    assert np.mean([each.noise_se for each in found]) == pytest.approx(spread, rel=0.06)


def test_below_the_smallest_count_no_metric_leaves():
    few = Released(above_half=3.0, count=SMALLEST_COUNT - 1e-9, deviation=1.0)
    enough = Released(above_half=3.0, count=float(SMALLEST_COUNT), deviation=1.0)
    assert few.metrics() == {}
    assert enough.metrics() == {"accuracy": 0.8, "accuracy_noise_se": pytest.approx(0.1 * 1.09**0.5)}
