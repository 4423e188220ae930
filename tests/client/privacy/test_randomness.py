"""The noise is what the accountant prices: normal, as large as declared, new each time, and on a grid."""

import math
import os

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from client.privacy.optimizer import GRID, clear, grid_step
from client.privacy.randomness import KEY_BYTES, LANES, SecureSource
from tests.client.privacy.mechanism import EXPECTED, empty_steps, key, private

MANY = 1_000_000
SHAPES = [(40, 30), (7,), (3, 2, 5, 5), (1000,)]
UNLIKELY = 1e-6
"""How rarely a sound source would fail a test here; keys are fixed, so it does not come and go."""


def check_level(source, sigma, clipping_norm, steps=40):
    """Each weight's noise has the deviation sigma C / B, within what chi-square allows."""
    noises = empty_steps(source, SHAPES, steps, noise=sigma, clipping_norm=clipping_norm)
    for noise in noises:
        statistic = float((noise.double() / (sigma * clipping_norm / EXPECTED)).square().sum())
        low, high = stats.chi2.interval(1 - UNLIKELY, noise.numel())
        assert low < statistic < high


def check_everywhere(source):
    """Every coordinate of every weight is noised in every step."""
    for noise in empty_steps(source, SHAPES, 2):
        # On a grid of 2**-17 deviations about one number in 100,000 is 0.
        assert (noise == 0).sum() <= 2
        assert not (noise == 0).all(dim=0).any()


def check_uncorrelated(first, second):
    """Two draws are no copies of one another, nor of one another's reverse or neighbour."""
    first, second = first.double().flatten(), second.double().flatten()
    limit = stats.norm.isf(UNLIKELY) / math.sqrt(len(first) - 1)
    for other in (second, second.flip(0), second.roll(1)):
        assert abs(np.corrcoef(first.numpy(), other.numpy())[0, 1]) < limit


def check_fresh():
    """Two sources of one process never say the same."""
    check_uncorrelated(SecureSource().normals(10_000), SecureSource().normals(10_000))


def check_new_each_step(source):
    for noise in empty_steps(source, SHAPES, 3):
        if noise.shape[1] >= 100:
            check_uncorrelated(noise[0], noise[1])
            check_uncorrelated(noise[0], noise[2])


@pytest.fixture(scope="module")
def normals():
    return SecureSource(key(1)).normals(MANY).double().numpy()


def test_noise_is_standard_normal_over_a_million_draws(normals):
    assert stats.kstest(normals, "norm").pvalue > 1e-4
    assert stats.chi2.cdf((normals**2).sum(), MANY) == pytest.approx(0.5, abs=0.4999)
    edges = stats.norm.ppf(np.linspace(0, 1, 257))
    assert stats.chisquare(np.histogram(normals, edges)[0]).pvalue > 1e-4


@pytest.mark.parametrize("half", [0, 1], ids=["cosines", "sines"])
def test_both_halves_of_a_block_are_normal_and_no_function_of_one_another(half):
    size = 1 << 14
    block = SecureSource(key(2)).normals(2 * size).double().numpy()
    first, second = block[:size], block[size:]
    assert stats.kstest((first, second)[half], "norm").pvalue > 1e-4
    angle = np.arctan2(second, first) / (2 * math.pi) + 0.5
    assert stats.kstest(angle, "uniform").pvalue > 1e-4
    assert stats.kstest(first**2 + second**2, "chi2", args=(2,)).pvalue > 1e-4
    assert abs(stats.spearmanr(first**2, second**2)[0]) < 5 / math.sqrt(size)


def test_tails_reach_as_far_as_normals_do_on_both_sides_and_no_farther_than_can_be():
    count = 8_000_000
    found = SecureSource(key(3)).normals(count)
    for side in (found, -found):
        for level in (4.0, 4.5, 5.0):
            expected = count * stats.norm.sf(level)
            low, high = stats.poisson.interval(1 - UNLIKELY, expected)
            assert low <= int((side > level).sum()) <= high
    assert float(found.max()) > 5 > -5 > float(found.min())
    assert found.abs().max() < 9.5
    assert torch.isfinite(found).all()


def test_the_largest_radius_is_that_of_the_smallest_word():
    assert 9 < math.sqrt(-2 * math.log(2.0**-65)) < 9.5


@pytest.mark.parametrize("count", [0, 1, 3, (1 << 15) - 1, (1 << 15) + 1, LANES * (1 << 15) + 5])
def test_any_count_of_normals_is_filled_to_its_end(count):
    found = SecureSource(key(4)).normals(count)
    assert found.shape == (count,)
    assert (found != 0).all()


