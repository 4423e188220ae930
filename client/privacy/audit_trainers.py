"""The installed trainers, taking their steps on canaries: from the sample to the step nothing of them is replaced.

Model and loss are the canaries', and the wrapped optimiser is plain descent, after which the weights show a step's
release as it is.

Dimensions: N canaries, T steps.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from client.privacy.audit_bounds import Scores
from client.privacy.audit_canaries import CLIPPING_NORM, CanaryModel, CanaryQuestions, CanaryRecords
from client.privacy.event import Event
from client.privacy.finetune_train import PrivateFinetuner
from client.privacy.optimizer import PrivateOptimizer
from client.privacy.randomness import SecureSource
from client.privacy.steps import unit_gradients
from client.privacy.train import PrivatePretrainer
from mumc_model.config import FinetuneConfig, ObjectiveConfig, OptimizerConfig, PretrainConfig
from mumc_model.privacy import PrivacyConfig, PrivateFinetuneConfig

GradSample = Literal["hooks", "opacus", "loop"]
Trainer = Literal["pretrain", "finetune"]
OnStep = Callable[[], None]

_PHYSICAL_BATCH = 256
_PLAIN = OptimizerConfig(lr=1.0, schedule="constant")


class CanaryPretrainer(PrivatePretrainer):
    """The trainer of private rounds."""

    def __init__(self, canaries: int, event: Event, grad_sample: GradSample, source: SecureSource) -> None:
        """A trainer for this mechanism. MUMC's model, teacher and bank are not built."""
        self.expected_batch = expected_batch(event, canaries)
        recipe: Any = SimpleNamespace(
            objective=ObjectiveConfig(),
            pretrain=PretrainConfig(optimizer=_PLAIN),
            privacy=PrivacyConfig(
                unit="patient",
                noise_multiplier=event.noise_multiplier,
                clipping_norm=CLIPPING_NORM,
                expected_batch=self.expected_batch,
                physical_batch=_PHYSICAL_BATCH,
                grad_sample=grad_sample,
            ),
        )
        self.recipe, self.source, self.canaries = recipe, source, CanaryModel(canaries)
        taught: Any = SimpleNamespace(restart=lambda: None, update=lambda momentum: None)
        plain: Any = torch.optim.SGD(self.canaries.parameters(), lr=1.0)
        model: Any = self.canaries
        self.model, self.teacher, self.optimizer = model, taught, plain
        self.adapters = self.mim_decoder = None
        self.roots, self.weights = [self.canaries], dict(self.canaries.named_parameters())
        self.gradients = unit_gradients(grad_sample, self.weights, self.roots)
        self.steps_done = 0

    def take(self, in_N: Tensor, event: Event, on_step: OnStep) -> None:
        """Take the event's steps on the canaries that are in the data."""
        site = CanaryRecords(len(in_N)).site(in_N, event.sample_rate)
        steps = event.steps
        self.run(site, first_step=0, steps=steps, total_steps=steps, on_step=lambda step, losses: on_step())

    def _encode_bank(self) -> None:
        """Canaries contrast with nothing."""

    def _units(self, pairs: Any, *_: Any) -> Any:
        return pairs

    def _loss(self, alpha: float, seen: list[Mapping[str, Tensor]]) -> Callable[[Any], Tensor]:
        return self.canaries.loss


class CanaryFinetuner(PrivateFinetuner):
    """The trainer of private fine-tuning."""

    def __init__(self, canaries: int, event: Event, grad_sample: GradSample, source: SecureSource) -> None:
        """A trainer for this mechanism. No answering model is built."""
        self.expected_batch = expected_batch(event, canaries)
        settings = PrivateFinetuneConfig(
            noise_multiplier=event.noise_multiplier,
            clipping_norm=CLIPPING_NORM,
            expected_batch=self.expected_batch,
            physical_batch=_PHYSICAL_BATCH,
        )
        recipe: Any = SimpleNamespace(
            finetune=FinetuneConfig(steps=event.steps, optimizer=_PLAIN), privacy=SimpleNamespace(finetune=settings)
        )
        self.recipe, self.source, self.canaries = recipe, source, CanaryModel(canaries)
        model: Any = self.canaries
        head = SimpleNamespace(decoder=SimpleNamespace(bias=None))
        # The words of a decoder are given their names back at the end of a run; canaries have none.
        model.text_decoder = SimpleNamespace(cls=SimpleNamespace(predictions=head))
        self.model, self.weights = model, dict(self.canaries.named_parameters())
        self.gradients = unit_gradients(grad_sample, self.weights, [self.canaries])
        self.steps_done = 0

    def take(self, in_N: Tensor, event: Event, on_step: OnStep) -> None:
        """Take the event's steps on the canaries that are in the data."""
        questions: Any = CanaryQuestions(in_N)
        self.run(questions, event.sample_rate, on_step=lambda done, loss: on_step())

    def _private(self) -> PrivateOptimizer:
        optimizer = super()._private()
        optimizer.original_optimizer = torch.optim.SGD(self.canaries.parameters(), lr=1.0)
        return optimizer

    def _loss(self, seen: list[Tensor]) -> Callable[[Any], Tensor]:
        return self.canaries.loss


TRAINERS: Mapping[Trainer, type[CanaryPretrainer] | type[CanaryFinetuner]] = {
    "pretrain": CanaryPretrainer,
    "finetune": CanaryFinetuner,
}


def expected_batch(event: Event, canaries: int) -> int:
    """Public, and not that of the half that are in: else a division by how many were drawn would not show."""
    return max(1, round(event.sample_rate * canaries / 3))


@dataclass(frozen=True)
class Releases:
    """What a trainer's steps gave away."""

    score_TN: Scores
    """Of all canaries after each step, in clipping norms."""
    counted: int
    """Steps by the trainer's own count."""


def releases(
    in_N: Tensor,
    event: Event,
    grad_sample: GradSample,
    source: SecureSource,
    on_step: OnStep = lambda: None,
    name: Trainer = "pretrain",
) -> Releases:
    """The releases of so many steps on the canaries that are in the data."""
    trainer = TRAINERS[name](len(in_N), event, grad_sample, source)
    found = []

    def read() -> None:
        scores_N = trainer.canaries.scores().double().numpy()
        found.append(scores_N * (trainer.expected_batch / CLIPPING_NORM))
        trainer.canaries.restore()
        on_step()

    trainer.take(in_N, event, read)
    return Releases(np.stack(found), trainer.steps_done)
