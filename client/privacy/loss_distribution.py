"""Privacy loss distributions (PLD): the whole trade between epsilon and delta of one plan, fixed beforehand."""

import math
from functools import lru_cache
from typing import Any

from client.privacy.event import Event

DISCRETISATION = 1e-3
"""Width of the grid of privacy losses; every loss is rounded up to it, so that no epsilon is below the truth."""


@lru_cache(maxsize=256)
def composed(events: tuple[Event, ...]) -> Any:
    """dp-accounting's distribution of all these events together, for adding or removing one unit."""
    from dp_accounting.pld import privacy_loss_distribution  # type: ignore[import-untyped]

    total = privacy_loss_distribution.identity(value_discretization_interval=DISCRETISATION)
    for event in events:
        total = total.compose(_of_event(event))
    return total


def _of_event(event: Event) -> Any:
    """Many releases over all units are one with less noise, and need no convolution."""
    if event.sample_rate == 1:
        return _of_a_step(1.0, event.noise_multiplier / math.sqrt(event.steps))
    return _of_a_step(event.sample_rate, event.noise_multiplier).self_compose(event.steps)


@lru_cache(maxsize=256)
def _of_a_step(sample_rate: float, noise_multiplier: float) -> Any:
    from dp_accounting.pld import privacy_loss_distribution

    return privacy_loss_distribution.from_gaussian_mechanism(
        noise_multiplier, value_discretization_interval=DISCRETISATION, sampling_prob=sample_rate
    )
