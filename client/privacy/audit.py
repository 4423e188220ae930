"""An audit of the mechanism that is installed here: what canaries betray, beside what the accountant claims.

Two experiments with fair coins deciding who is in the data: one step that takes everybody, where the bound is close to
the claim, and many steps on Poisson samples, where the bound is far below it but the effect itself can be predicted.
A release of metrics takes everybody, the second time too.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from client.privacy import audit_bounds as bounds
from client.privacy import audit_metrics, audit_trainers
from client.privacy.accounting import PLD_NAME, epsilon_pld
from client.privacy.audit_bounds import Scores
from client.privacy.audit_trainers import GradSample, Releases, Trainer
from client.privacy.errors import PlanError
from client.privacy.event import MECHANISM, Event
from client.privacy.randomness import SecureSource

Audited = Literal[Trainer, "metrics"]
"""Whose steps: those of private pre-training or fine-tuning, or the release of metrics."""
CANARIES: Mapping[GradSample, int] = {"hooks": 10_000, "opacus": 10_000, "loop": 2_000}
"""What each way of summing gradients gets through in seconds; more of them narrow every band."""
METRICS_CANARIES = 4_000
"""Each of them is a release of its own."""
DELTA = 1e-5
CONFIDENCE = 0.999
"""Of the lower bound, and of all other findings together: a sound mechanism fails an audit in about 500."""
ONE_RUN_CONFIDENCE = 0.95
"""Of the bound that holds for any noise; at 99.9 % its delta term would leave nothing of it."""
ONE_STEP = Event(sample_rate=1.0, noise_multiplier=1.0, steps=1)
MANY_STEPS = Event(sample_rate=0.125, noise_multiplier=1.0, steps=50)
MANY_RELEASES = Event(sample_rate=1.0, noise_multiplier=2.0, steps=4)
"""In their place where metrics are audited."""
_LEAST_CANARIES = 200
_GUESSED = 0.1
"""Share of canaries that the one-run audit guesses about; fixed beforehand."""
_CHECKS = 7
"""That chance may fail; the count of steps it may not."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Check:
    """A number that the declared mechanism predicts, and what was measured."""

    name: str
    measured: float
    expected: float
    band: float
    """How far chance may carry it."""

    @property
    def holds(self) -> bool:
        """Whether the measured number is within the band."""
        return abs(self.measured - self.expected) <= self.band


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """What an audit found. It is about the program and no patient, so it may be shown to anyone."""

    claimed_epsilon: float
    """By the accountant, for one step that takes everybody."""
    accountant: str
    lower_bound: float
    """No mechanism with Gaussian noise and a smaller epsilon shows such scores, with the confidence below."""
    one_run_lower_bound: float
    """The same whatever the noise is, and therefore lower; at `one_run_confidence`."""
    delta: float
    confidence: float
    one_run_confidence: float
    effect_size: float
    """Of the many steps on samples."""
    effect_size_expected: float
    checks: tuple[Check, ...]
    canaries: int
    trainer: Audited
    grad_sample: str
    """Empty for metrics, which clip nothing."""
    mechanism: str
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether neither bound is larger than the claim, and all that was predicted came about."""
        least = max(self.lower_bound, self.one_run_lower_bound)
        return least <= self.claimed_epsilon and all(check.holds for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, `pass` among them."""
        checks = [{**asdict(check), "holds": check.holds} for check in self.checks]
        return {**asdict(self), "checks": checks, "pass": self.passed}


def audit(
    *,
    trainer: Audited = "pretrain",
    grad_sample: GradSample = "hooks",
    canaries: int | None = None,
    source: SecureSource | None = None,
    on_progress: Progress = lambda done, total: None,
) -> AuditResult:
    """What canaries show of a trainer that is installed, from its samples to its steps, or of the release of metrics.

    Takes seconds.

    `source` is for tests; without it, coins and noise come from the operating system.

    Raises:
        PlanError: too few canaries to tell anything.
    """
    many = MANY_RELEASES if trainer == "metrics" else MANY_STEPS
    if canaries is None:
        canaries = METRICS_CANARIES if trainer == "metrics" else CANARIES[grad_sample]
    if canaries < _LEAST_CANARIES:
        raise PlanError(f"{canaries} canaries would show nothing; give at least {_LEAST_CANARIES}")
    started, done, total = time.perf_counter(), 0, ONE_STEP.steps + many.steps

    def on_step() -> None:
        nonlocal done
        done += 1
        on_progress(done, total)

    source = source or SecureSource()
    in_N = source.chosen(canaries, 0.5)

    def releases(event: Event) -> Releases:
        if trainer == "metrics":
            return audit_metrics.releases(in_N, event, source, on_step)
        return audit_trainers.releases(in_N, event, grad_sample, source, on_step, trainer)

    once, often = releases(ONE_STEP), releases(many)
    return _judge(in_N.numpy(), once, often, many, trainer, "" if trainer == "metrics" else grad_sample, started)


