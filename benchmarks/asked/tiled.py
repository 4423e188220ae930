"""Ranking as the reference does it, written plainly: the question's states tiled, every candidate decoded whole.

Dimensions: K candidates, A answer tokens, V vocabulary.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from mumc_model.ranking import COMPAT_KEPT
from mumc_model.text import bidirectional_mask, causal_mask
from mumc_model.vqa import VqaModel


@torch.no_grad()
def tiled(model: VqaModel, state_1LD: Tensor, mask_1L: Tensor, ids_KA: Tensor, mask_KA: Tensor) -> Tensor:
    """The reference's ranking, written plainly: probability K of each candidate by its mean log-probability a token."""
    blocks = zip(ids_KA.split(COMPAT_KEPT), mask_KA.split(COMPAT_KEPT), strict=True)
    return torch.cat([_tiled_scores(model, state_1LD, mask_1L, *block) for block in blocks]).softmax(0)


def _tiled_scores(model: VqaModel, state_1LD: Tensor, mask_1L: Tensor, ids_KA: Tensor, mask_KA: Tensor) -> Tensor:
    count, decoder = len(ids_KA), model.text_decoder
    state_KLD, seen_K11L = state_1LD.repeat(count, 1, 1), bidirectional_mask(mask_1L.repeat(count, 1))
    hidden_KAD, mask_K1AA = decoder.bert.embeddings(ids_KA), causal_mask(mask_KA)
    for layer in decoder.fusion:
        cross = layer.crossattention.keys_values(state_KLD)
        hidden_KAD = layer(hidden_KAD, mask_K1AA, cross, cross_mask=seen_K11L)
    logits_KAV = decoder.mlm_logits(hidden_KAD)[:, :-1].contiguous()
    target_KA = ids_KA.masked_fill(mask_KA == 0, -100)[:, 1:]
    nats_KA = F.cross_entropy(logits_KAV.flatten(0, 1), target_KA.flatten(), reduction="none").view(count, -1)
    return -nats_KA.sum(1) / (target_KA != -100).sum(1)
