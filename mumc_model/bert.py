"""BERT's modules by its parameter names: embeddings, layers that may cross-attend, masked-token head.

They are spelled out because transformers turns self-attention causal, silently, in every layer that may cross-attend,
and takes seconds to import; a test holds them to its results.

Dimensions: B records, X and Y any batch, L tokens, Q queried positions, S source tokens, H heads, C channels of a
head, D width, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from mumc_model.config import TextConfig
from mumc_model.dropout import drop, drop_and_add
from mumc_model.errors import ConfigError

LAYER_NORM_EPS = 1e-12
PAD_ID = 0

_UNDER_MASKS = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of one attention, each XHSC."""
Dealt = Sequence[Tensor | int]
"""Which rows of a source the records of a batch look at, block by block: a list of rows, or its first so many."""


class BertEmbeddings(nn.Module):
    """Words, positions and BERT's first token type, summed and normalised."""

    def __init__(self, config: TextConfig) -> None:
        """One row a token, one a position, two token types as in BERT's checkpoints."""
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.width, padding_idx=PAD_ID)
        self.position_embeddings = nn.Embedding(config.max_positions, config.width)
        self.token_type_embeddings = nn.Embedding(2, config.width)
        self.LayerNorm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.dropout = config.dropout

    def forward(self, ids_BL: Tensor) -> Tensor:
        """Embeddings BLD.

        Raises:
            ConfigError: the text is longer than the model has positions.
        """
        length, positions = ids_BL.shape[1], self.position_embeddings.num_embeddings
        if length > positions:
            raise ConfigError(
                f"a text of {length} tokens exceeds text.max_positions {positions}; cut it or raise the limit"
            )
        return self.at(ids_BL, torch.arange(length, device=ids_BL.device))

    def at(self, ids_XL: Tensor, place_L: Tensor) -> Tensor:
        """Embeddings XLD of tokens that stand at the given places of their texts."""
        offset_LD = self.position_embeddings(place_L) + self.token_type_embeddings(torch.zeros_like(place_L))
        embedded_XLD: Tensor = self.LayerNorm(self.word_embeddings(ids_XL) + offset_LD)
        return drop(embedded_XLD, self.dropout, training=self.training)


class _AttentionInput(nn.Module):
    """The three projections of an attention, BERT's `attention.self`."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout = config.dropout
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)


class _Output(nn.Module):
    """A projection, dropout, the residual and its norm."""

    def __init__(self, inner: int, config: TextConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, config.width)
        self.LayerNorm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.dropout = config.dropout

    def forward(self, inner_XLI: Tensor, residual_XLD: Tensor) -> Tensor:
        added_XLD = drop_and_add(self.dense(inner_XLI), residual_XLD, self.dropout, training=self.training)
        hidden_XLD: Tensor = self.LayerNorm(added_XLD)
        return hidden_XLD


class BertAttention(nn.Module):
    """Attention to the text itself or to another source, with its residual and norm."""

    def __init__(self, config: TextConfig) -> None:
        """Its source is as wide as the text."""
        super().__init__()
        self.self = _AttentionInput(config)
        self.output = _Output(config.width, config)

    def keys_values(self, source_XSD: Tensor) -> KeysValues:
        """What a source offers this attention: computed once, queried any number of times."""
        return self._by_head(self.self.key(source_XSD)), self._by_head(self.self.value(source_XSD))

    def forward(
        self, hidden_XQD: Tensor, source: KeysValues, mask: Tensor | None = None, dealt: Dealt | None = None
    ) -> Tensor:
        """`hidden_XQD` after the attention; `mask` is boolean, true where it may look, and broadcasts to XHQS.

        With `dealt` the records share a source and see all of it. Blocks that look at its first rows ask them
        together, so that nothing is copied; they are of one length.
        """
        query_XQD = self.self.query(hidden_XQD)
        if dealt is None:
            mixed_XQD = self._mixed(query_XQD, source, mask)
        else:
            mixed_XQD = self._mixed_dealt(query_XQD, source, dealt)
        attended_XQD: Tensor = self.output(mixed_XQD, hidden_XQD)
        return attended_XQD

    def _mixed(self, query_XQD: Tensor, source: KeysValues, mask: Tensor | None = None) -> Tensor:
        dropout = self.self.dropout if self.training else 0.0
        return _mix(self._by_head(query_XQD), *source, mask, dropout).transpose(1, 2).flatten(2)

    def _mixed_dealt(self, query_XQD: Tensor, source: KeysValues, dealt: Dealt) -> Tensor:
        blocks = list(query_XQD.split([rows if isinstance(rows, int) else len(rows) for rows in dealt]))
        first = [block for block, rows in enumerate(dealt) if isinstance(rows, int)]
        chosen = [block for block, rows in enumerate(dealt) if not isinstance(rows, int)]
        if first:
            offered = _first_rows(source, len(blocks[first[0]]))
            mixed_BQD = self._mixed(torch.cat([blocks[block] for block in first], dim=1), offered)
            for block, mixed in zip(first, mixed_BQD.split(query_XQD.shape[1], dim=1), strict=True):
                blocks[block] = mixed
        for block in chosen:
            rows = dealt[block]
            assert isinstance(rows, Tensor)
            blocks[block] = self._mixed(blocks[block], _chosen_rows(source, rows))
        return torch.cat(blocks)

    def _by_head(self, projected_XLD: Tensor) -> Tensor:
        batch, length, width = projected_XLD.shape
        return projected_XLD.view(batch, length, self.self.heads, width // self.self.heads).transpose(1, 2)


def _first_rows(source: KeysValues, rows: int) -> KeysValues:
    return source if rows == len(source[0]) else (source[0][:rows], source[1][:rows])


def _chosen_rows(source: KeysValues, row_X: Tensor) -> KeysValues:
    """Each record's own copy; the gradient of `index_select` sums them up many times faster than that of an index."""
    return source[0].index_select(0, row_X), source[1].index_select(0, row_X)


