"""Several texts and images of a unit in one pass: its texts stand in one row behind one another, kept apart by masks.

So every layer is called once, with one row a unit, and one pass costs what MUMC's batched passes cost.

Dimensions: B units, L tokens of a text, T tokens of a row of texts, S image tokens of all images, R positions
asked for, Q masked positions, D width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mumc_model.bert import BertLayer
from mumc_model.masking import IGNORED


def attend(
    fusion: Sequence[BertLayer],
    hidden_BTD: Tensor,
    masks: list[Tensor],
    sources: list[Tensor],
    looks: list[int],
    at_BR: Tensor,
) -> Tensor:
    """Fused states BRD at the positions asked for; text i of a row looks at image `looks[i]` of its unit."""
    mask_B1TT, source_BSD = apart(masks), torch.cat(sources, dim=1)
    cross_1TS = _looks(looks, [source.shape[1] for source in sources], masks[0].shape[1], hidden_BTD.device)
    cross_B1TS = cross_1TS.expand(len(hidden_BTD), 1, -1, -1)
    *body, last = fusion
    for layer in body:
        hidden_BTD = layer(hidden_BTD, mask_B1TT, layer.crossattention.keys_values(source_BSD), cross_mask=cross_B1TS)
    fused_BRD: Tensor = last(
        hidden_BTD,
        _rows(mask_B1TT, at_BR),
        last.crossattention.keys_values(source_BSD),
        cross_mask=_rows(cross_B1TS, at_BR),
        at_XQ=at_BR,
    )
    return fused_BRD


def masked_positions(labels_BL: Tensor) -> Tensor:
    """Positions BQ of each text's masked tokens, and others behind them up to the most that a text has."""
    masked_BL = labels_BL != IGNORED
    most = max(1, int(masked_BL.sum(dim=1).max())) if len(labels_BL) else 1
    return (~masked_BL).int().argsort(dim=1, stable=True)[:, :most]


def apart(masks: list[Tensor]) -> Tensor:
    """Mask B1TT for texts that stand in one row: a token sees the tokens of its own text that are no padding."""
    length = masks[0].shape[1]
    text_T = torch.arange(length * len(masks), device=masks[0].device) // length
    return (torch.cat(masks, dim=1).bool()[:, None, :] & (text_T[:, None] == text_T[None, :]))[:, None]


def _looks(looks: list[int], sizes: list[int], length: int, device: torch.device) -> Tensor:
    """Mask 11TS: which tokens of the images each token of the texts sees."""
    image_S = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)).to(device)
    image_T = torch.tensor(looks, device=device).repeat_interleave(length)
    return (image_T[:, None] == image_S[None, :])[None, None]


def _rows(mask_B1TS: Tensor, at_BR: Tensor) -> Tensor:
    return mask_B1TS.gather(2, at_BR[:, None, :, None].expand(-1, 1, -1, mask_B1TS.shape[3]))
