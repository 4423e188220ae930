"""What the questions of a split see: images encoded once, and the questions about one image side by side.

Dimensions: N questions, I images, B questions of a block, A those of them that are asked, L tokens, C channels,
H height, W width in pixels, S image tokens, D width.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor

from mumc_model.data.samples import VqaSamples
from mumc_model.model import MumcModel
from mumc_model.vqa import VqaModel

View = Literal["real", "blank", "shuffled"]
"""What is looked at: the question's image, an evenly grey one, or another question's."""

OnAnswered = Callable[[int], None]
"""Called with the number of questions that were just answered."""

_QUESTIONS = 128
_IMAGES = 32
_KEPT_BYTES = 8 << 30
"""The most image tokens that are kept; above it images are encoded anew when they are asked for."""


class ImageTokens:
    """Image tokens of a split as the model's encoder gives them now, without gradient and without augmentation."""

    def __init__(
        self,
        model: VqaModel | MumcModel,
        samples: VqaSamples,
        device: torch.device,
        *,
        keep: bool = False,
        view: View = "real",
    ) -> None:
        """`keep` encodes all images now, for an encoder that stands still."""
        self._model, self._samples, self._device, self._view = model, samples, device, view
        config, images = model.visual_encoder.config, len(samples.unique_image_keys)
        needed = images * (1 + config.patches) * config.width * 4
        self.image_of_N = _shown(images, view)[samples.image_of_N]
        """Place among the split's unique images of the one that each question is shown."""
        self._kept_ISD = self._encode(torch.arange(images)) if keep and 0 < needed <= _KEPT_BYTES else None

    def __call__(self, image_I: Tensor) -> Tensor:
        """Tokens ISD of the images at these places among the unique ones."""
        return self._encode(image_I.cpu()) if self._kept_ISD is None else self._kept_ISD[image_I.to(self._device)]

    @torch.no_grad()
    def _encode(self, image_I: Tensor) -> Tensor:
        blocks = [self._pixels(block).to(self._device) for block in torch.split(image_I, _IMAGES)]
        return torch.cat([self._model.visual_encoder(block) for block in blocks])

    def _pixels(self, image_I: Tensor) -> Tensor:
        pixels_ICHW = self._samples.images(image_I)
        return torch.zeros_like(pixels_ICHW) if self._view == "blank" else pixels_ICHW


def _shown(images: int, view: View) -> Tensor:
    """Which image is shown in the place of each, I."""
    if view == "blank":
        return torch.zeros(images, dtype=torch.int64)
    if view == "real" or images < 2:
        return torch.arange(images)
    # One cycle through a random order: every question sees an image, and none its own.
    order_I = torch.randperm(images, generator=torch.Generator().manual_seed(0))
    return torch.empty_like(order_I).scatter_(0, order_I, order_I.roll(1))


@dataclass(frozen=True)
class Block:
    """Questions that are answered side by side. Of those that read alike and see one image one is asked for all."""

    index_B: Tensor
    """Their places in the split."""
    asked_A: Tensor
    """The places of those that are asked."""
    answer_of_B: Tensor
    """Which of the asked ones answers each question."""
    image_I: Tensor
    """Places of the images that they see."""
    image_of_A: Tensor
    """Which of these each asked question sees."""


def by_image(
    samples: VqaSamples,
    tokens: ImageTokens,
    on_answered: OnAnswered | None = None,
    size: int = 0,
    apart: Sequence[str] = (),
) -> Iterator[Block]:
    """Blocks of at most `size` questions. An image is in one block, unless more than `size` questions see it.

    `apart` may name an owner of each question: no block then holds questions of two owners.
    """
    image_of = tokens.image_of_N.tolist()
    owned: dict[str, list[int]] = {}
    for index in tokens.image_of_N.argsort(stable=True).tolist():
        owned.setdefault(apart[index] if apart else "", []).append(index)
    for places in owned.values():
        for index_B in _whole_images(places, image_of, size or _QUESTIONS):
            yield _block(index_B, tokens.image_of_N[index_B], samples.ids_NL[index_B])
            if on_answered:
                on_answered(len(index_B))


def _whole_images(places: list[int], image_of: list[int], size: int) -> Iterator[Tensor]:
    block: list[int] = []
    for _, group in groupby(places, key=image_of.__getitem__):
        own = list(group)
        if block and len(block) + len(own) > size:
            yield torch.tensor(block)
            block = []
        block += own
        while len(block) > size:
            yield torch.tensor(block[:size])
            block = block[size:]
    if block:
        yield torch.tensor(block)


def _block(index_B: Tensor, seen_B: Tensor, ids_BL: Tensor) -> Block:
    alike, answer_of_B = torch.unique(torch.cat([seen_B[:, None], ids_BL], dim=1), dim=0, return_inverse=True)
    # Whichever of those that are alike is written last stands for them.
    asked_A = index_B.new_zeros(len(alike)).scatter_(0, answer_of_B, index_B)
    image_I, image_of_A = torch.unique(alike[:, 0], return_inverse=True)
    return Block(index_B, asked_A, answer_of_B, image_I, image_of_A)
