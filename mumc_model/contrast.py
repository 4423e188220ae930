"""MUMC's contrast: student features against the teacher's, across the modalities and within each.

Dimensions: B queries, N keys (those of the batch, then of the queue), E embedding.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from mumc_model import losses

Tensors = dict[str, Tensor]


class Contrast:
    """Similarities of features to the teacher's keys, by modality: `i` images, `t` texts."""

    def __init__(
        self, keys: Mapping[str, list[Tensor]], hidden_BN: Tensor | None, temperature: Tensor, first: int = 0
    ) -> None:
        """`keys` of the batch, then of the queue; `hidden_BN` marks keys that are no negatives of their query.

        The queries' own keys lie from `first` on: other ranks' queries may have theirs before.
        """
        self.keys, self.hidden_BN, self.temperature, self.first = keys, hidden_BN, temperature, first

    def logits(self, query_BE: Tensor, modality: str) -> Tensor:
        """Similarity BN over the temperature."""
        parts = [query_BE @ key.T for key in self.keys[modality]]
        return losses.hide(torch.cat(parts, dim=1) / self.temperature, self.hidden_BN)

    def across(self, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], alpha: float) -> Tensors:
        """Losses `i2t` and `t2i` with the logits, and targets softened by the teacher, that they were made of."""
        parts: Tensors = {}
        for name, query, key in (("i2t", "i", "t"), ("t2i", "t", "i")):
            parts[f"sim_{name}"] = logits_BN = self.logits(student[query], key)
            if not alpha:
                parts[f"loss_{name}"] = losses.hard_contrastive(logits_BN, self.first)
                continue
            with torch.no_grad():
                parts[f"targets_{name}"] = losses.soft_targets(self.logits(teacher[query], key), alpha, self.first)
            parts[f"loss_{name}"] = losses.soft_contrastive(logits_BN, parts[f"targets_{name}"])
        return parts

    def within(self, student: Mapping[str, Tensor]) -> Tensors:
        """Losses `i2i` and `t2t` with the logits that they were made of; their targets are hard."""
        parts: Tensors = {}
        for modality, query_BE in student.items():
            parts[f"sim_{modality}2{modality}"] = logits_BN = self.logits(query_BE, modality)
            parts[f"loss_{modality}2{modality}"] = losses.hard_contrastive(logits_BN, self.first)
        return parts
