"""The candidate answers of a site as prefix trees, so that a decoder reads each shared beginning once.

Sixty answers of three tokens share [CLS] and often their first word. A tree's nodes are all distinct beginnings, laid
out as one sequence in which a token sees its own ancestors only; the decoder then scores every answer in one pass.

Dimensions: C candidates, L tokens, N nodes, E edges (a node and the token that follows it), T edges of an answer,
Q questions.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

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
class Forest:
    """Trees side by side, as the decoder reads them."""

    token_N: Tensor
    depth_N: Tensor
    edge_node_E: Tensor
    """Of the nodes of all trees."""
    edge_token_E: Tensor
    edges_CT: Tensor
    """The edges of each answer of all trees; an answer that ends sooner repeats the number E."""
    sizes: list[int]
    """Nodes of each tree."""
    sees: tuple[Tensor, ...]
    """For each tree what its nodes add to their scores of one another: 0, or minus infinity where one sees none."""

    @classmethod
    def of(cls, trees: Sequence[AnswerTree]) -> "Forest":
        """These trees, in this order."""
        nodes = list(accumulate((len(tree.token_N) for tree in trees), initial=0))
        edges = list(accumulate((len(tree.edge_node_E) for tree in trees), initial=0))
        longest = max(tree.edges_CT.shape[1] for tree in trees)
        rows = []
        for tree, before in zip(trees, edges, strict=False):
            ended = tree.edges_CT == len(tree.edge_node_E)
            edges_CT = (tree.edges_CT + before).masked_fill(ended, edges[-1])
            rows.append(F.pad(edges_CT, (0, longest - edges_CT.shape[1]), value=edges[-1]))
        return cls(
            token_N=torch.cat([tree.token_N for tree in trees]),
            depth_N=torch.cat([tree.depth_N for tree in trees]),
            edge_node_E=torch.cat([tree.edge_node_E + before for tree, before in zip(trees, nodes, strict=False)]),
            edge_token_E=torch.cat([tree.edge_token_E for tree in trees]),
            edges_CT=torch.cat(rows),
            sizes=[len(tree.token_N) for tree in trees],
            sees=tuple(
                torch.zeros_like(tree.sees_NN, dtype=torch.float32).masked_fill(~tree.sees_NN, -torch.inf)
                for tree in trees
            ),
        )


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

    @cached_property
    def forest(self) -> Forest:
        """The trees side by side, put together at the first question."""
        return Forest.of(self.trees)

    def to(self, device: torch.device) -> "Candidates":
        """The same candidates on a device."""
        if self.order_C.device == device:
            return self
        trees = tuple(tree.to(device) for tree in self.trees)
        return Candidates(self.texts, self.token_counts_C.to(device), trees, self.order_C.to(device))

    def scores(self, edge_QE: Tensor, scoring: Scoring) -> Tensor:
        """Score QC of each answer from the log-probabilities QE of the edges of all trees."""
        total_QC = self._along(edge_QE).sum(2)[:, self.order_C]
        if scoring == "mean":
            return total_QC / self.token_counts_C
        if scoring == "sum":
            return total_QC
        return total_QC + self.first_tokens(edge_QE)

    def first_tokens(self, edge_QE: Tensor) -> Tensor:
        """Log-probability QC of each answer's first token."""
        return self._along(edge_QE)[:, :, 0][:, self.order_C]

    def _along(self, edge_QE: Tensor) -> Tensor:
        """The log-probabilities QCT along each answer, in the order of the trees; 0 beyond the end."""
        return F.pad(edge_QE, (0, 1))[:, self.forest.edges_CT]


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
