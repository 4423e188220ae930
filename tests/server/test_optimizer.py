import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from server.config import StrategyConfig
from server.optimizer import ServerOptimizer
from server.spool import BLOCK

UNTIMED = settings(deadline=None, max_examples=50)

ROUNDS = st.lists(
    st.lists(st.floats(-10, 10, width=32), min_size=4, max_size=4).map(lambda v: np.array(v, "float64")),
    min_size=1,
    max_size=5,
)
BETAS = st.tuples(st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([0.0, 0.9, 0.99]))
START = np.array([1.0, -2.0, 0.5, 0.0])


def played(config, rounds, start=START):
    optimizer = ServerOptimizer(config, {str(start.dtype): start.size})
    weights = {str(start.dtype): start}
    for mean in rounds:
        weights = optimizer.step(weights, {str(start.dtype): mean})
    return weights[str(start.dtype)]


@UNTIMED
@given(ROUNDS)
def test_none_adopts_the_mean_difference(rounds):
    np.testing.assert_allclose(played(StrategyConfig(), rounds), START + sum(rounds), rtol=1e-12, atol=1e-12)


def test_one_round_of_none_is_federated_averaging():
    sites = np.array([[1.0, 2, 3, 4], [3.0, 2, 1, 0]])
    mean = np.average(sites - START, axis=0, weights=[1, 3])
    np.testing.assert_allclose(played(StrategyConfig(), [mean]), np.average(sites, axis=0, weights=[1, 3]), rtol=1e-15)


@UNTIMED
@given(ROUNDS, st.sampled_from([0.0, 0.5, 0.9]))
def test_momentum_matches_torch_sgd_on_the_pseudo_gradient(rounds, beta):
    weight = torch.tensor(START, requires_grad=True)
    oracle = torch.optim.SGD([weight], lr=0.5, momentum=beta)
    for mean in rounds:
        weight.grad = -torch.tensor(mean)
        oracle.step()
    config = StrategyConfig(optimizer="momentum", lr=0.5, betas=(beta, 0.0))
    np.testing.assert_allclose(played(config, rounds), weight.detach().numpy(), rtol=1e-12, atol=1e-12)


@UNTIMED
@given(ROUNDS, BETAS, st.sampled_from([1e-3, 1e-1]))
def test_adam_matches_torch_adam_once_its_bias_correction_is_undone(rounds, betas, tau):
    """Torch divides the moments by 1 - beta ** t and starts them at 0; the paper does neither."""
    lr = 0.1
    weight = torch.tensor(START, requires_grad=True)
    oracle = torch.optim.Adam([weight], betas=betas)
    oracle.state[weight] = {
        "step": torch.tensor(0.0),
        "exp_avg": torch.zeros(4, dtype=torch.float64),
        "exp_avg_sq": torch.full((4,), tau**2, dtype=torch.float64),
    }
    for t, mean in enumerate(rounds, 1):
        first, second = 1 - betas[0] ** t, (1 - betas[1] ** t) ** 0.5
        oracle.param_groups[0].update(lr=lr * first / second, eps=tau / second)
        weight.grad = -torch.tensor(mean)
        oracle.step()
    config = StrategyConfig(optimizer="adam", lr=lr, betas=betas, tau=tau)
    np.testing.assert_allclose(played(config, rounds), weight.detach().numpy(), rtol=1e-9, atol=1e-12)


@UNTIMED
@given(ROUNDS, BETAS, st.sampled_from([1e-3, 1e-1]))
def test_yogi_matches_algorithm_2_written_out_for_one_weight_at_a_time(rounds, betas, tau):
    lr, expected = 0.1, []
    for i, x in enumerate(START):
        m, v = 0.0, tau**2
        for mean in rounds:
            d = float(mean[i])
            m = betas[0] * m + (1 - betas[0]) * d
            sign = (v > d * d) - (v < d * d)
            v = v - (1 - betas[1]) * d * d * sign
            x = x + lr * m / (v**0.5 + tau)
        expected.append(x)
    config = StrategyConfig(optimizer="yogi", lr=lr, betas=betas, tau=tau)
    np.testing.assert_allclose(played(config, rounds), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["adam", "yogi"])
