"""Dropout: what is dropped, how the others grow, and that the one pass gives what two would."""

import pytest
import torch

from mumc_model.dropout import drop, drop_and_add


def noise(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_share_is_dropped_and_the_mean_stays(share, dtype):
    torch.manual_seed(0)
    dropped = drop(torch.ones(400, 501, dtype=dtype), share, training=True)
    places = (dropped == 0).double()
    four_deviations = 4 * (share * (1 - share) / places.numel()) ** 0.5
    assert places.mean() == pytest.approx(share, abs=four_deviations)
    zero, kept = dropped.unique().tolist()
    assert (zero, kept) == (0.0, pytest.approx(1 / (1 - share), rel=4e-3 if dtype == torch.bfloat16 else 1e-5))
    assert dropped.dtype == dtype


def test_places_are_dropped_apart_from_their_neighbours():
    torch.manual_seed(1)
    dropped = (drop(torch.ones(1_000_000), 0.25, training=True) == 0).double()
    for distance in (1, 2, 3, 4, 8):
        both = (dropped[distance:] * dropped[:-distance]).mean()
        assert both == pytest.approx(0.0625, abs=0.0015)


def test_a_sum_with_what_is_left_is_the_same_in_one_pass_gradients_included():
    results = []
    for one_pass in (True, False):
        values, residual = noise(5, 7).requires_grad_(), noise(5, 7).add(1).requires_grad_()
        torch.manual_seed(3)
        if one_pass:
            out = drop_and_add(values, residual, 0.3, training=True)
        else:
            out = drop(values, 0.3, training=True) + residual
        out.square().sum().backward()
        results.append((out, values.grad, residual.grad))
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two)


def test_precisions_that_differ_are_added_as_torch_does():
    values, residual = noise(3, 4).bfloat16(), noise(3, 4)
    assert drop_and_add(values, residual, 0.3, training=True).dtype == torch.float32


@pytest.mark.parametrize(("share", "training"), [(0.0, True), (0.3, False)])
def test_nothing_is_dropped_or_drawn_without_a_share_or_outside_training(share, training):
    values, state = noise(3, 4), torch.get_rng_state()
    assert torch.equal(drop(values, share, training=training), values)
    assert torch.equal(drop_and_add(values, values, share, training=training), 2 * values)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_seed_fixes_what_is_dropped():
    drawn = []
    for _ in range(2):
        torch.manual_seed(7)
        drawn.append(drop(torch.ones(33), 0.5, training=True))
    assert torch.equal(*drawn)