def _mix(query_XHQC: Tensor, key_XHSC: Tensor, value_XHSC: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """Values mixed by the softmax of scaled products, XHQC, a share of the weights dropped."""
    if query_XHQC.device.type == "cuda" and mask is not None:
        # Torch's first choice, cuDNN's kernel, loses by a mask what it gains without one.
        with sdpa_kernel(_UNDER_MASKS):
            return F.scaled_dot_product_attention(query_XHQC, key_XHSC, value_XHSC, attn_mask=mask, dropout_p=dropout)
    if not dropout or query_XHQC.device.type != "cpu":
        return F.scaled_dot_product_attention(query_XHQC, key_XHSC, value_XHSC, attn_mask=mask, dropout_p=dropout)
    # Torch has no fused kernel with dropout on a CPU, and its plain one draws and copies more than this.
    score_XHQS = query_XHQC * query_XHQC.shape[-1] ** -0.5 @ key_XHSC.transpose(-1, -2)
    if mask is not None:
        score_XHQS = score_XHQS.masked_fill_(~mask, -torch.inf)
    return drop(score_XHQS.softmax(-1), dropout, training=True) @ value_XHSC


class _Intermediate(nn.Module):
    """The widening half of the feed-forward part."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.width, 4 * config.width)

    def forward(self, hidden_XLD: Tensor) -> Tensor:
        return F.gelu(self.dense(hidden_XLD))


class BertLayer(nn.Module):
    """One layer: self-attention, cross-attention where it has one, feed-forward."""

    crossattention: BertAttention

    def __init__(self, config: TextConfig, *, cross_attention: bool) -> None:
        """`cross_attention` adds the attention to an image, or to a question in the answer decoder."""
        super().__init__()
        self.attention = BertAttention(config)
        if cross_attention:
            self.crossattention = BertAttention(config)
        self.intermediate = _Intermediate(config)
        self.output = _Output(4 * config.width, config)

    def forward(
        self,
        hidden_XLD: Tensor,
        mask: Tensor,
        cross: KeysValues | None = None,
        *,
        cross_mask: Tensor | None = None,
        dealt: Dealt | None = None,
        at_XQ: Tensor | None = None,
        text_of_Y: Tensor | None = None,
    ) -> Tensor:
        """`hidden_XLD` after the layer, or only its rows `at_XQ` (then the result is XQD and the others cost nothing).

        `mask` and `cross_mask` come from `bidirectional_mask` or `causal_mask`; `at_XQ` wants a bidirectional one.
        `cross` is `layer.crossattention.keys_values(source)`, and `dealt` says who sees what of it. With `text_of_Y`
        the texts are dealt out between the attentions, so that several pairs share a text's self-attention: the result,
        and what is seen, are of batch Y then.
        """
        hidden: Tensor = hidden_XLD if at_XQ is None else take_rows(hidden_XLD, at_XQ)
        hidden = self.attention(hidden, self.attention.keys_values(hidden_XLD), mask)
        if text_of_Y is not None:
            hidden = hidden.index_select(0, text_of_Y)
        if cross is not None:
            hidden = self.crossattention(hidden, cross, cross_mask, dealt)
        hidden = self.output(self.intermediate(hidden), hidden)
        return hidden


def take_rows(hidden_XLD: Tensor, at_XQ: Tensor) -> Tensor:
    """Rows `at_XQ` of each record, XQD."""
    return hidden_XLD.gather(1, at_XQ[:, :, None].expand(-1, -1, hidden_XLD.shape[2]))


class _Transform(nn.Module):
    """The masked-token head's own layer."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.width, config.width)
        self.LayerNorm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)

    def forward(self, hidden_XD: Tensor) -> Tensor:
        transformed_XD: Tensor = self.LayerNorm(F.gelu(self.dense(hidden_XD)))
        return transformed_XD


class _Predictions(nn.Module):
    """Scores over the vocabulary; the decoder's weight is the word embeddings' own."""

    def __init__(self, config: TextConfig, words_VD: nn.Parameter) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.transform = _Transform(config)
        self.decoder = nn.Linear(config.width, config.vocab_size)
        self.decoder.weight, self.decoder.bias = words_VD, self.bias

    def forward(self, hidden_XD: Tensor) -> Tensor:
        logits_XV: Tensor = self.decoder(self.transform(hidden_XD))
        return logits_XV


class MlmHead(nn.Module):
    """BERT's masked-token head under its name, `cls`."""

    def __init__(self, config: TextConfig, words_VD: nn.Parameter) -> None:
        """Tie the head to the word embeddings."""
        super().__init__()
        self.predictions = _Predictions(config, words_VD)

    def forward(self, hidden_XD: Tensor) -> Tensor:
        """Scores XV over the vocabulary for hidden states of any leading shape."""
        logits_XV: Tensor = self.predictions(hidden_XD)
        return logits_XV
