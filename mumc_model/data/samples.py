"""Questions about images, as a site's fine-tuning and evaluation read them.

Dimensions: N questions, I images, B questions of a batch, C channels, H height, W width in pixels, L tokens.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mumc_model.data.pixels import Pixels, Progress
from mumc_model.data.records import SiteData
from mumc_model.data.shuffling import seeded, shuffled
from mumc_model.data.tokenizer import Tokenizer
from mumc_model.data.transforms import Augmentation, augment, normalise
from mumc_model.errors import DataError

_FEW = 3
"""Keeps the draw of few questions apart from those of batches."""


@dataclass(frozen=True)
class VqaBatch:
    """Questions and their images."""

    image_BCHW: Tensor
    """Normalised floats."""
    ids_BL: Tensor
    mask_BL: Tensor
    index_B: Tensor
    """Row of each question in its `VqaSamples`, which holds the answers."""

    def __len__(self) -> int:
        """Questions in the batch."""
        return len(self.index_B)

    def to(self, device: torch.device | str) -> "VqaBatch":
        """The same batch on a device."""
        return replace(self, **{name: tensor.to(device, non_blocking=True) for name, tensor in vars(self).items()})


class VqaSamples:
    """One split's questions; several may look at one image, which is held once."""

    def __init__(
        self,
        site: SiteData,
        split: str,
        tokenizer: Tokenizer,
        image_size: int,
        question_tokens: int,
        *,
        on_progress: Progress | None = None,
    ) -> None:
        """Decode and tokenise once. A split without questions is empty, not an error.

        Raises:
            DataError: an image that was readable no longer is.
        """
        records = [record for record in site.vqa if record.split == split]
        self.questions = tuple(record.question for record in records)
        self.answers = tuple(record.answer for record in records)
        self.answer_types = tuple(record.answer_type for record in records)
        self.question_types = tuple(record.question_type for record in records)
        self.patient_ids = tuple(record.patient_id for record in records)
        self.labels = tuple(record.labels for record in records)
        self.image_keys = tuple(map(site.key, records))
        """Key of each question's image, the same on every machine."""
        self.unique_image_keys = tuple(dict.fromkeys(self.image_keys))
        place = {key: index for index, key in enumerate(self.unique_image_keys)}
        self.image_of_N = torch.tensor([place[key] for key in self.image_keys], dtype=torch.int64)
        """Place of each question's image among the unique ones."""
        self._pixels = Pixels(site.root, site.image_keys, image_size, on_progress)
        self._row_I = self._pixels.rows(self.unique_image_keys)
        self.ids_NL, self.mask_NL = tokenizer.questions(self.questions, question_tokens)

    def __len__(self) -> int:
        """Questions."""
        return len(self.questions)

    def few(self, count: int, seed: int) -> "VqaSamples":
        """So many of the questions, in their order; all where there are no more.

        Images are drawn with all their questions, and the last one gives as many as are missing. By one seed a larger
        number holds the questions of a smaller one.
        """
        place_I = torch.randperm(len(self.unique_image_keys), generator=seeded(seed, _FEW)).argsort()
        index_B = place_I[self.image_of_N].argsort(stable=True)[:count].sort().values
        chosen, rows = copy.copy(self), index_B.tolist()
        for name in ("questions", "answers", "answer_types", "question_types", "patient_ids", "labels", "image_keys"):
            setattr(chosen, name, tuple(getattr(self, name)[row] for row in rows))
        chosen.ids_NL, chosen.mask_NL = self.ids_NL[index_B], self.mask_NL[index_B]
        image_I, chosen.image_of_N = self.image_of_N[index_B].unique(return_inverse=True)
        chosen.unique_image_keys = tuple(self.unique_image_keys[image] for image in image_I.tolist())
        chosen._row_I = self._row_I[image_I]
        return chosen

    def batches(
        self, batch_size: int, seed: int, start_step: int = 0, augmentation: Augmentation | None = None
    ) -> Iterator[VqaBatch]:
        """Batches for training without end, dealt anew every epoch; a step's batch depends on seed and number alone.

        Raises:
            DataError: there is no question.
        """
        if not len(self):
            raise DataError("this split has no questions to train on; import some, or train at another site")
        for step, index_B in shuffled(len(self), min(batch_size, len(self)), seed, start_step):
            yield self._batch(index_B, augmentation, seeded(seed, 1, step))

    def ordered(self, batch_size: int) -> Iterator[VqaBatch]:
        """All questions once, in order, as they are."""
        for first in range(0, len(self), batch_size):
            yield self._batch(torch.arange(first, min(first + batch_size, len(self))), None, None)

    def images(self, image_I: Tensor) -> Tensor:
        """Normalised images ICHW by place among the unique ones."""
        return normalise(self._pixels.gather(self._row_I[image_I]))

    def image_batches(self, batch_size: int) -> Iterator[Tensor]:
        """All unique images once, in order, ICHW: for encoding each image a single time (`image_of_N` leads back)."""
        count = len(self.unique_image_keys)
        for first in range(0, count, batch_size):
            yield self.images(torch.arange(first, min(first + batch_size, count)))

    def text(self, index_B: Tensor) -> tuple[Tensor, Tensor]:
        """Question ids BL and mask BL, as wide as the longest of them."""
        mask_BL = self.mask_NL[index_B]
        longest = int(mask_BL.sum(1).max()) if len(index_B) else 0
        return self.ids_NL[index_B, :longest], mask_BL[:, :longest]

    def seen(self, index_B: Tensor, augmentation: Augmentation | None, generator: torch.Generator | None) -> Tensor:
        """The questions' images BCHW, normalised; augmented where there is something to augment by."""
        pixels_BCHW = self._pixels.gather(self._row_I[self.image_of_N[index_B]])
        if augmentation and generator:
            return augment(pixels_BCHW, augmentation, generator)
        return normalise(pixels_BCHW)

    def _batch(self, index_B: Tensor, augmentation: Augmentation | None, generator: torch.Generator | None) -> VqaBatch:
        ids_BL, mask_BL = self.text(index_B)
        image_BCHW = self.seen(index_B, augmentation, generator)
        return VqaBatch(image_BCHW=image_BCHW, ids_BL=ids_BL, mask_BL=mask_BL, index_B=index_B)