@UNTIMED
@given(ROUNDS)
def test_the_second_moment_is_never_negative(name, rounds):
    optimizer = ServerOptimizer(StrategyConfig(optimizer=name, betas=(0.9, 0.0)), {"float64": 4})
    for mean in rounds:
        optimizer.step({"float64": START}, {"float64": mean})
        assert np.all(optimizer.state_dict()["second.float64"] >= 0)


@pytest.mark.parametrize("name", ["none", "momentum", "adam", "yogi"])
def test_a_saved_optimiser_goes_on_to_the_last_bit(name):
    config = StrategyConfig(optimizer=name, lr=0.1)
    rng = np.random.default_rng(0)
    means = [{"float32": rng.normal(size=9)} for _ in range(4)]
    optimizer, weights = ServerOptimizer(config, {"float32": 9}), {"float32": np.zeros(9, "float32")}
    for mean in means[:2]:
        weights = optimizer.step(weights, mean)
    resumed = ServerOptimizer(config, {"float32": 9})
    resumed.load_state_dict({n: a.copy() for n, a in optimizer.state_dict().items()})
    other = weights
    for mean in means[2:]:
        weights, other = optimizer.step(weights, mean), resumed.step(other, mean)
    assert weights["float32"].tobytes() == other["float32"].tobytes()


def test_the_moments_of_another_optimiser_are_refused():
    adam = ServerOptimizer(StrategyConfig(optimizer="adam"), {"float32": 3})
    momentum = ServerOptimizer(StrategyConfig(optimizer="momentum"), {"float32": 3})
    with pytest.raises(ValueError, match=r"holds first.float32 \(3\), but adam .* needs .*second"):
        adam.load_state_dict(momentum.state_dict())
    with pytest.raises(ValueError, match=r"first.float32 \(2\)"):
        momentum.load_state_dict({"first.float32": np.zeros(2, "float32")})


@pytest.mark.parametrize("name", ["none", "momentum", "adam", "yogi"])
def test_a_step_keeps_types_and_the_weights_it_was_given(name):
    optimizer = ServerOptimizer(StrategyConfig(optimizer=name), {"float16": 2, "float32": 70_000})
    weights = {"float16": np.ones(2, "float16"), "float32": np.ones(70_000, "float32")}
    stepped = optimizer.step(weights, {"float16": np.ones(2), "float32": np.ones(70_000)})
    assert {n: a.dtype.name for n, a in stepped.items()} == {"float16": "float16", "float32": "float32"}
    assert all((a == 1).all() for a in weights.values())
    assert all((a > 1).all() for a in stepped.values())


@UNTIMED
@given(st.lists(st.tuples(*[st.floats(width=32, allow_nan=False, allow_infinity=False)] * 2), min_size=1))
def test_a_mean_that_is_adopted_as_it_is_gives_the_bits_of_the_sum_in_float64(pairs):
    start, mean = np.array(pairs, "float32").T.copy()
    with np.errstate(over="ignore"):
        exact = (start + mean.astype("float64")).astype("float32")
    assert played(StrategyConfig(optimizer="none", lr=1.0), [mean], start).tobytes() == exact.tobytes()


def test_large_weights_take_the_steps_that_small_ones_take_value_by_value():
    rng = np.random.default_rng(0)
    mean, start = rng.standard_normal((2, 3 * 8 * BLOCK + 17), dtype="float32")
    config = StrategyConfig(optimizer="yogi", lr=0.1)
    some = rng.integers(0, start.size, 1000)
    assert np.array_equal(
        played(config, [mean, 2 * mean], start)[some], played(config, [mean[some], 2 * mean[some]], start[some])
    )
