"""The text encoder: BERT's first layers read text, its last ones fuse it with the image.

Dimensions: B records, T texts, X any batch, L tokens, Q queried positions, S image tokens, D width, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import cast

import torch
from torch import Tensor, nn

from mumc_model.bert import BertEmbeddings, BertLayer, Dealt, MlmHead
from mumc_model.config import TextConfig
from mumc_model.errors import ConfigError
from mumc_model.kernels import RunPart, eagerly


def bidirectional_mask(mask_BL: Tensor) -> Tensor:
    """Boolean mask B11L: every token sees every token that is not padding. `mask_BL` is 1 on tokens, 0 on padding."""
    return mask_BL.bool()[:, None, None, :]


def causal_mask(mask_BL: Tensor) -> Tensor:
    """Boolean mask B1LL: a token sees itself and the unpadded tokens before it. The first token is never padding."""
    length = mask_BL.shape[1]
    earlier_LL = torch.ones(length, length, dtype=torch.bool, device=mask_BL.device).tril()
    return bidirectional_mask(mask_BL) & earlier_LL


class _Layers(nn.Module):
    """The list of layers under BERT's name, `encoder.layer`."""

    def __init__(self, layers: list[BertLayer]) -> None:
        super().__init__()
        self.layer = nn.ModuleList(layers)