def _judge(
    in_N: np.ndarray[Any, np.dtype[np.bool_]],
    once: Releases,
    often: Releases,
    many: Event,
    trainer: Audited,
    grad_sample: str,
    started: float,
) -> AuditResult:
    often_TN = often.score_TN
    canaries, inside, outside = len(in_N), once.score_TN[0, in_N], once.score_TN[0, ~in_N]
    mu = bounds.mu_lower_bound(bounds.effect_size(inside, outside), len(inside), len(outside), CONFIDENCE)
    guesses = int(_GUESSED * canaries)
    correct = bounds.guess_right(inside, outside, guesses)
    often_N = often_TN.sum(axis=0)
    return AuditResult(
        claimed_epsilon=epsilon_pld([ONE_STEP], DELTA),
        accountant=PLD_NAME,
        lower_bound=bounds.gaussian_epsilon(mu, DELTA),
        one_run_lower_bound=bounds.one_run_epsilon(correct, guesses, canaries, DELTA, ONE_RUN_CONFIDENCE),
        delta=DELTA,
        confidence=CONFIDENCE,
        one_run_confidence=ONE_RUN_CONFIDENCE,
        effect_size=bounds.effect_size(often_N[in_N], often_N[~in_N]),
        effect_size_expected=bounds.expected_effect(many),
        checks=(
            *_of_one_step(inside, outside),
            *_of_many_steps(often_TN[:, in_N], often_TN[:, ~in_N], many),
            _of_the_count(ONE_STEP.steps + many.steps, once, often),
        ),
        canaries=canaries,
        trainer=trainer,
        grad_sample=grad_sample,
        mechanism=MECHANISM,
        seconds=time.perf_counter() - started,
    )


def _of_one_step(inside: Scores, outside: Scores) -> Iterator[Check]:
    """What everybody's one step shows."""
    count = len(inside) + len(outside)
    noise_I = np.concatenate([inside - inside.mean(), outside - outside.mean()])
    yield _change("one_step.change", inside, outside, ONE_STEP)
    yield _spread("one_step.noise", noise_I, ONE_STEP)
    gap = bounds.normal_gap(CONFIDENCE, _CHECKS, count)
    yield Check(name="one_step.shape", measured=bounds.distance_from_normal(noise_I), expected=0.0, band=gap)


def _of_many_steps(inside_TI: Scores, outside_TI: Scores, many: Event) -> Iterator[Check]:
    """What many steps on samples show."""
    inside, outside = inside_TI.sum(axis=0), outside_TI.sum(axis=0)
    expected = bounds.expected_effect(many)
    yield Check(
        name="many_steps.effect_size",
        measured=bounds.effect_size(inside, outside),
        expected=expected,
        band=_z() * bounds.effect_deviation(expected, len(inside), len(outside)),
    )
    yield _change("many_steps.change", inside, outside, many)
    yield _spread("many_steps.noise", outside, many)
    pairs = outside_TI[1:].size
    along = float((outside_TI[1:] * outside_TI[:-1]).sum() / max(float((outside_TI[1:] ** 2).sum()), 1e-12))
    yield Check(name="many_steps.correlation", measured=along, expected=0.0, band=_z() / math.sqrt(pairs))


def _of_the_count(taken: int, *found: Releases) -> Check:
    """Whether the trainer counts what it does, for the ledger is charged by that after a fault."""
    return Check(name="steps.counted", measured=sum(one.counted for one in found), expected=taken, band=0.0)


def _change(name: str, inside: Scores, outside: Scores, event: Event) -> Check:
    """How much further those who are in went, over what they should have gone."""
    expected = event.steps * event.sample_rate
    noise = event.steps * event.noise_multiplier**2
    drawn = event.steps * event.sample_rate * (1 - event.sample_rate)
    deviation = math.sqrt((noise + drawn) / len(inside) + noise / len(outside))
    measured = float(inside.mean() - outside.mean()) / expected
    return Check(name=name, measured=measured, expected=1.0, band=_z() * deviation / expected)


def _spread(name: str, noise_I: Scores, event: Event) -> Check:
    """Deviation of the noise over what was declared."""
    declared = event.noise_multiplier * math.sqrt(event.steps)
    measured = float(noise_I.std(ddof=1)) / declared
    return Check(name=name, measured=measured, expected=1.0, band=_z() / math.sqrt(2 * len(noise_I)))


def _z() -> float:
    return bounds.two_sided(CONFIDENCE, _CHECKS)
