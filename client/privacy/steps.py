"""What all private training has in common: one step after another, each a release of the Gaussian mechanism."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from client.privacy.deferred import DeferredGradients
from client.privacy.gradients import LoopGradients, OpacusGradients, UnitGradients, Weights
from client.privacy.optimizer import PrivateOptimizer, clear
from client.privacy.randomness import SecureSource
from mumc_model.device import own_randomness
from mumc_model.memory import reused_memory


def unit_gradients(way: str, weights: Weights, roots: Sequence[nn.Module]) -> UnitGradients:
    """The way of `privacy.grad_sample` to bound single units' gradients.

    Raises:
        CouplingError: a weight belongs to no layer that can be watched, or to two.
    """
    if way == "loop":
        return LoopGradients(weights)
    return (OpacusGradients if way == "opacus" else DeferredGradients)(weights, roots)


def take_steps(
    numbers: range,
    optimizer: PrivateOptimizer,
    source: SecureSource,
    *,
    rate: Callable[[int], float],
    draw: Callable[[], Tensor],
    add: Callable[[int, Tensor], Any],
    after: Callable[[int, Any], None],
) -> None:
    """Take the steps of these numbers; each releases noise, whatever its sample holds.

    Args:
        numbers: Of the steps.
        optimizer: Adds the noise.
        source: Seeds dropout, too.
        rate: Learning rate of a step.
        draw: The records of a step.
        add: Adds the clipped gradients of these records, and gives what `after` is told once the step is taken.
        after: Takes what is noised already.
    """
    with reused_memory(), own_randomness(optimizer.params[0].device, source.generator().initial_seed()):
        for step in numbers:
            for group in optimizer.param_groups:
                group["lr"] = rate(step)
            seen = add(step, draw())
            optimizer.step()
            clear(optimizer.params)
            after(step, seen)
