"""MUMC's losses as pure functions: no state, no randomness, no model.

Dimensions: B queries, N keys (the positives of the B lie together, from key `first` on), M masked tokens, V vocabulary,
D dropped patches of an image, P values in a patch.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

_NEVER = -1e9
"""A logit that no softmax notices; finite, so that a target of 0 times its logarithm is 0 and not nan."""


def hide(logits_BN: Tensor, hidden_BN: Tensor | None) -> Tensor:
    """The logits with those of `hidden_BN` out of every softmax: keys that are no negatives of their query."""
    return logits_BN if hidden_BN is None else logits_BN.masked_fill(hidden_BN, _NEVER)


def hard_contrastive(logits_BN: Tensor, first: int = 0) -> Tensor:
    """Mean InfoNCE in nats; row i has key `first` + i as its positive. Source: arXiv 1807.03748, eq. 4."""
    return F.cross_entropy(logits_BN, torch.arange(first, first + len(logits_BN), device=logits_BN.device))


def soft_targets(teacher_logits_BN: Tensor, alpha: float, first: int = 0) -> Tensor:
    """Targets (1 - alpha) one-hot + alpha softmax(teacher), no gradient. Source: ALBEF, arXiv 2107.07651, eq. 6."""
    targets_BN = alpha * teacher_logits_BN.detach().softmax(dim=1)
    targets_BN.diagonal(first).add_(1 - alpha)
    return targets_BN


def soft_contrastive(logits_BN: Tensor, targets_BN: Tensor) -> Tensor:
    """Mean cross-entropy in nats of the logits against soft targets whose rows sum to 1."""
    return -(targets_BN * logits_BN.log_softmax(dim=1)).sum(dim=1).mean()


def matching(logits_B2: Tensor, matched: int) -> Tensor:
    """Mean cross-entropy in nats of (not matched, matched); the first `matched` rows are true pairs, the others not."""
    labels_B = (torch.arange(len(logits_B2), device=logits_B2.device) < matched).long()
    return F.cross_entropy(logits_B2, labels_B)


def masked_tokens(logits_MV: Tensor, labels_M: Tensor) -> Tensor:
    """Mean cross-entropy in nats over the masked tokens; 0 without any."""
    return F.cross_entropy(logits_MV, labels_M, reduction="sum") / max(len(labels_M), 1)


def distilled_tokens(logits_MV: Tensor, teacher_logits_MV: Tensor) -> Tensor:
    """Mean cross-entropy in nats over the masked tokens against the teacher's distribution; 0 without any."""
    targets_MV = teacher_logits_MV.detach().softmax(dim=1)
    return -(targets_MV * logits_MV.log_softmax(dim=1)).sum() / max(len(logits_MV), 1)


def painted_patches(painted_BDP: Tensor, pixel_BDP: Tensor) -> Tensor:
    """Mean squared error over dropped patches, each normalised by its own pixels. Source: MAE, arXiv 2111.06377, 3."""
    mean, variance = pixel_BDP.mean(dim=-1, keepdim=True), pixel_BDP.var(dim=-1, keepdim=True)
    return F.mse_loss(painted_BDP, (pixel_BDP - mean) / (variance + 1e-6).sqrt())
