"""The installed release of metrics, made again and again over made-up answers: each time one more patient is in or not.

A canary answers all of its questions rightly, which is as far as one patient can move the sum. What is known of
everybody else is taken away from a release, as the adversary of the promise can do too.

Dimensions: N canaries, T releases.
"""

from collections.abc import Callable, Iterator

import numpy as np
from torch import Tensor

from client.privacy import metrics
from client.privacy.audit_trainers import Releases
from client.privacy.event import Event
from client.privacy.randomness import SecureSource

_QUESTIONS = 3
"""Of each patient, who counts once all the same."""
_OTHERS = 12


def releases(in_N: Tensor, event: Event, source: SecureSource, on_step: Callable[[], None]) -> Releases:
    """The releases about data with one canary each, or without it; each canary is told of so often as there are steps.

    The steps that the ledger would be charged for one release are counted.
    """
    found, counted = [], 0
    for _ in range(event.steps):
        found.append([_score(bool(inside), event.noise_multiplier, source) for inside in in_N.tolist()])
        counted += metrics.event(event.noise_multiplier).steps
        on_step()
    return Releases(np.array(found, dtype=np.float64), counted)


def _score(inside: bool, noise_multiplier: float, source: SecureSource) -> float:
    """How far the release lies from what others alone give, along a canary's part of the sum and over its length."""
    answers = [*_others(), *((True, "canary") for _ in range(_QUESTIONS * inside))]
    rights, units = zip(*answers, strict=True)
    released = metrics.release(metrics.correctness(rights, units), noise_multiplier, source)
    above_half = released.above_half - sum(right - 0.5 for right, _ in _others()) / _QUESTIONS
    count = released.count - _OTHERS
    return (above_half / 2 + count) / (1 / 4 + 1)


def _others() -> Iterator[tuple[bool, str]]:
    """Whether each question of everybody else was answered rightly, and whose it is."""
    for unit in range(_OTHERS):
        yield from ((question < unit % (_QUESTIONS + 1), f"patient {unit}") for question in range(_QUESTIONS))
