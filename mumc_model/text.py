"""BERT as MUMC uses it: text layers, then fusion layers that cross-attend to the image, then the masked-token head.

transformers 5 turns self-attention causal, silently, in every layer that may cross-attend. Its modules therefore serve
here for their parameters only, and the attention is spelled out with the mask the caller names.

Dimensions: B records, X any batch, L tokens, Q queried positions, S source tokens, H heads, C channels of a head,
D width, V vocabulary.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertAttention, BertEmbeddings, BertLayer, BertOnlyMLMHead

from mumc_model.config import TextConfig
from mumc_model.errors import ConfigError

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of one attention, each XHSC."""


def bidirectional_mask(mask_BL: Tensor) -> Tensor:
    """Boolean mask B11L: every token sees every token that is not padding. `mask_BL` is 1 on tokens, 0 on padding."""
    return mask_BL.bool()[:, None, None, :]


def causal_mask(mask_BL: Tensor) -> Tensor:
    """Boolean mask B1LL: a token sees itself and the unpadded tokens before it. The first token is never padding."""
    length = mask_BL.shape[1]
    earlier_LL = torch.ones(length, length, dtype=torch.bool, device=mask_BL.device).tril()
    return bidirectional_mask(mask_BL) & earlier_LL


def bert_config(config: TextConfig, *, cross_attention: bool) -> BertConfig:
    """BERT's configuration of one kind of layer; `cross_attention` adds the attention to an image or a question."""
    return BertConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.width,
        num_hidden_layers=config.text_layers + config.fusion_layers,
        num_attention_heads=config.heads,
        intermediate_size=4 * config.width,
        max_position_embeddings=config.max_positions,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
        is_decoder=cross_attention,
        add_cross_attention=cross_attention,
    )


def keys_values(attention: BertAttention, source_XSD: Tensor) -> KeysValues:
    """What `attention` offers of a source, to be computed once and queried any number of times."""
    core = attention.self
    heads = (core.num_attention_heads, core.attention_head_size)
    key_XHSC = core.key(source_XSD).unflatten(-1, heads).transpose(1, 2)
    value_XHSC = core.value(source_XSD).unflatten(-1, heads).transpose(1, 2)
    return key_XHSC, value_XHSC


def attend(attention: BertAttention, hidden_XQD: Tensor, source: KeysValues, mask: Tensor | None) -> Tensor:
    """`hidden_XQD` after one attention with its residual and norm; `mask` is boolean and broadcasts to XHQS."""
    core = attention.self
    query_XHQC = core.query(hidden_XQD).unflatten(-1, (core.num_attention_heads, core.attention_head_size))
    dropout = core.dropout.p if core.training else 0.0
    mixed_XHQC = F.scaled_dot_product_attention(query_XHQC.transpose(1, 2), *source, attn_mask=mask, dropout_p=dropout)
    return attention.output(mixed_XHQC.transpose(1, 2).flatten(2), hidden_XQD)


def run_layer(
    layer: BertLayer,
    hidden_XLD: Tensor,
    mask: Tensor,
    cross: KeysValues | None = None,
    *,
    cross_mask: Tensor | None = None,
    at_XQ: Tensor | None = None,
) -> Tensor:
    """`hidden_XLD` after one layer, or only its rows `at_XQ` (then the result is XQD and the others cost nothing).

    `mask` and `cross_mask` come from `bidirectional_mask` or `causal_mask`; `at_XQ` wants a bidirectional one.
    """
    query = hidden_XLD if at_XQ is None else take_rows(hidden_XLD, at_XQ)
    hidden = attend(layer.attention, query, keys_values(layer.attention, hidden_XLD), mask)
    if cross is not None:
        hidden = attend(layer.crossattention, hidden, cross, cross_mask)
    return layer.feed_forward_chunk(hidden)


def take_rows(hidden_XLD: Tensor, at_XQ: Tensor) -> Tensor:
    """Rows `at_XQ` of each record, XQD."""
    return hidden_XLD.gather(1, at_XQ[:, :, None].expand(-1, -1, hidden_XLD.shape[2]))


class TextEncoder(nn.Module):
    """BERT with a unimodal and a multimodal half. Parameters are named as in MUMC and in BERT's masked-LM checkpoints."""

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
        plain, crossing = bert_config(config, cross_attention=False), bert_config(config, cross_attention=True)
        self.text_layers = config.text_layers
        self.bert = nn.Module()
        self.bert.embeddings = BertEmbeddings(plain)
        self.bert.encoder = nn.Module()
        self.bert.encoder.layer = nn.ModuleList(
            [BertLayer(plain) for _ in range(config.text_layers)]
            + [BertLayer(crossing) for _ in range(config.fusion_layers)]
        )
        self.cls = BertOnlyMLMHead(plain)
        self.cls.predictions.decoder.weight = self.bert.embeddings.word_embeddings.weight
        self.cls.predictions.decoder.bias = self.cls.predictions.bias

    @property
    def fusion(self) -> nn.ModuleList:
        """The layers that cross-attend to the image."""
        return self.bert.encoder.layer[self.text_layers :]

    def encode(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Text alone, BLD: the embeddings and the text layers."""
        mask_B11L = bidirectional_mask(mask_BL)
        hidden_BLD = self.bert.embeddings(ids_BL)
        for layer in self.bert.encoder.layer[: self.text_layers]:
            hidden_BLD = run_layer(layer, hidden_BLD, mask_B11L)
        return hidden_BLD

    def fuse(self, hidden_XLD: Tensor, mask_XL: Tensor, image_BSD: Tensor, image_of_X: Tensor | None = None) -> Tensor:
        """Text with its image, XLD. Text x looks at image `image_of_X[x]` (at image x when left out)."""
        mask_X11L = bidirectional_mask(mask_XL)
        for layer in self.fusion:
            hidden_XLD = run_layer(layer, hidden_XLD, mask_X11L, self.image_keys_values(layer, image_BSD, image_of_X))
        return hidden_XLD

    @staticmethod
    def image_keys_values(layer: BertLayer, image_BSD: Tensor, image_of_X: Tensor | None = None) -> KeysValues:
        """Keys and values of the images for one fusion layer, computed once an image, then dealt out to the texts."""
        key_BHSC, value_BHSC = keys_values(layer.crossattention, image_BSD)
        if image_of_X is None:
            return key_BHSC, value_BHSC
        return key_BHSC[image_of_X], value_BHSC[image_of_X]

    def mlm_logits(self, hidden_XD: Tensor) -> Tensor:
        """Scores over the vocabulary, XV, for hidden states of any leading shape."""
        return self.cls(hidden_XD)