class _Bert(nn.Module):
    """Embeddings and layers under BERT's name, `bert`."""

    def __init__(self, config: TextConfig, layers: list[BertLayer]) -> None:
        super().__init__()
        self.embeddings = BertEmbeddings(config)
        self.encoder = _Layers(layers)


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pairs of a text and an image for the fusion layers, and the positions whose states are asked for."""

    text_X: Tensor
    """The text of each pair, as a row of the texts given."""
    image_X: Tensor | None
    """The image of each pair, as a row of the images given; None where the first pair has the first image, and so on.

    Groups without a list are of one length, and look at their images together.
    """
    at_XQ: Tensor

    @property
    def dealt(self) -> Tensor | int:
        """What of the images the pairs see, as an attention takes it."""
        return len(self.text_X) if self.image_X is None else self.image_X


class TextEncoder(nn.Module):
    """BERT with a unimodal and a multimodal half, its parameters named as in MUMC and in BERT's checkpoints."""

    def __init__(self, config: TextConfig) -> None:
        """Build it with torch's own initialisation; see `mumc_model.model.build_model`.

        Raises:
            ConfigError: the vocabulary's size is still open.
        """
        super().__init__()
        if config.vocab_size < 1:
            raise ConfigError(
                "text.vocab_size is 0; set it to the size of the run's vocabulary before building a model"
            )
        crossing = [False] * config.text_layers + [True] * config.fusion_layers
        self.text_layers = config.text_layers
        self.run_part: RunPart = eagerly
        self.bert = _Bert(config, [BertLayer(config, cross_attention=crosses) for crosses in crossing])
        self.cls = MlmHead(config, cast(nn.Parameter, self.bert.embeddings.word_embeddings.weight))

    @property
    def layers(self) -> list[BertLayer]:
        """The layers that read text alone."""
        return [cast(BertLayer, layer) for layer in self.bert.encoder.layer[: self.text_layers]]

    @property
    def fusion(self) -> list[BertLayer]:
        """The layers that cross-attend to the image."""
        return [cast(BertLayer, layer) for layer in self.bert.encoder.layer[self.text_layers :]]

    def encode(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Text alone, BLD: the embeddings and the text layers."""
        return self.run_part([self.bert.embeddings, *self.layers], self._encode, ids_BL, mask_BL)

    def _encode(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        mask_B11L = bidirectional_mask(mask_BL)
        hidden_BLD: Tensor = self.bert.embeddings(ids_BL)
        for layer in self.layers:
            hidden_BLD = layer(hidden_BLD, mask_B11L)
        return hidden_BLD

    def fuse(self, hidden_XLD: Tensor, mask_XL: Tensor, image_BSD: Tensor, image_of_X: Tensor | None = None) -> Tensor:
        """Text with its image, XLD. Text x looks at image `image_of_X[x]` (at image x when left out)."""
        mask_X11L = bidirectional_mask(mask_XL)
        for layer in self.fusion:
            cross = layer.crossattention.keys_values(image_BSD)
            hidden_XLD = layer(hidden_XLD, mask_X11L, cross, dealt=None if image_of_X is None else [image_of_X])
        return hidden_XLD

    def fuse_pairs(
        self, hidden_TLD: Tensor, mask_TL: Tensor, image_BSD: Tensor, pairs: Sequence[Pairs]
    ) -> list[Tensor]:
        """For each group of pairs its asked-for states, XQD, from one pass through the fusion layers.

        The same numbers as `fuse` gives, for less: texts that several pairs share attend to themselves once, and the
        last layer computes only what is asked for.
        """
        text_X = torch.cat([group.text_X for group in pairs])
        dealt = [group.dealt for group in pairs]
        *body, last = self.fusion
        mask_X11L = bidirectional_mask(mask_TL)[text_X]
        if body:
            rows = [rows for rows in dealt if isinstance(rows, Tensor)]
            form = tuple(rows if isinstance(rows, int) else None for rows in dealt)

            def fused(hidden_TLD: Tensor, mask_TL: Tensor, text_X: Tensor, image_BSD: Tensor, *rows: Tensor) -> Tensor:
                chosen = iter(rows)
                dealt = [next(chosen) if count is None else count for count in form]
                return _fused(body, hidden_TLD, mask_TL, text_X, image_BSD, dealt)

            hidden_XLD = self.run_part(body, fused, hidden_TLD, mask_TL, text_X, image_BSD, *rows, form=form)
        else:
            hidden_XLD = hidden_TLD.index_select(0, text_X)
        return self._asked(last, hidden_XLD, mask_X11L, image_BSD, pairs)

    def _asked(
        self, last: BertLayer, hidden_XLD: Tensor, mask_X11L: Tensor, image_BSD: Tensor, pairs: Sequence[Pairs]
    ) -> list[Tensor]:
        """The last fusion layer, at the positions asked for; groups that ask for as many are one batch."""
        offered = last.crossattention.keys_values(image_BSD)
        found, start = [], 0
        for _, alike in groupby(pairs, key=lambda group: group.at_XQ.shape[1]):
            groups = list(alike)
            at_XQ = torch.cat([group.at_XQ for group in groups])
            own = slice(start, start + len(at_XQ))
            dealt = [group.dealt for group in groups]
            states = last(hidden_XLD[own], mask_X11L[own], offered, dealt=dealt, at_XQ=at_XQ)
            found += states.split([len(group.text_X) for group in groups])
            start += len(at_XQ)
        return found

    def mlm_logits(self, hidden_XD: Tensor) -> Tensor:
        """Scores over the vocabulary, XV, for hidden states of any leading shape."""
        logits_XV: Tensor = self.cls(hidden_XD)
        return logits_XV


def _fused(
    layers: Sequence[BertLayer], hidden_TLD: Tensor, mask_TL: Tensor, text_X: Tensor, image_BSD: Tensor, dealt: Dealt
) -> Tensor:
    """States XLD of pairs after these fusion layers; in the first of them texts attend to themselves before pairing."""
    mask_T11L = bidirectional_mask(mask_TL)
    mask_X11L = mask_T11L[text_X]
    first, *further = layers
    cross = first.crossattention.keys_values(image_BSD)
    hidden_XLD: Tensor = first(hidden_TLD, mask_T11L, cross, dealt=dealt, text_of_Y=text_X)
    for layer in further:
        hidden_XLD = layer(hidden_XLD, mask_X11L, layer.crossattention.keys_values(image_BSD), dealt=dealt)
    return hidden_XLD