def test_words_are_uniform_in_every_bit():
    words = SecureSource(key(5)).words(200_000)
    assert stats.kstest(words / 2.0**64, "uniform").pvalue > 1e-4
    for bit in range(64):
        ones = int(((words >> np.uint64(bit)) & np.uint64(1)).sum())
        assert stats.binomtest(ones, len(words)).pvalue > UNLIKELY


def test_choices_are_uniform_below_their_count():
    counts = torch.tensor([1, 2, 7] * 50_000)
    found = SecureSource(key(6)).choices(counts)
    for count in (1, 2, 7):
        share = np.bincount(found[counts == count].numpy(), minlength=count)
        assert len(share) == count
        assert count == 1 or stats.chisquare(share).pvalue > 1e-4


def test_calls_blocks_and_lanes_have_nothing_in_common():
    source = SecureSource(key(7))
    first, second = source.normals(300_000), source.normals(300_000)
    check_uncorrelated(first, second)
    size = 1 << 15
    blocks = first[: 9 * size].view(9, size)
    for one in range(9):
        for other in range(one):
            check_uncorrelated(blocks[one], blocks[other])


def test_layers_and_steps_have_nothing_in_common():
    source = SecureSource(key(8))
    check_new_each_step(source)
    weights = [nn.Parameter(torch.zeros(2000)) for _ in range(3)]
    private(weights, source).step()
    for one, other in ((0, 1), (0, 2), (1, 2)):
        check_uncorrelated(weights[one].grad, weights[other].grad)


def test_two_sources_have_nothing_in_common():
    check_fresh()


def test_a_fixed_key_repeats_for_tests_and_another_does_not():
    assert torch.equal(SecureSource(key(9)).normals(5000), SecureSource(key(9)).normals(5000))
    check_uncorrelated(SecureSource(key(9)).normals(5000), SecureSource(key(10)).normals(5000))
    with pytest.raises(ValueError, match="a key of 3 bytes"):
        SecureSource(b"abc")


def test_the_key_is_the_operating_system_s_and_neither_torch_s_nor_numpy_s_seed_reaches_it(monkeypatch):
    asked = []

    def urandom(count):
        asked.append(count)
        return key(11)

    torch.manual_seed(0)
    first = SecureSource().normals(1000)
    torch.manual_seed(0)
    assert not torch.equal(first, SecureSource().normals(1000))
    monkeypatch.setattr(os, "urandom", urandom)
    found = SecureSource().normals(1000)
    assert asked == [KEY_BYTES]
    assert torch.equal(found, SecureSource(key(11)).normals(1000))


def test_a_machine_s_cores_change_no_number(monkeypatch):
    found = []
    for cores in (1, 2, 64):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        found.append(SecureSource(key(12)).normals(200_000))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize(("sigma", "clipping_norm"), [(1.0, 1.0), (0.7, 3.0), (20.0, 1e-3)])
def test_the_noise_of_a_step_has_the_declared_deviation_over_the_public_batch(sigma, clipping_norm):
    check_level(SecureSource(key(13)), sigma, clipping_norm)


def test_every_coordinate_of_every_weight_is_noised_though_nobody_was_sampled():
    check_everywhere(SecureSource(key(14)))


@pytest.mark.parametrize("size", [0.0, 0.3, 1e4], ids=["no data", "some", "large"])
@pytest.mark.parametrize("sigma", [0.05, 1.0, 30.0])
def test_noised_sums_lie_on_one_grid_whatever_the_data(sigma, size):
    step = grid_step(sigma)
    assert sigma * GRID / 2 < step <= sigma * GRID
    weight = nn.Parameter(torch.zeros(5000))
    optimizer = private([weight], SecureSource(key(15)), noise=sigma, batch=1)
    weight.summed_grad = size * torch.randn(5000, generator=torch.Generator().manual_seed(0))
    optimizer.clip_and_accumulate()
    optimizer.add_noise()
    multiple = weight.grad.double() / step
    assert torch.equal(multiple, multiple.round())
    clear([weight])


def test_the_sum_of_the_units_is_under_the_noise_and_not_lost():
    weight = nn.Parameter(torch.zeros(100_000))
    optimizer = private([weight], SecureSource(key(16)), noise=2.0, clipping_norm=0.5)
    weight.summed_grad = torch.full((100_000,), 3.0)
    optimizer.step()
    assert float(weight.grad.mean()) == pytest.approx(3 / EXPECTED, abs=5 / EXPECTED / math.sqrt(100_000))
