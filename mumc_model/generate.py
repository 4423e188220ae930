"""Answers written token by token: greedy or by beam search, with every key and value computed once.

Dimensions: B questions, L question tokens, K beams, X = B*K rows, V vocabulary, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mumc_model.bert import KeysValues
from mumc_model.model import at_least_single
from mumc_model.text import bidirectional_mask
from mumc_model.vqa import VqaModel


@dataclass(frozen=True, kw_only=True)
class Generated:
    """The best answer found for each question."""

    ids: list[list[int]]
    """Its tokens without [CLS] and, where it came to an end, without [SEP]."""
    probability_B: Tensor
    """Probability of the whole answer, in single precision."""


@torch.no_grad()
def generate(
    model: VqaModel,
    state_BLD: Tensor,
    mask_BL: Tensor,
    *,
    cls_id: int,
    sep_id: int,
    max_tokens: int,
    beams: int = 1,
    length_penalty: float = 1.0,
) -> Generated:
    """The answer of each question by beam search; one beam is greedy.

    Args:
        model: In evaluation mode.
        state_BLD: Question states of `VqaModel.question_states`.
        mask_BL: 1 on the question's tokens.
        cls_id: What an answer starts from.
        sep_id: What ends it.
        max_tokens: The longest answer, [CLS] and [SEP] counted as in training.
        beams: Answers that are followed side by side.
        length_penalty: An answer's log-probability is divided by its length to this power; 0 favours short ones.
    """
    search = _Search(len(state_BLD), beams, sep_id, length_penalty, state_BLD.device)
    reader = _Reader(model, state_BLD, mask_BL, beams)
    token_X = torch.full((len(state_BLD) * beams,), cls_id, device=state_BLD.device)
    for place in range(max_tokens - 1):
        row_X, token_X = search.extend(reader.next_log_probabilities(token_X, place))
        if bool(search.ended_BK.all()):
            break
        reader.reorder(row_X)
    return search.best()


class _Reader:
    """The decoder, one token at a time, with what it has read so far."""

    def __init__(self, model: VqaModel, state_BLD: Tensor, mask_BL: Tensor, beams: int) -> None:
        self._decoder = model.text_decoder
        self._mask_X11L = bidirectional_mask(mask_BL.repeat_interleave(beams, 0))
        crossing = [layer.crossattention.keys_values(state_BLD) for layer in self._decoder.fusion]
        self._cross = [(k.repeat_interleave(beams, 0), v.repeat_interleave(beams, 0)) for k, v in crossing]
        self._past: list[KeysValues | None] = [None] * len(crossing)

    def next_log_probabilities(self, token_X: Tensor, place: int) -> Tensor:
        """Log-probability XV of each token after `token_X`, which stands at `place`."""
        place_1 = torch.tensor([place], device=token_X.device)
        hidden_X1D = self._decoder.bert.embeddings.at(token_X[:, None], place_1)
        for index, (layer, cross) in enumerate(zip(self._decoder.fusion, self._cross, strict=True)):
            present, past = layer.attention.keys_values(hidden_X1D), self._past[index]
            if past is not None:
                present = (torch.cat([past[0], present[0]], 2), torch.cat([past[1], present[1]], 2))
            self._past[index] = present
            hidden_X1D = layer.attention(hidden_X1D, present)
            hidden_X1D = layer.crossattention(hidden_X1D, cross, self._mask_X11L)
            hidden_X1D = layer.output(layer.intermediate(hidden_X1D), hidden_X1D)
        log_probability_XV: Tensor = at_least_single(self._decoder.mlm_logits(hidden_X1D[:, 0])).log_softmax(1)
        return log_probability_XV

    def reorder(self, row_X: Tensor) -> None:
        """Go on from these rows, since a beam may continue another one."""
        self._past = [None if past is None else (past[0][row_X], past[1][row_X]) for past in self._past]


class _Search:
    """The answers that are followed and their scores. An ended one stays, unchanged, in competition with the rest."""

    def __init__(self, questions: int, beams: int, sep_id: int, length_penalty: float, device: torch.device) -> None:
        self._sep_id, self._penalty = sep_id, length_penalty
        self._sum_BK = torch.full((questions, beams), -torch.inf, device=device)
        self._sum_BK[:, 0] = 0.0
        self._length_BK = torch.zeros_like(self._sum_BK)
        self.ended_BK = torch.zeros(questions, beams, dtype=torch.bool, device=device)
        self._ids_BKT = torch.zeros(questions, beams, 0, dtype=torch.int64, device=device)

    def extend(self, log_probability_XV: Tensor) -> tuple[Tensor, Tensor]:
        """Take one more token everywhere; returns which row X each beam continues and its last token X."""
        questions, beams = self._sum_BK.shape
        step_BKV = log_probability_XV.view(questions, beams, -1).to(self._sum_BK.dtype)
        nothing_BKV = torch.full_like(step_BKV, -torch.inf)
        nothing_BKV[:, :, self._sep_id] = 0.0
        step_BKV = torch.where(self.ended_BK[:, :, None], nothing_BKV, step_BKV)
        sum_BKV = self._sum_BK[:, :, None] + step_BKV
        length_BK = self._length_BK + (~self.ended_BK)
        score_BKV = sum_BKV / length_BK[:, :, None] ** self._penalty
        place_BK = score_BKV.flatten(1).topk(beams, dim=1).indices
        beam_BK, token_BK = place_BK // step_BKV.shape[2], place_BK % step_BKV.shape[2]
        self._sum_BK = sum_BKV.flatten(1).gather(1, place_BK)
        self._length_BK = length_BK.gather(1, beam_BK)
        self.ended_BK = self.ended_BK.gather(1, beam_BK) | (token_BK == self._sep_id)
        kept_BKT = self._ids_BKT.gather(1, beam_BK[:, :, None].expand(-1, -1, self._ids_BKT.shape[2]))
        self._ids_BKT = torch.cat([kept_BKT, token_BK[:, :, None]], dim=2)
        first_B1 = torch.arange(questions, device=beam_BK.device)[:, None] * beams
        return (first_B1 + beam_BK).flatten(), token_BK.flatten()

    def best(self) -> Generated:
        score_BK = self._sum_BK / self._length_BK**self._penalty
        best_B1 = score_BK.argmax(1, keepdim=True)
        ids = self._ids_BKT[torch.arange(len(best_B1), device=best_B1.device), best_B1[:, 0]].tolist()
        ids = [row[: row.index(self._sep_id)] if self._sep_id in row else row for row in ids]
        return Generated(ids=ids, probability_B=self._sum_BK.gather(1, best_B1)[:, 0].exp())
