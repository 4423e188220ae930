"""Work and its charge together: reserved whole before it begins, lowered to what was done when it ends."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, cast

from client.privacy import metrics
from client.privacy.errors import PlanError
from client.privacy.event import Event
from client.privacy.ledger import Ledger
from client.privacy.ledger_rows import Charge, Purpose
from client.privacy.policy import PrivacyPolicy
from mumc_model.config import Recipe


@contextmanager
def reserved(ledger: Ledger, charge: Charge, units: Iterable[str], done: Callable[[], int]) -> Iterator[None]:
    """What is done inside is charged.

    `done` gives the steps that were taken, asked when the work has ended or failed. A process that is killed or
    interrupted has spent them all.

    Raises:
        PrivacyError: the charge is refused; nothing was charged and nothing may be done.
    """
    reservation = ledger.reserve(charge, units=units)
    try:
        yield
    except Exception:
        ledger.reconcile(reservation, done())
        raise
    ledger.reconcile(reservation, done())


def sample_rate(expected_batch: float, policy: PrivacyPolicy, name: str) -> float:
    """The public probability with which each unit enters a step; `name` is that of the setting.

    Raises:
        PlanError: it would be above 1.
    """
    if expected_batch > policy.units:
        raise PlanError(
            f"{name} is {expected_batch:g}, and this site's policy declares {policy.units:,} {policy.unit}s; choose at "
            "most that many"
        )
    return expected_batch / policy.units


@dataclass(frozen=True, kw_only=True)
class Charges:
    """What one piece of fine-tuning may be charged as."""

    run: str
    round: int
    attempt: int
    operator: str
    recipe: Recipe
    policy: PrivacyPolicy

    @property
    def sample_rate(self) -> float:
        """Public: of the units that the policy declares."""
        batch = self.recipe.privacy.finetune.expected_batch
        return sample_rate(batch, self.policy, "privacy.finetune.expected_batch")

    def steps(self) -> Charge:
        """Of the private steps."""
        privacy = self.recipe.privacy.finetune
        event = Event(
            sample_rate=self.sample_rate,
            noise_multiplier=privacy.noise_multiplier,
            steps=self.recipe.finetune.steps,
        )
        return self._charge("finetune", event, privacy.clipping_norm, privacy.expected_batch)

    def metrics(self) -> Charge:
        """Of one release of correctness and count: all units take part."""
        event = metrics.event(self.recipe.privacy.finetune.metrics_noise)
        return self._charge("metrics", event, metrics.SENSITIVITY, self.policy.units)

    def _charge(self, purpose: Purpose, event: Event, clipping_norm: float, expected_batch: float) -> Charge:
        return Charge(
            run=self.run,
            round=self.round,
            attempt=self.attempt,
            purpose=purpose,
            unit=cast(Literal["patient", "record"], self.recipe.privacy.unit),
            event=event,
            clipping_norm=clipping_norm,
            expected_batch=expected_batch,
            operator=self.operator,
        )
