"""Canaries through the trainer that a private round uses: its loop, sampler, unit gradients, noise, scale and step.

A canary is a patient with two records whose gradient is far longer than the clipping norm and points where nobody
else's does. So after a step, that direction of the weights holds what the canary added, and noise.

Dimensions: N canaries, R records, B units, W width, T steps.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from client.privacy.audit_bounds import Scores
from client.privacy.event import Event
from client.privacy.randomness import SecureSource
from client.privacy.steps import unit_gradients
from client.privacy.train import PrivatePretrainer, PrivateSite
from mumc_model.config import ObjectiveConfig, OptimizerConfig, PretrainConfig
from mumc_model.privacy import PrivacyConfig

GradSample = Literal["hooks", "opacus", "loop"]
OnStep = Callable[[], None]

CLIPPING_NORM = 0.5
"""Not 1, so that a forgotten or a doubled factor of it shows."""
_LENGTH = 100.0
"""Of a canary's gradient, over the clipping norm and more."""
_RECORDS = 2
"""Records of each canary, of which a step may take one."""
_PHYSICAL_BATCH = 256


@dataclass(frozen=True)
class CanaryBatch:
    """Canaries as units of a batch."""

    canary_B1: Tensor

    def __len__(self) -> int:
        """Units."""
        return len(self.canary_B1)

    def part(self, first: int, last: int) -> "CanaryBatch":
        """The units from `first` to before `last`."""
        return CanaryBatch(self.canary_B1[first:last])


class CanaryModel(nn.Module):
    """A row for each canary in two tables, one of which is looked up twice, and a linear layer behind both.

    A length that misses a table, or one of the two calls, is too short, and the canary adds too much. At rows of zero
    the linear layer's own gradient is zero, so all of a canary's gradient lies in its two rows.
    """

    def __init__(self, canaries: int) -> None:
        super().__init__()
        self.first = nn.Embedding.from_pretrained(torch.zeros(canaries, 2), freeze=False)
        self.second = nn.Embedding.from_pretrained(torch.zeros(canaries, 2), freeze=False)
        self.mix = nn.Linear(2, 2, bias=False)
        self._mix_WW = torch.tensor([[0.6, 0.8], [-0.8, 0.6]])
        self.restore()

    def loss(self, batch: CanaryBatch) -> Tensor:
        """Each unit's loss B."""
        ids = batch.canary_B1
        state_B1W = self.first(ids) + self.second(ids) + self.first(ids)
        loss_B: Tensor = self.mix(state_B1W).sum(dim=(1, 2))
        return -_LENGTH * loss_B

    @torch.no_grad()
    def scores(self) -> Tensor:
        """How far the weights went N along the direction of each canary's gradient."""
        along_W = nn.functional.normalize(self._mix_WW.sum(dim=0), dim=0)
        moved_NW: Tensor = (2 * self.first.weight + self.second.weight) / 5**0.5
        return moved_NW @ along_W

    @torch.no_grad()
    def restore(self) -> None:
        """Begin again, so that every step's release is about the same weights."""
        self.first.weight.zero_()
        self.second.weight.zero_()
        self.mix.weight.copy_(self._mix_WW)


class CanaryRecords:
    """Two records of every canary, of those too that are not in the data and must never be drawn."""

    tokenizer = SimpleNamespace(cls_id=0, mask_id=0)
    """Canaries have no words."""

    def __init__(self, canaries: int) -> None:
        self._canary_R = torch.arange(canaries).repeat_interleave(_RECORDS)

    def pairs(self, row_B: Tensor, generator: torch.Generator) -> CanaryBatch:
        """The canaries of these records."""
        return CanaryBatch(self._canary_R[row_B][:, None])

    def site(self, in_N: Tensor, sample_rate: float) -> PrivateSite:
        """The data of which these canaries are a part."""
        row_R = in_N[self._canary_R].nonzero()[:, 0]
        units = tuple(f"canary {number}" for number in self._canary_R[row_R].tolist())
        records: Any = self
        return PrivateSite(records=records, rows=row_R, units=units, patients=frozenset(units), sample_rate=sample_rate)


class CanaryTrainer(PrivatePretrainer):
    """The trainer of private rounds with canaries' model and loss. From the sample to the step nothing is replaced.

    The wrapped optimiser is plain descent, after which the weights show a step's release as it is.
    """

    def __init__(self, canaries: int, event: Event, grad_sample: GradSample, source: SecureSource) -> None:
        """A trainer for this mechanism. MUMC's model, teacher and bank are not built."""
        # Public, and not the half that are in: else a division by how many were drawn would not show.
        self.expected_batch = max(1, round(event.sample_rate * canaries / 3))
        recipe: Any = SimpleNamespace(
            objective=ObjectiveConfig(),
            pretrain=PretrainConfig(optimizer=OptimizerConfig(lr=1.0, schedule="constant")),
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

    def _encode_bank(self) -> None:
        """Canaries contrast with nothing."""

    def _units(self, pairs: Any, *_: Any) -> Any:
        return pairs

    def _loss(self, alpha: float, seen: list[Mapping[str, Tensor]]) -> Callable[[Any], Tensor]:
        return self.canaries.loss


@dataclass(frozen=True)
class Releases:
    """What a trainer's steps gave away."""

    score_TN: Scores
    """Of all canaries after each step, in clipping norms."""
    counted: int
    """Steps by the trainer's own count."""


def releases(
    in_N: Tensor, event: Event, grad_sample: GradSample, source: SecureSource, on_step: OnStep = lambda: None
) -> Releases:
    """The releases of so many steps on the canaries that are in the data."""
    trainer = CanaryTrainer(len(in_N), event, grad_sample, source)
    found = []

    def read(step: int, losses: Mapping[str, float]) -> None:
        scores_N = trainer.canaries.scores().double().numpy()
        found.append(scores_N * (trainer.expected_batch / CLIPPING_NORM))
        trainer.canaries.restore()
        on_step()

    site = CanaryRecords(len(in_N)).site(in_N, event.sample_rate)
    trainer.run(site, first_step=0, steps=event.steps, total_steps=event.steps, on_step=read)
    return Releases(np.stack(found), trainer.steps_done)
