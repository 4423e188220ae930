"""Canaries: made-up patients in the place of real ones, and the model in which each leaves its own trace.

A canary is a patient with two records whose gradient is far longer than the clipping norm and points where nobody
else's does. So after a step, that direction of the weights holds what the canary added, and noise.

Dimensions: N canaries, R records, B units, W width.
"""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from client.privacy.train import PrivateSite

CLIPPING_NORM = 0.5
"""Not 1, so that a forgotten or a doubled factor of it shows."""
_LENGTH = 100.0
"""Of a canary's gradient, over the clipping norm and more."""
_RECORDS = 2
"""Records of each canary, of which a step may take one."""


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


class CanaryQuestions:
    """Two questions of every canary that is in the data."""

    def __init__(self, in_N: Tensor) -> None:
        self._canary_R = in_N.nonzero()[:, 0].repeat_interleave(_RECORDS)
        self.units = tuple(f"canary {number}" for number in self._canary_R.tolist())

    def batch(self, row_B: Tensor, generator: torch.Generator) -> CanaryBatch:
        """The canaries of these questions."""
        return CanaryBatch(self._canary_R[row_B][:, None])
