"""The candidate answers of a site as prefix trees, so that a decoder reads each shared beginning once.

Sixty answers of three tokens share [CLS] and often their first word. A tree's nodes are all distinct beginnings, laid
out as one sequence in which a token sees its own ancestors only; the decoder then scores every answer in one pass.

Dimensions: C candidates, L tokens, N nodes, E edges (a node and the token that follows it), T edges of an answer,
Q questions.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mumc_model.data.tokenizer import Tokenizer
from mumc_model.errors import DataError

Scoring = Literal["mean", "sum", "compat"]
"""Log-probability a token, of the whole answer, or with the first token counted twice as the paper's code does."""

_TREE_ANSWERS = 64
"""Answers of one tree: attention within a tree grows with the square of its nodes."""


@dataclass(frozen=True)
class AnswerTree:
    """Some answers, merged where they begin alike."""

    token_N: Tensor
    depth_N: Tensor
    sees_NN: Tensor
    """Whether the row's node sees the column's: its ancestors and itself."""
    edge_node_E: Tensor
    edge_token_E: Tensor
    edges_CT: Tensor
    """The edges of each answer; an answer that ends sooner repeats the number E."""

    @classmethod
    def build(cls, answers: Sequence[tuple[int, ...]]) -> "AnswerTree":
        """The tree of answers given as [CLS] x [SEP]; nothing is asked after [SEP], so it is no node."""
        nodes: dict[tuple[int, ...], int] = {}
        edges: dict[tuple[int, ...], int] = {}
        for answer in answers:
            for end in range(1, len(answer)):
                nodes.setdefault(answer[:end], len(nodes))
                edges.setdefault(answer[: end + 1], len(edges))
        sees_NN = torch.zeros(len(nodes), len(nodes), dtype=torch.bool)
        for prefix, node in nodes.items():
            sees_NN[node, [nodes[prefix[:end]] for end in range(1, len(prefix) + 1)]] = True
        edges_CT = torch.full((len(answers), max(map(len, answers)) - 1), len(edges))
        for row, answer in zip(edges_CT, answers, strict=True):
            row[: len(answer) - 1] = torch.tensor([edges[answer[: end + 1]] for end in range(1, len(answer))])
        return cls(
            token_N=torch.tensor([prefix[-1] for prefix in nodes]),
            depth_N=torch.tensor([len(prefix) - 1 for prefix in nodes]),
            sees_NN=sees_NN,
            edge_node_E=torch.tensor([nodes[prefix[:-1]] for prefix in edges]),
            edge_token_E=torch.tensor([prefix[-1] for prefix in edges]),
            edges_CT=edges_CT,
        )

    def to(self, device: torch.device) -> "AnswerTree":
        """The same tree on a device."""
        return AnswerTree(**{name: value.to(device) for name, value in vars(self).items()})


@dataclass(frozen=True)
class Candidates:
    """The answers that a site ranks, in a fixed order, and the trees that hold them."""

    texts: tuple[str, ...]
    token_counts_C: Tensor
    """Tokens that are predicted for each answer, [SEP] included."""
    trees: tuple[AnswerTree, ...]
    order_C: Tensor
    """Where each candidate stands in the trees, read one after another."""

    def __len__(self) -> int:
        """Number of answers."""
        return len(self.texts)

    @classmethod
    def build(cls, texts: Sequence[str], ids_CL: Tensor, mask_CL: Tensor) -> "Candidates":
        """Candidates from their texts and their tokens as `Tokenizer.answers` gives them, all distinct."""
        rows = [tuple(ids[:n].tolist()) for ids, n in zip(ids_CL, mask_CL.sum(1).tolist(), strict=True)]
        places = sorted(range(len(rows)), key=rows.__getitem__)
        blocks = [places[start : start + _TREE_ANSWERS] for start in range(0, len(places), _TREE_ANSWERS)]
        return cls(
            texts=tuple(texts),
            token_counts_C=mask_CL.sum(1) - 1,
            trees=tuple(AnswerTree.build([rows[place] for place in block]) for block in blocks),
            order_C=torch.tensor(places).argsort(),
        )

    def to(self, device: torch.device) -> "Candidates":
        """The same candidates on a device."""
        trees = tuple(tree.to(device) for tree in self.trees)
        return Candidates(self.texts, self.token_counts_C.to(device), trees, self.order_C.to(device))

    def scores(self, edges: Sequence[Tensor], scoring: Scoring) -> Tensor:
        """Score QC of each answer from the log-probabilities QE of each tree's edges."""
        along = self._along(edges)
        total_QC = torch.cat([edge_QCT.sum(2) for edge_QCT in along], dim=1)[:, self.order_C]
        if scoring == "mean":
            return total_QC / self.token_counts_C
        if scoring == "sum":
            return total_QC
        return total_QC + self.first_tokens(edges)

    def first_tokens(self, edges: Sequence[Tensor]) -> Tensor:
        """Log-probability QC of each answer's first token."""
        return torch.cat([edge_QCT[:, :, 0] for edge_QCT in self._along(edges)], dim=1)[:, self.order_C]

    def _along(self, edges: Sequence[Tensor]) -> list[Tensor]:
        """For each tree the log-probabilities QCT along each of its answers, 0 beyond the end."""
        return [
            torch.cat([edge_QE, edge_QE.new_zeros(len(edge_QE), 1)], dim=1)[:, tree.edges_CT]
            for edge_QE, tree in zip(edges, self.trees, strict=True)
        ]


def candidate_answers(answers: Sequence[str], tokenizer: Tokenizer, max_tokens: int) -> Candidates:
    """The distinct answers of a site's training questions, most frequent first.

    Spellings that read the same to the decoder are one candidate, under the most frequent of them.

    Raises:
        DataError: there are no answers.
    """
    if not answers:
        raise DataError("there are no training answers to rank; give the site questions of the train split")
    counts = sorted(Counter(answers).items(), key=lambda item: (-item[1], item[0]))
    ids_CL, mask_CL = tokenizer.answers([text for text, _ in counts], max_tokens)
    kept: dict[tuple[int, ...], int] = {}
    for row, ids in enumerate(ids_CL.tolist()):
        kept.setdefault(tuple(ids), row)
    rows = list(kept.values())
    return Candidates.build([counts[row][0] for row in rows], ids_CL[rows], mask_CL[rows])
