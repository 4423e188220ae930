"""Ranking: the probability of every candidate answer, each shared beginning of answers read once.

Dimensions: B questions, L question tokens, D width, V vocabulary, N nodes and E edges of all answer trees,
K candidates, X rows, W some words.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from mumc_model.bert import BertAttention
from mumc_model.candidates import Candidates, Forest, Scoring
from mumc_model.model import at_least_single
from mumc_model.text import TextEncoder, bidirectional_mask

COMPAT_KEPT = 128
"""Candidates that the paper's code weighs."""
_BLOCK_ROWS = 1024
"""Nodes, over all questions, that the decoder reads at once; a longer list is read a question at a time.

It bounds what the decoder holds, and keeps it in a CPU's cache; logits have a bound of their own."""
_BLOCK_LOGITS = 1 << 26
"""Logits held at once while ranking."""
_CACHED_LOGITS = 1 << 20
"""Logits that stay in a CPU's cache until they have been read."""
_SMALLEST_SUM = 1e-30
"""Of exponentials of logits in single precision; in a smaller one, what counts would have been rounded away."""
_LARGEST_BIAS = 10.0
"""Up or down, of a word where exponentials are rounded before its bias is multiplied in.

The rounding of 30,522 words, each 7e-46 at most, then is less than a millionth of the smallest sum."""


@torch.no_grad()
def rank(
    decoder: TextEncoder,
    state_BLD: Tensor,
    mask_BL: Tensor,
    candidates: Candidates,
    scoring: Scoring = "mean",
    *,
    keep: int = COMPAT_KEPT,
) -> Tensor:
    """Probability BK of every candidate answer to questions in these states, normalised among the candidates.

    `mean` compares log-probabilities a token, so that long answers are not punished for their length. `compat` is
    the paper's code: only the `keep` candidates with the likeliest first token are weighed, the others get 0, and
    candidates that begin alike are cut in no particular order.
    """
    edge_BE = edge_log_probabilities(decoder, state_BLD, mask_BL, candidates.forest)
    score_BK = candidates.scores(edge_BE, scoring)
    if scoring == "compat" and keep < len(candidates):
        kept_BP = candidates.first_tokens(edge_BE).softmax(dim=1).topk(keep, dim=1).indices
        dropped_BK = torch.ones_like(score_BK, dtype=torch.bool).scatter_(1, kept_BP, False)
        score_BK = score_BK.masked_fill(dropped_BK, -torch.inf)
    return score_BK.softmax(dim=1)


