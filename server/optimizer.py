"""What the server does with the mean difference: adopt it, or take it as the (negative) gradient of an optimiser.

Source: Reddi et al., "Adaptive Federated Optimization", arXiv 2003.00295, algorithm 2 (FedAdam, FedYogi); Hsu et al.,
arXiv 1909.06335 (FedAvgM). As there, moments are not corrected for their start, and the second starts at tau squared.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from server.config import StrategyConfig
from server.merge import slices
from server.sweep import in_parts, sizes_of

Array = np.ndarray[Any, Any]
Moments = dict[str, Array]

FIRST, SECOND = "first", "second"
_MOMENTS: dict[str, tuple[str, ...]] = {
    "none": (),
    "momentum": (FIRST,),
    "adam": (FIRST, SECOND),
    "yogi": (FIRST, SECOND),
}


class ServerOptimizer:
    """Moments of the mean differences, in float32 or as precise as the weights; the arithmetic is float64."""

    def __init__(self, config: StrategyConfig, sizes: Mapping[str, int]) -> None:
        """Start afresh; `sizes` says how many weights there are of each type (`WeightSchema.flat_sizes`)."""
        self._config = config
        self._step = _STEPS[config.optimizer]
        starts = {FIRST: 0.0, SECOND: config.tau**2}
        self._moments = {
            moment: {dtype: np.full(size, starts[moment], _precise(dtype)) for dtype, size in sizes.items()}
            for moment in _MOMENTS[config.optimizer]
        }

    def step(self, weights: Mapping[str, Array], mean: Mapping[str, Array]) -> dict[str, Array]:
        """The packed weights after one step along the packed mean difference; the given ones are left as they were.

        What overflows is infinite, and numpy says nothing of it.
        """
        stepped = {dtype: np.empty_like(flat) for dtype, flat in weights.items()}

        def move(dtype: str, part: slice) -> None:
            # numpy keeps such settings for each thread apart.
            with np.errstate(over="ignore", invalid="ignore"):
                self._move(dtype, part, weights[dtype][part], mean[dtype][part], stepped[dtype][part])

        in_parts(sizes_of(weights), move)
        return stepped

    def _move(self, dtype: str, whole: slice, weights: Array, mean: Array, stepped: Array) -> None:
        lr, held = self._config.lr, {name: state[dtype][whole] for name, state in self._moments.items()}
        if not held and lr == 1 and weights.dtype == mean.dtype:
            # The sum in twice the precision, rounded once more, has the same bits.
            np.add(weights, mean, out=stepped)
            return
        for part in slices(mean.size):
            moments = {name: state[part] for name, state in held.items()}
            direction = self._step(mean[part].astype(np.float64), moments, self._config)
            stepped[part] = weights[part] + lr * direction

    def state_dict(self) -> dict[str, Array]:
        """The moments by name, for safetensors."""
        return {f"{moment}.{dtype}": a for moment, state in self._moments.items() for dtype, a in state.items()}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Take up moments that `state_dict` gave.

        Raises:
            ValueError: the moments are those of another optimiser or model.
        """
        own = self.state_dict()
        shapes = {name: (array.shape, array.dtype) for name, array in state.items()}
        if shapes != {name: (array.shape, array.dtype) for name, array in own.items()}:
            raise ValueError(
                f"the saved optimiser holds {_describe(state)}, but {self._config.optimizer} for these weights needs "
                f"{_describe(own)}; go on with the strategy and model that the run began with"
            )
        for name, array in state.items():
            own[name][:] = array


def _adopt(mean: Array, moments: Moments, config: StrategyConfig) -> Array:
    return mean


def _momentum(mean: Array, moments: Moments, config: StrategyConfig) -> Array:
    moments[FIRST][:] = config.betas[0] * moments[FIRST] + mean
    return moments[FIRST]


def _adam(mean: Array, moments: Moments, config: StrategyConfig) -> Array:
    second, square = moments[SECOND], np.square(mean)
    second[:] = config.betas[1] * second.astype(np.float64) + (1 - config.betas[1]) * square
    return _adapted(mean, moments, config)


def _yogi(mean: Array, moments: Moments, config: StrategyConfig) -> Array:
    second, square = moments[SECOND], np.square(mean)
    second[:] = second - (1 - config.betas[1]) * square * np.sign(second - square)
    return _adapted(mean, moments, config)


def _adapted(mean: Array, moments: Moments, config: StrategyConfig) -> Array:
    first, second = moments[FIRST], moments[SECOND]
    first[:] = config.betas[0] * first.astype(np.float64) + (1 - config.betas[0]) * mean
    direction: Array = first / (np.sqrt(second.astype(np.float64)) + config.tau)
    return direction


_STEPS: dict[str, Callable[[Array, Moments, StrategyConfig], Array]] = {
    "none": _adopt,
    "momentum": _momentum,
    "adam": _adam,
    "yogi": _yogi,
}


def _precise(dtype: str) -> np.dtype[Any]:
    return np.promote_types(dtype, np.float32)


def _describe(state: Mapping[str, Array]) -> str:
    return ", ".join(f"{name} ({array.size})" for name, array in sorted(state.items())) or "nothing"
