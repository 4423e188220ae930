"""What happened to a privacy unit, as plain numbers: an accountant prices it, the ledger keeps it."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from client.privacy.errors import PlanError

MECHANISM = "poisson_sampled_gaussian"
ADJACENCY = "add_or_remove_one"


@dataclass(frozen=True, kw_only=True, order=True)
class Event:
    """`steps` releases of a sum of unit vectors over a Poisson sample, each with Gaussian noise."""

    sample_rate: float
    """Probability with which each unit enters a step; 1 is a release over all units."""
    noise_multiplier: float
    """Deviation of the noise over the largest change that one unit can make to the sum."""
    steps: int

    def __post_init__(self) -> None:
        """Refuse what no accountant could price."""
        if not 0 < self.sample_rate <= 1:
            raise PlanError(f"the sample rate is {self.sample_rate}; choose it above 0 and at most 1")
        if not 0 < self.noise_multiplier < math.inf:
            raise PlanError(f"the noise multiplier is {self.noise_multiplier}; choose a finite number above 0")
        if self.steps < 0:
            raise PlanError(f"an event of {self.steps} steps cannot be; choose 0 or more")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, the mechanism and the adjacency named."""
        return {"mechanism": MECHANISM, "adjacency": ADJACENCY, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Event":
        """The event that `to_dict` wrote.

        Raises:
            PlanError: it names another mechanism or adjacency, or its numbers are impossible.
        """
        fields = dict(values)
        named = fields.pop("mechanism", None), fields.pop("adjacency", None)
        if named != (MECHANISM, ADJACENCY) or set(fields) != {"sample_rate", "noise_multiplier", "steps"}:
            raise PlanError(f"an event of {named} is not known here; this program prices {MECHANISM}, {ADJACENCY}")
        return cls(**fields)


def merge(events: Iterable[Event]) -> tuple[Event, ...]:
    """The same history with equal rows added up, in canonical order; events without steps are left out."""
    steps: dict[tuple[float, float], int] = {}
    for event in events:
        key = event.sample_rate, event.noise_multiplier
        steps[key] = steps.get(key, 0) + event.steps
    return tuple(
        Event(sample_rate=rate, noise_multiplier=noise, steps=count)
        for (rate, noise), count in sorted(steps.items())
        if count
    )
