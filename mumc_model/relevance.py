"""How much each token of one stream owes to each token of another, followed through all attentions of a network.

The rules are those of Chefer, Gur and Wolf, "Generic attention-model explainability for interpreting bi-modal and
encoder-decoder transformers", arXiv 2103.15679, section 3; equation numbers below are theirs.

Dimensions: B records, H heads, Q and S tokens of two streams, T tokens of any third.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


def mean_positive(map_BHQS: Tensor, gradient_BHQS: Tensor) -> Tensor:
    """Weight BQS, 0 or more: the mean over heads of the positive part of map times gradient. Equation 5."""
    return (map_BHQS * gradient_BHQS).clamp(min=0).mean(1)


def normalised(taken_BQQ: Tensor) -> Tensor:
    """What each token took, scaled so that a row's sum is 1, and the token itself. Equations 8 and 9.

    A token that has taken nothing keeps itself alone.
    """
    total_BQ1 = taken_BQQ.sum(-1, keepdim=True)
    scaled_BQQ = torch.where(total_BQ1 > 0, taken_BQQ / total_BQ1, 0.0)
    return scaled_BQQ + torch.eye(taken_BQQ.shape[-1], dtype=taken_BQQ.dtype, device=taken_BQQ.device)


@dataclass(frozen=True)
class Stream:
    """The tokens of one kind at some depth of the network, and what they owe."""

    name: str
    taken_BQQ: Tensor
    """To the tokens of their own kind, beyond each to itself: the paper's R less the unit matrix.

    Beside its ones, what a sure answer's small gradients leave would be lost to rounding.
    """
    others: Mapping[str, Tensor] = field(default_factory=dict)
    """To those of other kinds, BQT by name; a kind that is missing is owed nothing yet."""

    @classmethod
    def start(cls, name: str, batch: int, tokens: int, like: Tensor) -> "Stream":
        """Before any attention each token owes itself, and nothing else."""
        return cls(name, like.new_zeros(batch, tokens, tokens))

    def after_self_attention(self, weight_BQQ: Tensor) -> "Stream":
        """Each token takes what those it attends to owe. Equations 6 and 7."""
        others = {name: owed_BQT + weight_BQQ @ owed_BQT for name, owed_BQT in self.others.items()}
        return Stream(self.name, self.taken_BQQ + weight_BQQ + weight_BQQ @ self.taken_BQQ, others)

    def after_cross_attention(self, weight_BQS: Tensor, source: "Stream") -> "Stream":
        """Each token takes from the source's tokens, and what these owe. Equations 10 and 11.

        What the source owes to a third kind of token is taken by equation 11 as well, which the paper writes for the
        kind that attends: an answer that attends to a question's states so takes what these took from the image.
        """
        taken_BQS = normalised(self.taken_BQQ).transpose(1, 2) @ weight_BQS @ normalised(source.taken_BQQ)
        others = dict(self.others)
        for name, owed_BST in source.others.items():
            if name != self.name:
                others[name] = _sum(others.get(name), weight_BQS @ owed_BST)
        others[source.name] = _sum(others.get(source.name), taken_BQS)
        back_BSQ = source.others.get(self.name)
        own_BQQ = self.taken_BQQ if back_BSQ is None else self.taken_BQQ + weight_BQS @ back_BSQ
        return Stream(self.name, own_BQQ, others)


def _sum(before: Tensor | None, added: Tensor) -> Tensor:
    return added if before is None else before + added