def edge_log_probabilities(decoder: TextEncoder, state_BLD: Tensor, mask_BL: Tensor, forest: Forest) -> Tensor:
    """Log-probability BE of each edge of all trees, in blocks of questions."""
    head = decoder.cls.predictions
    words_ED, bias_E = head.decoder.weight[forest.edge_token_E], head.bias[forest.edge_token_E]
    start_1ND = begin(decoder, forest)
    block, parts = max(1, _BLOCK_ROWS // start_1ND.shape[1]), []
    for state, mask in zip(torch.split(state_BLD, block), torch.split(mask_BL, block), strict=True):
        read_BND = at_least_single(head.transform(read(decoder, start_1ND, forest, state, mask)))
        # A logit and the sum over all of them must be rounded alike, or probabilities come to more than 1.
        with torch.autocast(read_BND.device.type, enabled=False):
            followed_BE = (read_BND[:, forest.edge_node_E] * words_ED).sum(2) + bias_E
            normaliser_BN = log_normaliser(read_BND, head.decoder.weight, head.decoder.bias)
            parts.append(followed_BE - normaliser_BN[:, forest.edge_node_E])
    return torch.cat(parts)


def begin(decoder: TextEncoder, forest: Forest) -> Tensor:
    """States 1ND of all nodes up to their first look at the question: the same for every question."""
    start_1ND = decoder.bert.embeddings.at(forest.token_N[None], forest.depth_N)
    return _within_trees(decoder.fusion[0].attention, start_1ND, forest)


def read(decoder: TextEncoder, start_1ND: Tensor, forest: Forest, state_BLD: Tensor, mask_BL: Tensor) -> Tensor:
    """States BND of all nodes after the last layer, from those that `begin` gives."""
    state_BLD, cross_mask = _without_padding(state_BLD, mask_BL)
    hidden = start_1ND.expand(len(state_BLD), -1, -1)
    for index, layer in enumerate(decoder.fusion):
        if index:
            hidden = _within_trees(layer.attention, hidden, forest)
        hidden = layer.crossattention(hidden, layer.crossattention.keys_values(state_BLD), cross_mask)
        hidden = layer.output(layer.intermediate(hidden), hidden)
    return hidden


def log_normaliser(read_BND: Tensor, words_VD: Tensor, bias_V: Tensor) -> Tensor:
    """Logarithm BN of the sum over the vocabulary of the exponentials of the logits."""
    rows_XD = read_BND.flatten(0, 1)
    if rows_XD.device.type != "cpu":
        return _log_sum(rows_XD, words_VD, bias_V).view(read_BND.shape[:2])
    if bias_V.abs().max() <= _LARGEST_BIAS:
        normaliser_X = _log_sum_in_cache(rows_XD, words_VD, bias_V)
        if normaliser_X.isfinite().all():
            return normaliser_X.view(read_BND.shape[:2])
    return _log_sum(rows_XD, words_VD, bias_V).view(read_BND.shape[:2])


def _without_padding(state_BLD: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor | None]:
    """The states up to the last token of the longest question, and a mask where a shorter one needs it.

    Every node looks at every token, and a mask of nothing but tokens costs half as much again as looking does. What an
    accelerator has to be asked for, and waited for, it does without.
    """
    if mask_BL.device.type != "cpu":
        return state_BLD, bidirectional_mask(mask_BL)
    length = int(mask_BL.bool().any(0).nonzero()[-1]) + 1
    mask_BL = mask_BL[:, :length]
    return state_BLD[:, :length], None if mask_BL.bool().all() else bidirectional_mask(mask_BL)


def _within_trees(attention: BertAttention, hidden_BND: Tensor, forest: Forest) -> Tensor:
    """States BND after self-attention: what costs the square of its nodes is done tree by tree, all else at once."""
    key, value = attention.keys_values(hidden_BND)
    query = attention.self.query(hidden_BND).unflatten(2, (attention.self.heads, -1)).transpose(1, 2)
    parts = (part.split(forest.sizes, dim=2) for part in (query, key, value))
    mixed = [
        F.scaled_dot_product_attention(q, k, v, sees_NN.to(q.dtype)).transpose(1, 2)
        for q, k, v, sees_NN in zip(*parts, forest.sees, strict=True)
    ]
    attended_BND: Tensor = attention.output(torch.cat(mixed, dim=1).flatten(2), hidden_BND)
    return attended_BND


def _log_sum(rows_XD: Tensor, words_VD: Tensor, bias_V: Tensor) -> Tensor:
    """Logarithm X of the sum over the words of the exponentials of `rows_XD @ words_VD.T + bias_V`."""
    block = max(1, _BLOCK_LOGITS // len(rows_XD))
    words = zip(words_VD.split(block), bias_V.split(block), strict=True)
    return torch.stack([at_least_single(F.linear(rows_XD, *part)).logsumexp(1) for part in words]).logsumexp(0)


def _log_sum_in_cache(rows_XD: Tensor, words_VD: Tensor, bias_V: Tensor) -> Tensor:
    """The same of small biases in fewer passes over memory; not finite where single precision cannot hold it.

    They are taken as they are, where others look for the largest logit first, and each is weighed by the exponential of
    its word's bias.
    """
    block = max(1, _CACHED_LOGITS // len(rows_XD))
    sum_X = rows_XD.new_zeros(len(rows_XD))
    for part_WD, bias_W in zip(words_VD.split(block), bias_V.split(block), strict=True):
        sum_X.addmv_(torch.mm(rows_XD, part_WD.T).exp_(), bias_W.exp())
    return torch.where(sum_X > _SMALLEST_SUM, sum_X, 0).log()
