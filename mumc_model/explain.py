"""Where an answering model looked: heat on the patches of an image and weight on the words of a question.

Dimensions: B questions, C channels, H height, W width in pixels, S image tokens ([CLS], then N patches), P patches
along a side, L question tokens, A answer tokens, T answer tokens that are scored, Q and K tokens of any attention.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mumc_model.answerer import Answerer, read_image
from mumc_model.attention_maps import AttentionMaps
from mumc_model.errors import ConfigError
from mumc_model.relevance import Stream, mean_positive
from mumc_model.vqa import VqaModel

Method = Literal["attention", "relevance"]
"""`attention`: one fusion layer's cross-attention times the positive part of its gradient, as ALBEF and MUMC draw it.
`relevance`: all attentions of image encoder, text layers, fusion layers and decoder, by the rules of `relevance.py`."""
METHODS: tuple[Method, ...] = ("relevance", "attention")


class Asked(NamedTuple):
    """Questions with their images and the answers to be explained, as the model reads them."""

    image_BCHW: Tensor
    ids_BL: Tensor
    mask_BL: Tensor
    answer_BA: Tensor
    answer_mask_BA: Tensor

    def scored(self) -> Tensor:
        """Boolean BA: true on answer tokens that another token follows, which the model is to foretell there."""
        return F.pad(self.answer_mask_BA[:, 1:], (0, 1)).bool()

    def to(self, device: torch.device) -> "Asked":
        """The same on a device."""
        return Asked(*(tensor.to(device) for tensor in self))


class Heat(NamedTuple):
    """Relevance of each patch BN and each question token BL to the answer's score, all 0 or more, in no unit."""

    patch_BN: Tensor
    word_BL: Tensor


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Where the model looked for one answer to one question. It is not where the lesion is."""

    method: Method
    answer: str
    """The answer whose score is explained."""
    heat_PP: Tensor
    """Relevance of each patch; the largest is 1, or all are 0 where nothing of the image spoke for the answer."""
    relevance_L: Tensor
    """Relevance of each token of the question, [CLS] first; they sum to 1, or all are 0."""
    tokens: tuple[str, ...]

    @property
    def words(self) -> tuple[tuple[str, float], ...]:
        """The question's words with their weights; of the pieces of a word the sum. [CLS] is no word."""
        found: list[tuple[str, float]] = []
        for token, weight in zip(self.tokens[1:], self.relevance_L.tolist()[1:], strict=True):
            if token.startswith("##") and found:
                found[-1] = found[-1][0] + token[2:], found[-1][1] + weight
            else:
                found.append((token, weight))
        return tuple(found)

    def to_image(self, size: tuple[int, int]) -> NDArray[np.float32]:
        """The heat over an image of `size` = (width, height), HW in [0, 1], smooth between the patches' centres."""
        heat = Image.fromarray(self.heat_PP.numpy().astype(np.float32))
        return np.asarray(heat.resize(size, Image.Resampling.BILINEAR), dtype=np.float32).clip(0, 1)


def explain(
    answerer: Answerer,
    image: Path,
    question: str,
    *,
    device: torch.device,
    answer: str | None = None,
    method: Method = "relevance",
) -> Explanation:
    """Where the model looks for `answer` to one question about one image file; for its likeliest one if left out.

    Raises:
        ConfigError: there is no such method.
        DataError: the image cannot be read.
    """
    if method not in METHODS:
        raise ConfigError(f"{method!r} is no way to explain an answer; choose {' or '.join(METHODS)}")
    if answer is None:
        answer = answerer.ask(image, question, device=device, method=answerer.method, top=1).answers[0][0]
    model, tokenizer = answerer.model.to(device).eval(), answerer.tokenizer
    pixels_1CHW = read_image(image, model.visual_encoder.config.image_size)
    ids_1L, mask_1L = tokenizer.questions([question], model.finetune.question_tokens)
    asked = Asked(pixels_1CHW, ids_1L, mask_1L, *tokenizer.answers([answer], model.finetune.answer_tokens))
    heat = heat_of(model, asked.to(device), method)
    patch_N, word_L = heat.patch_BN[0].cpu(), heat.word_BL[0].cpu()
    side = round(len(patch_N) ** 0.5)
    return Explanation(
        method=method,
        answer=answer,
        heat_PP=_shares(patch_N, patch_N.max()).view(side, side),
        relevance_L=_shares(word_L, word_L.sum()),
        tokens=tuple(tokenizer.vocab[index] for index in ids_1L[0].tolist()),
    )


def heat_of(model: VqaModel, asked: Asked, method: Method = "relevance") -> Heat:
    """What patches and words do for the score of each answer: the mean log-probability of its tokens.

    The model must be in evaluation mode; its weights gather no gradient.

    Raises:
        ConfigError: timm was told not to fuse attention, so its weights cannot be seen.
    """
    if model.training:
        raise ConfigError("the model is in training mode, where dropout changes every look; call model.eval() first")
    with torch.enable_grad():
        return _by_attention(model, asked) if method == "attention" else _by_relevance(model, asked)


