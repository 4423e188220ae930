"""Poisson samples of privacy units: every unit enters a step by itself, with one of its records.

Dimensions: U units, R records of all units, S sampled units.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from client.privacy.errors import PlanError
from client.privacy.randomness import SecureSource


class PoissonSampler:
    """Draws records for one step after another. What it draws, and how many, never leaves the site."""

    def __init__(self, units: Sequence[str], sample_rate: float, source: SecureSource) -> None:
        """`units` names the unit of each record.

        Raises:
            PlanError: the rate is no probability.
        """
        if not 0 < sample_rate <= 1:
            raise PlanError(
                f"the sample rate is {sample_rate:g}; choose an expected batch of at most as many units as the policy "
                "declares"
            )
        self._rate, self._source = sample_rate, source
        records: dict[str, list[int]] = {}
        for row, unit in enumerate(units):
            records.setdefault(unit, []).append(row)
        self._record_R = torch.tensor([row for rows in records.values() for row in rows], dtype=torch.int64)
        self._count_U = torch.tensor([len(rows) for rows in records.values()], dtype=torch.int64)
        self._first_U = self._count_U.cumsum(0) - self._count_U

    def __len__(self) -> int:
        """Units."""
        return len(self._count_U)

    def draw(self) -> Tensor:
        """The records S of one step, one of each sampled unit; there may be none."""
        unit_S = self._source.chosen(len(self), self._rate).nonzero()[:, 0]
        return self._record_R[self._first_U[unit_S] + self._source.choices(self._count_U[unit_S])]
