"""Every random choice of a training step, drawn from one generator: patches, tokens and hard negatives.

Dimensions: B records, N patches, K kept patches, D dropped patches, L tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mumc_model.device import sent
from mumc_model.errors import ConfigError

IGNORED = -100
"""Label of a token that is not predicted."""


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """Ids of the tokens that masking treats apart. Padding is known by the attention mask."""

    cls_id: int
    mask_id: int


def kept_patches(patches: int, drop: float) -> int:
    """How many of an image's patches stay, rounded down as in MUMC: 217 of 256 at 0.15.

    Raises:
        ConfigError: none would stay.
    """
    kept = int(patches * (1 - drop))
    if kept < 1:
        raise ConfigError(f"objective.patch_drop {drop} leaves none of {patches} patches; choose a smaller share")
    return kept


def dropped_patches(keep_BK: Tensor, patches: int) -> Tensor:
    """The patches BD that `keep_BK` leaves out, in reading order."""
    kept_BN = torch.zeros(len(keep_BK), patches, dtype=torch.bool, device=keep_BK.device)
    kept_BN.scatter_(1, keep_BK, True)
    return kept_BN.int().argsort(dim=1, stable=True)[:, : patches - keep_BK.shape[1]]


class Draws:
    """The choices of one step after another. A test plays recorded ones back by subclassing."""

    def __init__(self, generator: torch.Generator, special: SpecialTokens) -> None:
        """Draw on the CPU, so that a seed means the same on every device."""
        self.generator, self.special = generator, special

    def keep_patches(self, batch: int, patches: int, drop: float) -> Tensor:
        """Patches BK that a view keeps, in random order, drawn apart for each image."""
        noise_BN = torch.rand(batch, patches, generator=self.generator)
        return noise_BN.argsort(dim=1)[:, : kept_patches(patches, drop)]

    def mask_tokens(
        self, ids_BL: Tensor, mask_BL: Tensor, probability: float, vocab_size: int
    ) -> tuple[Tensor, Tensor]:
        """Masked ids BL and labels BL (`IGNORED` where nothing is predicted), on the CPU.

        Of the chosen tokens 80 % become [MASK], 10 % a random token and 10 % stay; never [CLS] or padding. [SEP] may
        be chosen, as in MUMC. Source: arXiv 1810.04805, section 3.1.
        """
        ids_BL, mask_BL = ids_BL.cpu(), mask_BL.cpu()
        chance_BL, fate_BL = torch.rand(2, *ids_BL.shape, generator=self.generator)
        random_BL = torch.randint(vocab_size, ids_BL.shape, generator=self.generator)
        chosen_BL = (chance_BL < probability) & mask_BL.bool() & (ids_BL != self.special.cls_id)
        labels_BL = ids_BL.masked_fill(~chosen_BL, IGNORED)
        masked_BL = ids_BL.masked_fill(chosen_BL & (fate_BL < 0.8), self.special.mask_id)
        return torch.where(chosen_BL & (fate_BL >= 0.9), random_BL, masked_BL), labels_BL

    def negatives(self, weights_BB: Tensor) -> Tensor:
        """One column for each row, with probability in proportion to the row's weights; on their device.

        The largest of weights over exponential noise, which is how torch draws one of several. The noise comes from
        the CPU, and an accelerator need not be waited for.
        """
        noise_BB = torch.empty(weights_BB.shape).exponential_(generator=self.generator)
        # A diverged model is told by its loss, not by a failing draw.
        return (weights_BB.float().nan_to_num(1.0) / sent(noise_BB, weights_BB.device)).argmax(dim=1)


def negative_weights(logits_BB: Tensor, equal_BB: Tensor | None = None) -> Tensor:
    """Weights for drawing a hard negative: softmax + 1e-4, never the own pair, and no record of an equal caption.

    Where every other record's caption is equal, any other record may be drawn.
    """
    own_BB = torch.eye(len(logits_BB), dtype=torch.bool, device=logits_BB.device)
    weights_BB = (logits_BB.softmax(dim=1) + 1e-4).masked_fill(own_BB, 0)
    if equal_BB is None:
        return weights_BB
    different_BB = weights_BB.masked_fill(equal_BB, 0)
    return torch.where(different_BB.any(dim=1, keepdim=True), different_BB, weights_BB)
