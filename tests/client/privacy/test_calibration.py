"""The search for the least noise, on prices whose answer is known."""

import pytest

from client.privacy.calibration import LEAST_NOISE, least_noise
from client.privacy.errors import PlanError


@pytest.mark.parametrize("epsilon", [0.003, 0.4, 1.0, 7.5])
@pytest.mark.parametrize(("start", "factor"), [(1.0, 2.0), (5.0, 1.25), (0.01, 1.25)])
def test_the_answer_is_least_within_a_ten_thousandth_and_on_the_safe_side(epsilon, start, factor):
    found = least_noise(lambda noise: 1 / noise, epsilon, start=start, factor=factor)
    assert 1 / epsilon <= found <= (1 + 1e-4) / epsilon


def test_a_coarser_answer_is_still_on_the_safe_side():
    found = least_noise(lambda noise: 1 / noise, 0.4, tolerance=0.1)
    assert 1 / 0.4 <= found <= 1.1 / 0.4


def test_a_price_on_a_grid_is_kept_too():
    found = least_noise(lambda noise: round(2 / noise, 2), 1.0)
    assert round(2 / found, 2) <= 1.0
    assert 1.99 <= found <= 2.0001


def test_noise_is_not_sought_below_a_tenth():
    assert least_noise(lambda noise: 0.0, 1.0) == pytest.approx(LEAST_NOISE)


def test_a_target_that_no_noise_reaches_is_refused():
    with pytest.raises(PlanError, match="no noise multiplier below 1e"):
        least_noise(lambda noise: 2.0, 1.0)
