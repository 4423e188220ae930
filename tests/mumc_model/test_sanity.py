"""The check must pass what speaks of the weights, and must fail what does not."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch.nn import functional as F

from mumc_model.explain import METHODS, Asked, heat_of
from mumc_model.sanity import MOST_ALIKE, cascade, depends_on_weights, parts, rank_correlation
from tests.mumc_model.test_vqa import answering, tokens

QUESTIONS = 24


@pytest.fixture(scope="module")
def asked():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(QUESTIONS, 3, 32, 32, generator=generator)
    ids = torch.randint(5, 30, (QUESTIONS, 4), generator=generator)
    return Asked(images, ids, torch.ones_like(ids), *tokens([(5 + number,) for number in range(QUESTIONS)]))


def checked(explanation, seed=1):
    return cascade(answering(), explanation, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("method", METHODS)
def test_both_explanations_change_when_the_weights_do(asked, method):
    curve = checked(lambda model: heat_of(model, asked, method).patch_BN)
    assert depends_on_weights(curve)
    assert curve[-1].alike.mean < MOST_ALIKE
    assert [step.part for step in curve] == [name for name, _ in parts(answering())]


def edges(asked):
    """How strongly each patch's pixels differ from their right neighbours: an "explanation" that asks no model."""
    steps = (asked.image_BCHW[..., 1:] - asked.image_BCHW[..., :-1]).abs().mean(1, keepdim=True)
    return F.adaptive_avg_pool2d(steps, 4).flatten(1)


def test_an_edge_detector_is_found_out(asked):
    curve = checked(lambda model: edges(asked))
    assert all(step.alike.mean == pytest.approx(1) for step in curve)
    assert not depends_on_weights(curve)


def test_an_edge_detector_with_a_little_of_the_model_in_it_is_found_out_too(asked):
    def mixed(model):
        heat = heat_of(model, asked).patch_BN
        return edges(asked) + 0.05 * heat / heat.amax(1, keepdim=True)

    assert not depends_on_weights(checked(mixed))


def test_the_check_leaves_the_model_alone_and_in_the_end_no_weight_is_what_it_was(asked):
    model, last = answering(), []
    before = {name: weight.clone() for name, weight in model.named_parameters()}

    def kept(random):
        last[:] = [{name: weight.clone() for name, weight in random.named_parameters()}]
        return edges(asked)

    cascade(model, kept, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    assert [name for name, weight in last[0].items() if torch.equal(weight, before[name])] == []


def test_rank_correlation_is_scipys_and_nothing_where_all_is_equal():
    one, other = (np.random.default_rng(seed).integers(0, 5, (6, 9)).astype(np.float32) for seed in (0, 1))
    found = rank_correlation(torch.from_numpy(one), torch.from_numpy(other))
    np.testing.assert_allclose(found, [spearmanr(*pair).statistic for pair in zip(one, other, strict=True)])
    assert rank_correlation(torch.ones(1, 4), torch.arange(4.0)[None])[0] == 0
