"""Whether a question and its image are like those that the model learned from: a gate before any answer.

An image is a point in the space of its first features, the embedded patches; a question one in the space of the text
layers. How far a point lies from the training points is compared with validation's distances, which gives a p-value:
questions like validation's fall below a level in at most that share of cases.

What is kept are the means and covariances of patients' images and questions: they stay at the site.

Dimensions: B questions or images, N validation questions, M training points, P patches, L tokens, D width, E width of a
point.
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
SHRINKAGE = 0.1
"""Weight of uncorrelated features in the covariance, which else has no inverse where there are few images."""


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Where training points lie."""

    mean_E: Tensor
    root_EE: Tensor
    """A square root of the inverse covariance."""

    @classmethod
    def of(cls, point_ME: Tensor) -> Self:
        """That of these points."""
        point_ME = point_ME.double()
        mean_E, scale_E = point_ME.mean(0), point_ME.std(0, correction=0)
        # A feature that never varied in training says nothing in a unit of its own: it is given the others' unit.
        scale_E = torch.where(scale_E > 1e-6, scale_E, scale_E.mean().clamp_min(1e-6))
        centred_ME = (point_ME - mean_E) / scale_E
        correlation_EE = (1 - SHRINKAGE) * centred_ME.T @ centred_ME / len(point_ME)
        correlation_EE += SHRINKAGE * torch.eye(len(mean_E), dtype=torch.float64)
        root_EE = torch.linalg.cholesky(torch.linalg.inv(correlation_EE)) / scale_E[:, None]
        return cls(mean_E=mean_E.float(), root_EE=root_EE.float())

    def distance(self, point_BE: Tensor) -> Tensor:
        """Mahalanobis distance B of each point from the mean."""
        distance_B: Tensor = ((point_BE - self.mean_E) @ self.root_EE).double().norm(dim=1)
        return distance_B


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Where training lies, and how far validation's questions lie from it."""

    image: Cloud
    question: Cloud
    image_distance_N: Tensor
    question_distance_N: Tensor

    @classmethod
    def of(cls, train: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor]) -> Self:
        """The gate of training's points and validation's: each question's image, and the question itself."""
        image, question = (Cloud.of(points) for points in train)
        return cls(
            image=image,
            question=question,
            image_distance_N=image.distance(validation[0]),
            question_distance_N=question.distance(validation[1]),
        )

    def judge(self, image_1E: Tensor, question_1E: Tensor, level: float = LEVEL) -> Familiarity:
        """How usual an image and a question are.

        The joint p-value is that of the smaller of both: if a question and validation's are exchangeable, it is at most
        `level` in at most that share of cases. Source: Vovk et al., Algorithmic learning in a random world (2005).
        """
        image_N = _rarity(self.image.distance(image_1E), self.image_distance_N)
        question_N = _rarity(self.question.distance(question_1E), self.question_distance_N)
        smaller_N = torch.minimum(image_N, question_N)
        joint = (smaller_N <= smaller_N[-1]).double().mean()
        return Familiarity(image=float(image_N[-1]), question=float(question_N[-1]), joint=float(joint), level=level)

    def tensors(self) -> dict[str, Tensor]:
        """What a file keeps."""
        return {
            "image_mean_E": self.image.mean_E,
            "image_root_EE": self.image.root_EE,
            "question_mean_E": self.question.mean_E,
            "question_root_EE": self.question.root_EE,
            "image_distance_N": self.image_distance_N,
            "question_distance_N": self.question_distance_N,
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """What `tensors` gave.

        Raises:
            CheckpointError: something is missing, or its shape is another.
        """
        try:
            image, question = (
                Cloud(mean_E=tensors[f"{kind}_mean_E"], root_EE=tensors[f"{kind}_root_EE"])
                for kind in ("image", "question")
            )
            found = cls(
                image=image,
                question=question,
                image_distance_N=tensors["image_distance_N"],
                question_distance_N=tensors["question_distance_N"],
            )
        except KeyError as error:
            raise CheckpointError(f"the features of the familiarity gate lack {error}; fine-tune again") from error
        square = all(c.mean_E.ndim == 1 and c.root_EE.shape == (len(c.mean_E),) * 2 for c in (image, question))
        if (
            not square
            or found.image_distance_N.ndim != 1
            or len(found.image_distance_N) != len(found.question_distance_N)
        ):
            raise CheckpointError("the features of the familiarity gate are of other shapes; fine-tune again")
        return found


def image_features(patch_BPD: Tensor) -> Tensor:
    """A point BE for each image, from its embedded patches: their mean and their spread."""
    point_BE = torch.cat([patch_BPD.float().mean(1), patch_BPD.float().std(1)], dim=1)
    return point_BE.cpu()


def question_features(hidden_BLD: Tensor, mask_BL: Tensor) -> Tensor:
    """A point BE for each question, from the text layers' states."""
    mask_BL1 = mask_BL[:, :, None].float()
    return ((hidden_BLD.float() * mask_BL1).sum(1) / mask_BL1.sum(1)).cpu()


def _rarity(distance_1: Tensor, validation_N: Tensor) -> Tensor:
    """p-value of each of validation's distances and, last, of the new one: the share of all that are as large.

    The new one is one of them, so that all are treated alike, and a p-value made of these is exact.
    """
    all_N = torch.cat([validation_N, distance_1])
    smaller_N = torch.searchsorted(all_N.sort().values, all_N * (1 - 1e-9))
    rarity_N: Tensor = 1 - smaller_N.double() / len(all_N)
    return rarity_N
