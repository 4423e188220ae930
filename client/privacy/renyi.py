"""Rényi divergences of events, order by order: they add up even where later events depend on earlier releases."""

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from client.privacy.errors import PlanError
from client.privacy.event import Event

LEAST_DIVERGENCE = 1e-14
"""Charged for a step whose divergence is lost in rounding, so that no number of steps is free."""

Array = NDArray[np.float64]


@lru_cache(maxsize=1)
def orders() -> Array:
    """The Rényi orders that are looked at: dp-accounting's own, above 1."""
    from dp_accounting.rdp import rdp_privacy_accountant  # type: ignore[import-untyped]

    return np.array(rdp_privacy_accountant.DEFAULT_RDP_ORDERS, dtype=np.float64)


def divergence(events: Iterable[Event]) -> Array:
    """The Rényi divergence of all events together, one value an order; zeros for no event."""
    total = np.zeros(len(orders()))
    for event in events:
        total = total + event.steps * _of_a_step(event.sample_rate, event.noise_multiplier)
    return total


def epsilons(divergences: Array, delta: float) -> Array:
    """The epsilon that every order gives at `delta`; 0 where the divergence is too small to matter.

    Source: arXiv 2004.00010, proposition 12; delta <= sqrt(1 - exp(-KL)) for the small ones, as in dp-accounting.
    """
    alpha = orders()
    found = divergences + np.log1p(-1 / alpha) - np.log(delta * alpha) / (alpha - 1)
    free = delta**2 + np.expm1(-divergences) > 0
    return np.where(free, 0.0, np.maximum(found, 0.0))


def place(order: float | None) -> slice:
    """Where that order is among `orders`; all of them without one.

    Raises:
        PlanError: it is not among them.
    """
    if order is None:
        return slice(None)
    near = int(np.abs(orders() - order).argmin())
    if abs(orders()[near] - order) > 1e-9:
        raise PlanError(f"the Rényi order {order} is not looked at; the nearest one is {orders()[near]:g}")
    return slice(near, near + 1)


@lru_cache(maxsize=1024)
def _of_a_step(sample_rate: float, noise_multiplier: float) -> Array:
    from absl import logging
    from dp_accounting.rdp import rdp_privacy_accountant

    # Where a series does not converge dp-accounting says so on stderr and gives infinity, which is safe and enough.
    loudness = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        # Its public class gives epsilons only; a filter needs the divergence itself.
        step = rdp_privacy_accountant._compute_rdp_poisson_subsampled_gaussian(sample_rate, noise_multiplier, orders())
    finally:
        logging.set_verbosity(loudness)
    found: Array = np.maximum(np.nan_to_num(step, nan=np.inf, posinf=np.inf), LEAST_DIVERGENCE)
    found.flags.writeable = False
    return found
