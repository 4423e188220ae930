"""Whether a question and its image are like those that the model learned from: a gate before any answer.

Each is a point in its encoder's feature space. How far it lies from the nearest training points is compared with the
distances of validation's, which gives a p-value: questions like validation's fall below a level in that share of cases.

What is kept here are features of patients' images: they stay at the site.

Dimensions: B questions, I images, N validation questions, M training points, S image tokens, L tokens, D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from mumc_model.errors import CheckpointError
from mumc_model.reply import Familiarity

LEVEL = 0.05
"""Share of questions like validation's that is referred without need, where nobody chose another."""
NEIGHBOURS = 3
MOST_POINTS = 2000
"""Training points that are kept of either kind."""
TENSORS = ("image_MD", "question_MD", "image_distance_N", "question_distance_N")


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Training points, and how far validation's questions lie from them."""

    image_MD: Tensor
    question_MD: Tensor
    image_distance_N: Tensor
    question_distance_N: Tensor

    @classmethod
    def of(cls, train: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor]) -> Self:
        """The gate of training points and, for each validation question, its image's and its own."""
        image_MD, question_MD = (_spread(points) for points in train)
        return cls(
            image_MD=image_MD,
            question_MD=question_MD,
            image_distance_N=distance(validation[0], image_MD),
            question_distance_N=distance(validation[1], question_MD),
        )

    @property
    def mute(self) -> bool:
        """Whether validation is too small to refer anything at the usual level."""
        return len(self.image_distance_N) + 1 < 1 / LEVEL

    def judge(self, image_1D: Tensor, question_1D: Tensor, level: float = LEVEL) -> Familiarity:
        """How usual an image and a question are.

        The joint p-value is that of the smaller of both: if a question and validation's are exchangeable, it is at most
        `level` in at most that share of cases.
        """
        image = _rarity(distance(image_1D, self.image_MD), self.image_distance_N)
        question = _rarity(distance(question_1D, self.question_MD), self.question_distance_N)
        own_N = torch.minimum(
            _rarity(self.image_distance_N, self.image_distance_N, own=True),
            _rarity(self.question_distance_N, self.question_distance_N, own=True),
        )
        smaller = torch.minimum(image, question)
        joint = (1 + (own_N <= smaller + 1e-12).sum()) / (len(own_N) + 1)
        return Familiarity(image=float(image), question=float(question), joint=float(joint), level=level)

    def tensors(self) -> dict[str, Tensor]:
        """What a file keeps."""
        return {name: getattr(self, name).contiguous() for name in TENSORS}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """What `tensors` gave.

        Raises:
            CheckpointError: something is missing, or its shape is another.
        """
        if set(tensors) != set(TENSORS) or [tensors[name].ndim for name in TENSORS] != [2, 2, 1, 1]:
            raise CheckpointError("the features of the familiarity gate are damaged; fine-tune again")
        return cls(**{name: tensors[name] for name in TENSORS})


def image_features(token_ISD: Tensor) -> Tensor:
    """A point ID for each image, from its tokens."""
    patch_IPD = token_ISD[:, 1:].float()
    return torch.cat([patch_IPD.mean(1), patch_IPD.std(1)], dim=1).cpu()


def question_features(hidden_BLD: Tensor, mask_BL: Tensor) -> Tensor:
    """A point BD for each question, from the text layers' states."""
    mask_BL1 = mask_BL[:, :, None].float()
    return ((hidden_BLD.float() * mask_BL1).sum(1) / mask_BL1.sum(1)).cpu()


def distance(point_BD: Tensor, train_MD: Tensor) -> Tensor:
    """Mean Euclidean distance B to the nearest training points."""
    near = torch.cdist(point_BD.double(), train_MD.double()).topk(min(NEIGHBOURS, len(train_MD)), largest=False)
    return near.values.mean(1)


def _rarity(distance_B: Tensor, validation_N: Tensor, *, own: bool = False) -> Tensor:
    """p-value B: the share of validation's distances that are as large, the point's own among them."""
    least_B = distance_B[:, None] * (1 - 1e-9)
    larger_B: Tensor = (validation_N[None] >= least_B).sum(1).double()
    return larger_B.div(len(validation_N)) if own else larger_B.add(1).div(len(validation_N) + 1)


def _spread(points_MD: Tensor) -> Tensor:
    """At most so many of the points, spread evenly over them, each once."""
    unique_MD: Tensor = torch.unique(points_MD, dim=0)
    if len(unique_MD) <= MOST_POINTS:
        return unique_MD
    return unique_MD[torch.linspace(0, len(unique_MD) - 1, MOST_POINTS).round().long()]
