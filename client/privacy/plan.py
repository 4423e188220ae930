"""A what-if question about a privacy budget, and its answer, as plain numbers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from client.privacy.errors import PlanError
from client.privacy.event import ADJACENCY, Event
from client.privacy.limits import check_delta_for, check_epsilon

Curve = tuple[tuple[float, float], ...]
"""Points (x, y), in the order of x."""


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """What would be run: either the noise is given, or the epsilon that it should keep."""

    patients: int
    """A public lower bound of how many there are."""
    batch: int
    """Patients that a step takes on average."""
    steps: int
    """Of one round."""
    rounds: int = 1
    noise_multiplier: float | None = None
    epsilon: float | None = None
    delta: float
    cap: float | None = None
    """The largest epsilon of the life-time, by RDP."""
    order: float | None = None
    """The Rényi order that the site's filter is fixed to; the best one without."""
    spent: tuple[Event, ...] = ()
    """What the site's ledger has charged already."""

    def __post_init__(self) -> None:
        """Refuse what cannot be planned."""
        for name in ("patients", "batch", "steps", "rounds"):
            if getattr(self, name) < 1:
                raise PlanError(f"{name} is {getattr(self, name)}; choose at least 1")
        if self.batch > self.patients:
            raise PlanError(
                f"a batch of {self.batch:,} is more than the {self.patients:,} patients; choose a smaller one"
            )
        check_delta_for(self.delta, self.patients)
        self._check_target()
        if self.cap is not None:
            check_epsilon(self.cap, "the cap")

    def _check_target(self) -> None:
        given = [name for name in ("noise_multiplier", "epsilon") if getattr(self, name) is not None]
        if len(given) != 1:
            count = "both" if given else "neither"
            raise PlanError(f"{count} of noise and epsilon is given; give one, the other follows from it")
        if self.epsilon is not None:
            check_epsilon(self.epsilon)
        else:
            self.event(self.noise_multiplier or 0.0)

    @property
    def sample_rate(self) -> float:
        """Probability with which a patient is in a step."""
        return self.batch / self.patients

    def event(self, noise_multiplier: float, *, steps: int | None = None) -> Event:
        """The whole plan with that noise, or so many steps of it."""
        steps = self.steps * self.rounds if steps is None else steps
        return Event(sample_rate=self.sample_rate, noise_multiplier=noise_multiplier, steps=steps)


@dataclass(frozen=True, kw_only=True)
class Sketch:
    """What RDP alone says of a request, which is quick enough to be drawn anew while a slider moves."""

    unit: str = "patient"
    adjacency: str = ADJACENCY
    patients: int
    batch: int
    rounds: int
    steps_a_round: int
    steps: int
    """Of all rounds."""
    sample_rate: float
    noise_multiplier: float
    delta: float
    epsilon_rdp: float
    """Of the whole plan alone, by `accountant_rdp` at the best order."""
    accountant_rdp: str
    cap: float | None
    epsilon_spent: float
    """Before the plan, by `accountant_rdp`."""
    epsilon_after: float
    """Of what was spent and the whole plan together, by `accountant_rdp`."""
    stops_at_step: int | None
    """The last step that fits under the cap, counted over all rounds; None without a cap or where all fit."""
    stops_at_round: int | None
    """The first round that no longer fits as a whole, and so is refused; None without a cap or where all fit."""
    doubled_epsilon_after: float
    """Of what was spent and the plan with twice the rounds, by `accountant_rdp`."""
    epsilon_after_over_steps: Curve
    """With what was spent, by `accountant_rdp`."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Plan(Sketch):
    """What the request would cost, where it would stop, and what an attacker could gain."""

    epsilon: float
    """Of the whole plan alone, by `accountant`."""
    accountant: str
    doubled_epsilon: float
    """Of the plan with twice the rounds, by `accountant`."""
    false_positive_rate: float
    true_positive_rate: float
    """The largest of any test for a patient's presence at that false-positive rate."""
    posterior: float
    """The most that a prior belief of 50 % in a patient's presence can become."""
    epsilon_over_steps: Curve
    """Of the plan alone, by `accountant`."""
    epsilon_over_delta: Curve
    """Of the whole plan alone, by `accountant`."""
    noise_over_cap: Curve
    """The least noise with which the whole plan would fit under a cap, by `accountant_rdp`."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Plan":
        """The plan that `to_dict` wrote, also through JSON.

        Raises:
            TypeError: a field is missing or unknown, or a curve holds no pairs.
            ValueError: a curve holds no pairs.
        """
        curves = {name: curve for name, curve in values.items() if "_over_" in name}
        pairs = {name: tuple((float(x), float(y)) for x, y in curve) for name, curve in curves.items()}
        return cls(**{**values, **pairs})
