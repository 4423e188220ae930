import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from mumc_model.statistics import bootstrap_mean, mcnemar, paired_difference


def rng():
    return np.random.default_rng(0)


def test_the_mean_is_the_plain_mean_and_lies_in_its_interval():
    interval = bootstrap_mean([1, 0, 1, 1], ["a", "a", "b", "c"], rng())
    assert interval.mean == 0.75
    assert interval.low <= 0.75 <= interval.high


def test_clusters_of_one_row_give_the_normal_interval_of_a_mean():
    values = np.random.default_rng(1).normal(size=2000)
    interval = bootstrap_mean(values, range(2000), rng(), resamples=4000)
    half = norm.ppf(0.975) * values.std() / np.sqrt(2000)
    assert interval.low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.05 * half)


def test_rows_repeated_within_a_cluster_add_no_certainty():
    values = np.random.default_rng(2).integers(0, 2, size=300)
    alone = bootstrap_mean(values, range(300), rng())
    fourfold = bootstrap_mean(np.repeat(values, 4), np.repeat(np.arange(300), 4).tolist(), rng())
    pretended = bootstrap_mean(np.repeat(values, 4), range(1200), rng())
    assert fourfold == pytest.approx(alone)
    assert fourfold.high - fourfold.low > 1.8 * (pretended.high - pretended.low)


def test_the_same_image_under_two_seeds_is_two_clusters():
    values = [1, 0] * 50
    by_image = bootstrap_mean(values, [i // 2 for i in range(100)], rng())
    by_seed_and_image = bootstrap_mean(values, [(i % 2, i // 2) for i in range(100)], rng())
    assert by_image.high - by_image.low == 0
    assert by_seed_and_image.high - by_seed_and_image.low > 0.1


def test_identical_rows_differ_by_exactly_nothing():
    values = np.random.default_rng(3).normal(size=50)
    assert paired_difference(values, values, range(50), rng()) == (0.0, 0.0, 0.0)


def test_a_constant_gain_is_certain_however_much_the_values_vary():
    values = np.random.default_rng(4).integers(0, 5, size=200)
    assert paired_difference(values + 2, values, range(200), rng()) == (2.0, 2.0, 2.0)


def test_a_wider_level_gives_a_wider_interval():
    values = np.random.default_rng(5).normal(size=100)
    narrow = bootstrap_mean(values, range(100), rng(), level=0.5)
    wide = bootstrap_mean(values, range(100), rng(), level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_the_same_generator_state_gives_the_same_interval():
    values = np.random.default_rng(6).normal(size=100)
    assert bootstrap_mean(values, range(100), rng()) == bootstrap_mean(values, range(100), rng())


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    draws = np.random.default_rng(7)
    covered = 0
    for _ in range(300):
        image = np.repeat(draws.normal(size=60), 3)
        interval = bootstrap_mean(
            image + draws.normal(size=180), np.repeat(np.arange(60), 3).tolist(), draws, resamples=300
        )
        covered += interval.low <= 0 <= interval.high
    assert 0.89 <= covered / 300 <= 0.99


def test_five_thousand_rows_take_well_under_a_second():
    values = np.random.default_rng(8).integers(0, 2, size=5000)
    started = time.process_time()
    bootstrap_mean(values, range(5000), rng())
    assert time.process_time() - started < 1


@pytest.mark.parametrize(("values", "clusters"), [([], []), ([1.0], []), ([1.0], ["a", "b"])])
def test_rows_without_their_clusters_are_refused(values, clusters):
    with pytest.raises(ValueError, match="one cluster for each"):
        bootstrap_mean(values, clusters, rng())


def test_answers_to_different_numbers_of_questions_cannot_be_paired():
    with pytest.raises(ValueError, match="same questions"):
        paired_difference([1, 0], [1], ["a"], rng())
    with pytest.raises(ValueError, match="same questions"):
        mcnemar([1, 0], [1])


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_mcnemar_is_the_sign_test_on_the_discordant_pairs(pairs):
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    only_a = sum(x and not y for x, y in pairs)
    discordant = sum(x != y for x, y in pairs)
    expected = binomtest(only_a, discordant).pvalue if discordant else 1.0
    assert mcnemar(a, b) == pytest.approx(expected)
    assert mcnemar(b, a) == mcnemar(a, b)


def test_mcnemar_of_thousands_of_discordant_pairs_does_not_overflow():
    a = np.arange(6000) % 2 == 0
    assert mcnemar(a, ~a) == 1.0
