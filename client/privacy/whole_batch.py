"""MUMC's own in-batch losses at their honest sensitivity, so that one can see why the bank is there.

A record that joins or leaves changes every other record's gradient, so only the step's gradient as a whole can be
clipped. Clipped to C before and after, it may turn round: the sensitivity is 2 C, and nothing is averaged over records.
"""

import torch
from torch import Tensor

from client.privacy.gradients import Weights, add_to_sum, clip_factors, total_norm
from mumc_model.config import ObjectiveConfig
from mumc_model.data.collate import PretrainBatch
from mumc_model.masking import Draws
from mumc_model.model import MumcModel
from mumc_model.momentum import Teacher
from mumc_model.objective import PretrainObjective
from mumc_model.vision import MimDecoder


class WholeBatch:
    """The gradient of one step as one vector of bounded length."""

    def __init__(
        self, model: MumcModel, teacher: Teacher, config: ObjectiveConfig, mim_decoder: MimDecoder | None
    ) -> None:
        self._objective = PretrainObjective(model, teacher, None, config, mim_decoder)

    def add(
        self, weights: Weights, pairs: PretrainBatch, draws: Draws, alpha: float, clipping_norm: float
    ) -> dict[str, float]:
        """Add the clipped gradient to the weights' sums; the losses come back, for the site alone.

        A step of fewer than two records has no contrast and adds nothing.
        """
        if len(pairs) < 2:
            return {}
        output = self._objective(pairs, draws, alpha, move_teacher=False)
        found = torch.autograd.grad(output.total, list(weights.values()), allow_unused=True)
        gradients: list[Tensor] = [torch.zeros(()) if one is None else one for one in found]
        factor = clip_factors(total_norm(gradients), clipping_norm)
        if factor > 0:
            for weight, gradient in zip(weights.values(), found, strict=True):
                if gradient is not None:
                    add_to_sum(weight, gradient * factor)
        losses = {"total": output.total.detach(), **output.terms}
        return {name: float(loss) for name, loss in losses.items()}
