"""Canaries through the installed mechanism: sampler, unit gradients, optimiser and noise as a private round uses them.

A canary is a patient with two records whose gradient is far longer than the clipping norm and points where nobody
else's does. So after a step, that direction of the weights holds what the canary added, and noise.

Dimensions: N canaries, R records, S sampled records, B units, W width, T steps.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from client.privacy.audit_bounds import Scores
from client.privacy.deferred import DeferredGradients
from client.privacy.event import Event
from client.privacy.gradients import LoopGradients, OpacusGradients, UnitGradients, Weights
from client.privacy.optimizer import PrivateOptimizer, clear
from client.privacy.randomness import SecureSource
from client.privacy.sampling import PoissonSampler

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


def releases(
    in_N: Tensor, event: Event, grad_sample: GradSample, source: SecureSource, on_step: OnStep = lambda: None
) -> Scores:
    """Scores TN in clipping norms of all canaries after each step on those that are in the data."""
    model = CanaryModel(len(in_N))
    weights = dict(model.named_parameters())
    gradients = _unit_gradients(grad_sample, weights, model)
    # Public, and not the number that are in.
    expected_batch = event.sample_rate * len(in_N) / 2
    optimizer = PrivateOptimizer(
        torch.optim.SGD(model.parameters(), lr=1.0),
        noise_multiplier=event.noise_multiplier,
        clipping_norm=CLIPPING_NORM,
        expected_batch=expected_batch,
        source=source,
    )
    canary_R = in_N.nonzero()[:, 0].repeat_interleave(_RECORDS)
    sampler = PoissonSampler([f"canary {number}" for number in canary_R.tolist()], event.sample_rate, source)
    found = []
    for _ in range(event.steps):
        with warnings.catch_warnings():
            # Opacus's hooks on a table, whose inputs are numbers of rows, make torch say that these have no gradient.
            warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)
            for canary_B in canary_R[sampler.draw()].split(_PHYSICAL_BATCH):
                gradients.add(model.loss, CanaryBatch(canary_B[:, None]), CLIPPING_NORM)
        optimizer.step()
        clear(list(weights.values()))
        found.append(model.scores().double().numpy() * (expected_batch / CLIPPING_NORM))
        model.restore()
        on_step()
    return np.stack(found)


def _unit_gradients(grad_sample: GradSample, weights: Weights, model: nn.Module) -> UnitGradients:
    if grad_sample == "loop":
        return LoopGradients(weights)
    return (OpacusGradients if grad_sample == "opacus" else DeferredGradients)(weights, [model])
