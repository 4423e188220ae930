"""Short lists: over thousands of random splits their coverage is that of theory, and no more is promised."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import betabinom

from mumc_model.conformal import EVEN_WITH_CURVE, GRID, TOLD_STEP, AnswerSets, curve_of, quantile, scores
from mumc_model.errors import CheckpointError, ConfigError
from protocol import score_curve

SPLITS = 2000


def model(count, rng, unlisted=0.0, candidates=8):
    """Probabilities of candidates, and which one is right; the truth of some is no candidate."""
    logits_NK = rng.normal(size=(count, candidates)) * 2
    probability_NK = np.exp(logits_NK) / np.exp(logits_NK).sum(1, keepdims=True)
    draws = [rng.choice(candidates, p=row) for row in probability_NK]
    right_NK = np.zeros((count, candidates), dtype=bool)
    right_NK[np.arange(count), draws] = rng.random(count) >= unlisted
    return probability_NK, right_NK


@pytest.mark.parametrize("unlisted", [0.0, 0.05])
@pytest.mark.parametrize("risk", [0.1, 0.2])
def test_over_two_thousand_random_splits_the_coverage_is_that_of_the_beta_binomial(unlisted, risk):
    rng, own, new = np.random.default_rng(7), 60, 40
    probability_NK, right_NK = model(own + new, rng, unlisted)
    score_N = scores(probability_NK, right_NK)
    assert len(set(score_N[np.isfinite(score_N)])) == np.isfinite(score_N).sum()
    covered = []
    for _ in range(SPLITS):
        order = rng.permutation(own + new)
        bound = AnswerSets.of(score_N[order[:own]]).bound(risk)
        covered.append(int((score_N[order[own:]] <= bound).sum()) if math.isfinite(bound) else new)
    rank = math.ceil((own + 1) * (1 - risk))
    theory = betabinom(new, rank, own + 1 - rank)
    if not unlisted:
        error = theory.std() / math.sqrt(SPLITS)
        assert np.mean(covered) == pytest.approx(theory.mean(), abs=4 * error)
        assert np.std(covered) == pytest.approx(theory.std(), rel=0.1)
    assert np.mean(covered) / new >= 1 - risk - 4 * theory.std() / math.sqrt(SPLITS) / new


def test_a_short_list_is_right_exactly_where_the_score_is_within_the_bound_or_the_likeliest_is_right():
    rng = np.random.default_rng(1)
    sets = AnswerSets.of(scores(*model(80, rng)))
    probability_NK, right_NK = model(300, rng, unlisted=0.1)
    for probability_K, right_K, score in zip(probability_NK, right_NK, scores(probability_NK, right_NK), strict=True):
        places = sets.shortlist(probability_K, 0.2)
        assert right_K[list(places)].any() == (score <= sets.bound(0.2) or right_K[probability_K.argmax()])
        assert list(places) == sorted(places, key=lambda place: -probability_K[place])


@given(st.lists(st.floats(0, 1), max_size=40), st.integers(0, 5), st.sampled_from([0.05, 0.1, 0.25, 0.5]))
@settings(deadline=None, max_examples=60)
def test_without_a_curve_the_bound_is_the_split_conformal_quantile(listed, unlisted, risk):
    score_N = [*listed, *[math.inf] * unlisted]
    assert AnswerSets.of(score_N).bound(risk) == pytest.approx(quantile(score_N, risk), abs=1.1e-6)


@pytest.mark.parametrize(("count", "risk", "rank"), [(9, 0.1, 9), (8, 0.1, None), (99, 0.05, 95), (100, 0.05, 96)])
def test_the_quantile_is_the_one_of_the_finite_sample(count, risk, rank):
    found = quantile(np.arange(1, count + 1), risk)
    assert found == (math.inf if rank is None else rank)


def test_answers_that_are_not_in_the_list_are_never_covered():
    sets = AnswerSets.of([0.1] * 85 + [math.inf] * 15)
    assert sets.bound(0.1) == math.inf
    assert sets.shortlist([0.9, 0.1], 0.1) == ()
    assert sets.bound(0.2) == pytest.approx(0.1)
    assert sets.least_risk == pytest.approx(1 - 85 / 101)
    assert "15 of 100 validation questions are not in the list" in sets.promise(0.1)


def test_a_curve_weighs_less_the_more_questions_a_site_has():
    curve = np.linspace(0.05, 1.0, 20)
    own = np.random.default_rng(0).uniform(size=400)
    weights = [AnswerSets.of(own[:count], curve).weight for count in (0, 25, 50, 400)]
    assert weights == pytest.approx([count / (count + EVEN_WITH_CURVE) for count in (0, 25, 50, 400)])
    assert AnswerSets.of(own).weight == 1


def test_a_site_that_the_curve_does_not_fit_keeps_to_its_own_questions():
    easy = curve_of(np.full(100, 0.05))
    hard = AnswerSets.of(np.linspace(0.5, 0.99, 40), easy)
    assert hard.contradicts
    assert hard.bound(0.1) == AnswerSets.of(np.linspace(0.5, 0.99, 40)).bound(0.1)
    assert not AnswerSets.of(np.full(40, 0.04), easy).contradicts


def contradicting(rng, own, others, count, each=200, draws=200):
    """Share of sites of so many questions that contradict the curve of three other sites, as it is really told."""
    found = 0
    for _ in range(draws):
        told = [score_curve.curve_metrics(tuple(curve_of(others(rng, each))), each, 10) for _ in range(3)]
        found += AnswerSets.of(own(rng, count), score_curve.merged(told).share).contradicts
    return found / draws


def skewed(rng, count):
    return rng.beta(1, 2, count)


def between_steps(rng, count):
    """Shares half a step above one, so that rounding takes about as much at every point."""
    return np.maximum(rng.uniform(-0.025, 0.975, count), 0)


@pytest.mark.parametrize("others", [skewed, between_steps])
@pytest.mark.parametrize("count", [100, 300, 740, 1000, 3000])
def test_a_site_that_is_like_the_others_seldom_contradicts_their_rounded_curve(count, others):
    assert contradicting(np.random.default_rng(count), others, others, count) <= 0.05


@pytest.mark.parametrize("count", [100, 300, 1000])
def test_a_site_that_is_harder_than_the_others_is_found(count):
    assert contradicting(np.random.default_rng(count), lambda rng, n: rng.beta(2, 2, n), skewed, count, draws=50) > 0.95


def test_a_site_that_is_far_easier_than_the_others_is_found():
    assert contradicting(np.random.default_rng(5), lambda rng, n: rng.beta(1, 5, n), skewed, 500, draws=50) > 0.95


@given(st.lists(st.floats(0, 1), min_size=10, max_size=60), st.lists(st.floats(0, 1), min_size=20, max_size=20))
@settings(deadline=None, max_examples=60)
def test_a_mixed_bound_lies_between_the_sites_own_and_the_curves(own, curve):
    curve = sorted(curve)
    own_bound, mixed = AnswerSets.of(own).bound(0.2), AnswerSets.of(own, curve).bound(0.2)
    of_curve = next((point for point, share in zip(GRID, curve, strict=True) if share >= 0.8), math.inf)
    assert min(own_bound, of_curve) - 1e-9 <= mixed <= max(own_bound, of_curve)


def test_the_mixed_promise_holds_for_the_mixture_and_falls_short_at_a_harder_site_by_no_more_than_it_says():
    rng, risk, count = np.random.default_rng(3), 0.1, 20
    others = rng.beta(1.0, 2.0, size=100_000)
    curve, own, elsewhere, weight = curve_of(others), [], [], count / (count + EVEN_WITH_CURVE)
    for _ in range(SPLITS):
        sets = AnswerSets.of(rng.beta(1.3, 2.0, size=count), curve)
        # The weight is held still here: the promise is of a mixture whose weights were fixed beforehand.
        bound = sets.bound(risk) if not sets.contradicts else None
        if bound is not None:
            own.append((rng.beta(1.3, 2.0, size=50) <= bound).mean())
            elsewhere.append((others[:500] <= bound).mean())
    assert len(own) > 0.9 * SPLITS
    assert weight * np.mean(own) + (1 - weight) * np.mean(elsewhere) >= 1 - risk - 0.005
    shortfall = (1 - weight) * (np.mean(elsewhere) - np.mean(own))
    assert np.mean(own) >= 1 - risk - shortfall - 0.005


def test_a_site_without_questions_draws_its_lists_from_the_curve_alone():
    sets = AnswerSets(curve=tuple(np.linspace(0.05, 1.0, 20)))
    assert sets.bound(0.1) == pytest.approx(0.9)
    assert "0 % are like this site's 0 validation questions" in sets.promise(0.1)
    assert "100 % like those of the sites together whose scores came with the model; where" in sets.promise(0.1)
    assert "this one among" not in sets.promise(0.1), "a newcomer was not in the run"


def test_the_promise_names_risk_number_and_limits():
    words = AnswerSets.of(np.linspace(0, 1, 120)).promise(0.1)
    for part in ("at least 90 %", "120 validation questions", "average over questions", "unlike validation's"):
        assert part in words


@pytest.mark.parametrize("risk", [0.0, 1.0, -0.1, math.nan])
def test_a_risk_that_is_none_is_refused(risk):
    with pytest.raises(ConfigError, match="choose it above 0 and below 1"):
        AnswerSets.of([0.1] * 50).bound(risk)


def test_they_come_back_from_plain_values():
    sets = AnswerSets.of([0.25, 0.5, math.inf], np.linspace(0.05, 1, 20))
    assert AnswerSets.from_dict(sets.to_dict()) == sets


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"scores": [0.5, 0.1], "unlisted": 0, "curve": []},
        {"scores": [2.0], "unlisted": 0, "curve": []},
        {"scores": [], "unlisted": -1, "curve": []},
        {"scores": [], "unlisted": 0, "curve": [0.5]},
        {"scores": ["x"], "unlisted": 0, "curve": []},
    ],
)
def test_damaged_values_are_refused(values):
    with pytest.raises(CheckpointError, match="short lists"):
        AnswerSets.from_dict(values)


def test_both_ends_of_a_federation_know_the_same_points():
    assert score_curve.GRID == GRID
    assert score_curve.STEPS * TOLD_STEP == 1