def _by_attention(model: VqaModel, asked: Asked) -> Heat:
    """Map times the positive part of its gradient, mean over heads and sum over words, of the middle fusion layer.

    Source: ALBEF, arXiv 2107.07651, section 5.3 (the third of six fusion layers there).
    """
    layer = (len(model.text_encoder.fusion) - 1) // 2
    with torch.no_grad():
        image_BSD = model.visual_encoder(asked.image_BCHW)
        hidden_BLD = model.text_encoder.encode(asked.ids_BL, asked.mask_BL)
    with AttentionMaps() as fusion:
        state_BLD = model.text_encoder.fuse(hidden_BLD, asked.mask_BL, image_BSD)
    map_BHLS = fusion.maps[2 * layer + 1]
    (gradient_BHLS,) = torch.autograd.grad(_score(model, state_BLD, asked), [map_BHLS])
    weight_BLN = mean_positive(map_BHLS.detach(), gradient_BHLS)[:, :, 1:] * asked.mask_BL[:, :, None]
    return Heat(weight_BLN.sum(1), weight_BLN.sum(2))


def _by_relevance(model: VqaModel, asked: Asked) -> Heat:
    with AttentionMaps() as looking:
        image_BSD = model.visual_encoder(asked.image_BCHW)
    if len(looking.maps) != len(model.visual_encoder.blocks):
        raise ConfigError(
            f"{len(looking.maps)} of {len(model.visual_encoder.blocks)} attentions of the image encoder were seen; "
            "unset TIMM_FUSED_ATTN in the environment, with which timm goes another way"
        )
    with AttentionMaps() as reading:
        hidden_BLD = model.text_encoder.encode(asked.ids_BL, asked.mask_BL)
    with AttentionMaps() as fusing:
        state_BLD = model.text_encoder.fuse(hidden_BLD, asked.mask_BL, image_BSD)
    with AttentionMaps() as answering:
        score = _score(model, state_BLD, asked)
    parts = [looking.maps, reading.maps, fusing.maps, answering.maps]
    looked, read, fused, answered = _weights(score, parts)

    image = Stream.start("image", len(image_BSD), image_BSD.shape[1], like=image_BSD)
    for weight_BSS in looked:
        image = image.after_self_attention(weight_BSS)
    question = Stream.start("question", len(state_BLD), state_BLD.shape[1], like=image_BSD)
    for weight_BLL in read:
        question = question.after_self_attention(weight_BLL)
    question = _through_layers(question, fused, image)
    answer = Stream.start("answer", len(asked.answer_BA), asked.answer_BA.shape[1] - 1, like=image_BSD)
    answer = _through_layers(answer, answered, question)
    patch_BS, word_BL = (_mean_scored(answer.others[name], asked) for name in ("image", "question"))
    return Heat(patch_BS[:, 1:], word_BL * asked.mask_BL)


def _through_layers(stream: Stream, weights: Sequence[Tensor], source: Stream) -> Stream:
    """The stream after layers that attend to itself and then to the source."""
    for own_BQQ, cross_BQK in zip(weights[::2], weights[1::2], strict=True):
        stream = stream.after_self_attention(own_BQQ).after_cross_attention(cross_BQK, source)
    return stream


def _weights(score: Tensor, parts: Sequence[list[Tensor]]) -> list[list[Tensor]]:
    """The weight BQK of each map in each part, by one pass back from the score."""
    maps = [one for part in parts for one in part]
    gradients = iter(torch.autograd.grad(score, maps))
    return [[mean_positive(one.detach(), next(gradients)) for one in part] for part in parts]


def _score(model: VqaModel, state_BLD: Tensor, asked: Asked) -> Tensor:
    """Sum over the questions of the mean log-probability of each answer's tokens; no question sees another's."""
    scored_BA = asked.scored()
    logits_TV = model.answer_logits(state_BLD, asked.mask_BL, asked.answer_BA, scored_BA)
    target_T = asked.answer_BA[:, 1:][scored_BA[:, :-1]]
    share_BA = scored_BA / scored_BA.sum(1, keepdim=True)
    return -(F.cross_entropy(logits_TV, target_T, reduction="none") * share_BA[scored_BA]).sum()


def _mean_scored(owed_BAT: Tensor, asked: Asked) -> Tensor:
    """Mean over the answer's scored tokens of what they owe, BT."""
    scored_BA1 = asked.scored()[:, :-1, None]
    return (owed_BAT * scored_BA1).sum(1) / scored_BA1.sum(1)


def _shares(values: Tensor, whole: Tensor) -> Tensor:
    return values / whole if whole > 0 else torch.zeros_like(values)
