"""Answering: a question encoder that looks at the image and a decoder that spells or ranks the answer.

Dimensions: B questions, I images, C channels, H height, W width in pixels, S image tokens, L question tokens, A answer
tokens, T answer tokens that are learned, D width, V vocabulary, N nodes and E edges of an answer tree, K candidates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.loader import dump, load
from mumc_model.bert import BertAttention
from mumc_model.candidates import AnswerTree, Candidates, Scoring
from mumc_model.config import FinetuneConfig, ModelConfig, TextConfig, VisionConfig
from mumc_model.duplicate import duplicate
from mumc_model.errors import ConfigError
from mumc_model.model import MumcModel, at_least_single
from mumc_model.pretrained import PretrainedModel
from mumc_model.text import TextEncoder, bidirectional_mask, causal_mask
from mumc_model.vision import VisionEncoder, resize_pos_embed

COMPAT_KEPT = 128
"""Candidates that the paper's code weighs."""
_BLOCK_ROWS = 1024
"""Nodes, over all questions, that the decoder reads at once; a longer list is read a question at a time.

It bounds what the decoder holds, and keeps it in a CPU's cache; logits have a bound of their own."""
_BLOCK_LOGITS = 1 << 26
"""Logits held at once while ranking."""
_CACHED_LOGITS = 1 << 20
"""Logits that stay in a CPU's cache until they have been read."""
_FEW_WORDS = 256


class VqaModel(PretrainedModel):
    """The encoders that a federation trained and the site's own answer decoder. Parameter names are MUMC's."""

    kind = "VqaModel"

    def __init__(self, config: ModelConfig, finetune: FinetuneConfig) -> None:
        """Build it with torch's own initialisation; `VqaModel.of_encoders` is the way to one worth training.

        Raises:
            ConfigError: more decoder layers than fusion layers to start them from.
        """
        super().__init__()
        self.config, self.finetune = config, finetune
        self.vision_config = _vision_config(config.vision, finetune)
        decoder = _decoder_config(config.text, finetune)
        self.visual_encoder = VisionEncoder(self.vision_config)
        self.text_encoder = TextEncoder(config.text)
        del self.text_encoder.cls
        self.text_decoder = TextEncoder(decoder)

    @classmethod
    def of_encoders(cls, model: MumcModel, finetune: FinetuneConfig) -> Self:
        """A model that starts from a copy of pre-trained weights, the decoder from the last fusion layers and the head.

        Raises:
            ConfigError: more decoder layers than fusion layers to start them from.
        """
        with torch.random.fork_rng(devices=[]):
            vqa = cls(model.config, finetune)
        vision = model.visual_encoder.state_dict()
        vision["pos_embed"] = resize_pos_embed(vision["pos_embed"], vqa.vision_config.patches)
        vqa.visual_encoder.load_state_dict(vision)
        vqa.text_encoder.bert.load_state_dict(model.text_encoder.bert.state_dict())
        vqa.text_decoder.bert.embeddings.load_state_dict(model.text_encoder.bert.embeddings.state_dict())
        layers = model.text_encoder.fusion[-len(vqa.text_decoder.fusion) :]
        for ours, theirs in zip(vqa.text_decoder.fusion, layers, strict=True):
            ours.load_state_dict(theirs.state_dict())
        vqa.text_decoder.cls.load_state_dict(model.text_encoder.cls.state_dict())
        return vqa

    def freeze(self, part: str) -> None:
        """Keep the merged weights of `none`, the image encoder (`vision`) or both encoders (`encoders`)."""
        self.visual_encoder.requires_grad_(part == "none")
        self.text_encoder.requires_grad_(part != "encoders")

    def settings(self) -> dict[str, Any]:
        """Its configuration, and how questions and answers are read."""
        return {"model": dump(self.config), "finetune": dump(self.finetune)}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """A model with a random start."""
        config = load(ModelConfig, settings["model"], "model")
        return cls(config, load(FinetuneConfig, settings.get("finetune", {}), "finetune"))

    def question_states(
        self, token_ISD: Tensor, ids_BL: Tensor, mask_BL: Tensor, image_of_B: Tensor | None = None
    ) -> Tensor:
        """Question states BLD: question b looks at image `image_of_B[b]` (at image b when left out)."""
        hidden_BLD = self.text_encoder.encode(ids_BL, mask_BL)
        return self.text_encoder.fuse(hidden_BLD, mask_BL, token_ISD, image_of_B)

    def answer_logits(self, state_BLD: Tensor, mask_BL: Tensor, answer_BA: Tensor, learned_BA: Tensor) -> Tensor:
        """Logits TV of the tokens that follow the answer's positions where `learned_BA` is true, and only of those.

        `learned_BA` lies best on the CPU: how many there are must be known, and an accelerator is not waited for then.
        """
        decoder, cross_mask = self.text_decoder, bidirectional_mask(mask_BL)
        # The last position follows nothing that is learned, and padding comes last: causality alone hides it.
        answer_BA, learned_BA = answer_BA[:, :-1], learned_BA[:, :-1]
        self_mask = causal_mask(torch.ones_like(answer_BA[:1]))
        hidden_BAD = decoder.bert.embeddings(answer_BA)
        for layer in decoder.fusion:
            cross = layer.crossattention.keys_values(state_BLD)
            hidden_BAD = layer(hidden_BAD, self_mask, cross, cross_mask=cross_mask)
        place_T = learned_BA.flatten().nonzero()[:, 0].to(hidden_BAD.device, non_blocking=True)
        return decoder.mlm_logits(hidden_BAD.flatten(0, 1)[place_T])

    @torch.no_grad()
    def rank(
        self,
        state_BLD: Tensor,
        mask_BL: Tensor,
        candidates: Candidates,
        scoring: Scoring = "mean",
        *,
        keep: int = COMPAT_KEPT,
    ) -> Tensor:
        """Probability BK of every candidate answer, normalised among the candidates.

        `mean` compares log-probabilities a token, so that long answers are not punished for their length. `compat` is
        the paper's code: only the `keep` candidates with the likeliest first token are weighed, the others get 0, and
        candidates that begin alike are cut in no particular order.
        """
        edges = self._edge_log_probabilities(state_BLD, mask_BL, candidates.trees)
        score_BK = candidates.scores(edges, scoring)
        if scoring == "compat" and keep < len(candidates):
            kept_BP = candidates.first_tokens(edges).softmax(dim=1).topk(keep, dim=1).indices
            dropped_BK = torch.ones_like(score_BK, dtype=torch.bool).scatter_(1, kept_BP, False)
            score_BK = score_BK.masked_fill(dropped_BK, -torch.inf)
        return score_BK.softmax(dim=1)

    def _edge_log_probabilities(self, state_BLD: Tensor, mask_BL: Tensor, trees: Sequence[AnswerTree]) -> list[Tensor]:
        """Log-probability BE of each edge of each tree, in blocks of questions."""
        head, firsts = self.text_decoder.cls.predictions, accumulate((len(t.token_N) for t in trees), initial=0)
        node_E = torch.cat([tree.edge_node_E + first for tree, first in zip(trees, firsts, strict=False)])
        token_E = torch.cat([tree.edge_token_E for tree in trees])
        words_ED, bias_E = head.decoder.weight[token_E], head.bias[token_E]
        start_1ND = self._begin(trees)
        block, parts = max(1, _BLOCK_ROWS // start_1ND.shape[1]), []
        for state, mask in zip(torch.split(state_BLD, block), torch.split(mask_BL, block), strict=True):
            read_BND = at_least_single(head.transform(self._read(start_1ND, trees, state, mask)))
            # A logit and the sum over all of them must be rounded alike, or probabilities come to more than 1.
            with torch.autocast(read_BND.device.type, enabled=False):
                followed_BE = (read_BND[:, node_E] * words_ED).sum(2) + bias_E
                parts.append(followed_BE - self._log_normaliser(read_BND)[:, node_E])
        edge_BE = torch.cat(parts)
        return list(torch.split(edge_BE, [len(tree.edge_node_E) for tree in trees], dim=1))

    def _begin(self, trees: Sequence[AnswerTree]) -> Tensor:
        """States 1ND of all nodes up to their first look at the question: the same for every question."""
        token_N, depth_N = torch.cat([tree.token_N for tree in trees]), torch.cat([tree.depth_N for tree in trees])
        start_1ND = self.text_decoder.bert.embeddings.at(token_N[None], depth_N)
        return _within_trees(self.text_decoder.fusion[0].attention, start_1ND, trees)

    def _read(self, start_1ND: Tensor, trees: Sequence[AnswerTree], state_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        """States BND of all nodes after the last layer, from those that `_begin` gives."""
        cross_mask, hidden = bidirectional_mask(mask_BL), start_1ND.expand(len(state_BLD), -1, -1)
        for index, layer in enumerate(self.text_decoder.fusion):
            if index:
                hidden = _within_trees(layer.attention, hidden, trees)
            hidden = layer.crossattention(hidden, layer.crossattention.keys_values(state_BLD), cross_mask)
            hidden = layer.output(layer.intermediate(hidden), hidden)
        return hidden

    def _log_normaliser(self, read_BND: Tensor) -> Tensor:
        """Logarithm BN of the sum over the vocabulary of the exponentials of the logits."""
        head, rows_XD = self.text_decoder.cls.predictions.decoder, read_BND.flatten(0, 1)
        if rows_XD.device.type != "cpu":
            return _log_sum(rows_XD, head.weight, head.bias).view(read_BND.shape[:2])
        normaliser_X = _log_sum_in_cache(rows_XD, head.weight, head.bias)
        if not normaliser_X.isfinite().all():
            normaliser_X = _log_sum(rows_XD, head.weight, head.bias)
        return normaliser_X.view(read_BND.shape[:2])


class AnswerTeacher:
    """A slowly following copy of what is trained; what is frozen it shares with the student."""

    def __init__(self, student: VqaModel, momentum: float) -> None:
        """Start equal to the student."""
        self.model = duplicate(student, _average)
        self._momentum = momentum
        learned = [
            (a, w) for a, w in zip(self.model.parameters(), student.parameters(), strict=True) if w.requires_grad
        ]
        self._averages: list[Tensor] = [average for average, _ in learned]
        self._weights: list[Tensor] = [weight for _, weight in learned]

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the student by 1 - momentum; in fine-tuning this comes before the teacher is asked."""
        torch._foreach_lerp_(self._averages, self._weights, 1 - self._momentum)


def _average(weight: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(weight.detach().clone(), requires_grad=False) if weight.requires_grad else weight


def answer_loss(logits_TV: Tensor, target_T: Tensor, teacher_TV: Tensor | None, alpha: float, examples: int) -> Tensor:
    """Nats an example: the sum over its answer's tokens of (1 - alpha) CE + alpha soft CE against the teacher.

    Without a teacher it is the cross-entropy. Source: MUMC's fine-tuning, after ALBEF, arXiv 2107.07651, section 3.4.
    """
    logits_TV = at_least_single(logits_TV)
    cross_entropy = F.cross_entropy(logits_TV, target_T, reduction="sum")
    if teacher_TV is None:
        return cross_entropy / examples
    soft = F.cross_entropy(logits_TV, teacher_TV.softmax(dim=1), reduction="sum")
    return ((1 - alpha) * cross_entropy + alpha * soft) / examples


def _within_trees(attention: BertAttention, hidden_BND: Tensor, trees: Sequence[AnswerTree]) -> Tensor:
    """States BND after self-attention: what costs the square of its nodes is done tree by tree, all else at once."""
    sizes = [len(tree.token_N) for tree in trees]
    key, value = (part.split(sizes, dim=2) for part in attention.keys_values(hidden_BND))
    parts = zip(hidden_BND.split(sizes, dim=1), key, value, trees, strict=True)
    return torch.cat([attention(rows, (k, v), tree.sees_NN) for rows, k, v, tree in parts], dim=1)


def _log_sum(rows_XD: Tensor, words_VD: Tensor, bias_V: Tensor) -> Tensor:
    """Logarithm X of the sum over the words of the exponentials of `rows_XD @ words_VD.T + bias_V`."""
    block = max(1, _BLOCK_LOGITS // len(rows_XD))
    words = zip(words_VD.split(block), bias_V.split(block), strict=True)
    return torch.stack([at_least_single(F.linear(rows_XD, *part)).logsumexp(1) for part in words]).logsumexp(0)


def _log_sum_in_cache(rows_XD: Tensor, words_VD: Tensor, bias_V: Tensor) -> Tensor:
    """The same in fewer passes over memory; infinite where a logit is 88 above those of the first words, in float32.

    The exponentials are taken relative to the largest logit of a few words, where others look for the largest of all.
    """
    base_X1 = F.linear(rows_XD, words_VD[:_FEW_WORDS], bias_V[:_FEW_WORDS]).amax(1, keepdim=True)
    block = max(1, _CACHED_LOGITS // len(rows_XD))
    sums = []
    for part_WD, bias_W in zip(words_VD.split(block), bias_V.split(block), strict=True):
        logits_XW = bias_W - base_X1
        sums.append(torch.addmm(logits_XW, rows_XD, part_WD.T, out=logits_XW).exp_().sum(1))
    return torch.stack(sums).sum(0).log() + base_X1[:, 0]


def _vision_config(config: VisionConfig, finetune: FinetuneConfig) -> VisionConfig:
    """Fine-tuning trains the position table, whatever it started as."""
    return replace(config, image_size=finetune.image_size or config.image_size, pos_embed="learned")


def _decoder_config(config: TextConfig, finetune: FinetuneConfig) -> TextConfig:
    layers = finetune.decoder_layers or config.fusion_layers
    if layers > config.fusion_layers:
        raise ConfigError(
            f"finetune.decoder_layers is {layers}, but they start from the {config.fusion_layers} fusion layers; "
            f"choose at most {config.fusion_layers}"
        )
    return replace(config, text_layers=0, fusion_layers=layers)
