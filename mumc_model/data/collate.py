"""Batches of captioned images for pre-training.

Dimensions: B pairs, N captions, I images, C channels, H height, W width in pixels, L tokens.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mumc_model.data.pixels import Pixels, Progress
from mumc_model.data.records import SiteData
from mumc_model.data.samples import VqaBatch, VqaSamples
from mumc_model.data.shuffling import seeded, shuffled
from mumc_model.data.tokenizer import Tokenizer
from mumc_model.data.transforms import Augmentation, augment, augment_by, draw_views, mirror_text, normalise
from mumc_model.errors import DataError

__all__ = ["CaptionDataset", "PretrainBatch", "RowsOf", "VqaBatch", "VqaSamples"]

RowsOf = Callable[[int], Tensor]
"""Which rows of a batch of that many pairs are wanted."""


@dataclass(frozen=True)
class PretrainBatch:
    """Images and one caption of each; where several processes share a batch, each has all captions and some images."""

    image_BCHW: Tensor
    """Normalised floats."""
    ids_BL: Tensor
    mask_BL: Tensor
    """1 where there is a token, 0 where there is padding."""
    caption_id_B: Tensor
    """Captions that read the same have the same number."""

    def __len__(self) -> int:
        """Pairs in the batch."""
        return len(self.caption_id_B)

    def to(self, device: torch.device | str) -> "PretrainBatch":
        """The same batch on a device."""
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in vars(self).items()}
        return replace(self, **moved)


class CaptionDataset:
    """A site's captioned images, held as bytes at the training size and as token ids."""

    def __init__(
        self,
        site: SiteData,
        tokenizer: Tokenizer,
        image_size: int,
        caption_tokens: int,
        crop_scale: float,
        *,
        flip_with_text: bool = False,
        device: torch.device | str = "cpu",
        on_progress: Progress | None = None,
    ) -> None:
        """Decode and tokenise once; batches are augmented on `device`.

        `flip_with_text` mirrors half of the images and says left for right in their captions, never one alone.

        Raises:
            DataError: fewer than two images have captions.
        """
        records = sorted(site.captions, key=site.key)
        self.tokenizer = tokenizer
        self.image_keys = tuple(dict.fromkeys(map(site.key, records)))
        if len(self.image_keys) < 2:
            raise DataError(
                f"pre-training contrasts images, and this site has {len(self.image_keys)} with a caption; "
                "import captions for at least 2"
            )
        self._pixels = Pixels(site.root, site.image_keys, image_size, on_progress)
        self._row_I, self._row_N = self._pixels.rows(self.image_keys), self._pixels.rows(map(site.key, records))
        self.captions = tuple(record.caption for record in records)
        self.patient_ids = tuple(record.patient_id for record in records)
        self.keys = tuple(map(site.key, records))
        """Caption, patient and image of each row that `pairs` takes."""
        texts = list(self.captions)
        self._captions = _Captions(tokenizer, texts, caption_tokens)
        mirrored = [mirror_text(text) for text in texts] if flip_with_text else [None] * len(texts)
        self._may_flip_N = torch.tensor([text is not None for text in mirrored])
        self._mirrored = _Captions(tokenizer, [text or "" for text in mirrored], caption_tokens)
        counts = dict.fromkeys(self.image_keys, 0)
        for record in records:
            counts[site.key(record)] += 1
        self._count_I = torch.tensor(list(counts.values()))
        self._first_I = self._count_I.cumsum(0) - self._count_I
        self._augmentation = Augmentation(crop_scale=crop_scale)
        self._device = torch.device(device)

    def __len__(self) -> int:
        """Images with captions."""
        return len(self.image_keys)

    def batches(
        self, batch_size: int, seed: int, start_step: int = 0, images: RowsOf | None = None
    ) -> Iterator[PretrainBatch]:
        """Batches without end, from step `start_step` on. With `images` only those rows' images are made.

        Every epoch deals all images anew; an image is in a batch at most once, with one of its captions. A step's batch
        depends on the seed and its number alone. A site with fewer images than `batch_size` gives smaller batches.
        """
        size = min(batch_size, len(self))
        for step, image_B in shuffled(len(self), size, seed, start_step):
            yield self._batch(image_B, seeded(seed, 1, step), images(len(image_B)) if images else slice(None))

    def pairs(self, row_B: Tensor, generator: torch.Generator | None) -> PretrainBatch:
        """These captions with their images, augmented if there is a generator; all as wide as a caption may be.

        Nothing of a row depends on the others.
        """
        ids_BL, caption_id_B = self._captions.rows(row_B)
        pixels_BCHW = self._pixels.gather(self._row_N[row_B]).to(self._device)
        return PretrainBatch(
            image_BCHW=augment(pixels_BCHW, self._augmentation, generator) if generator else normalise(pixels_BCHW),
            ids_BL=ids_BL.to(self._device),
            mask_BL=(ids_BL != self._captions.padding).long().to(self._device),
            caption_id_B=caption_id_B.to(self._device),
        )

    def pixels(self, row_B: Tensor) -> Tensor:
        """The images of these captions as bytes BCHW."""
        return self._pixels.gather(self._row_N[row_B])

    def _batch(self, image_B: Tensor, generator: torch.Generator, seen: Tensor | slice) -> PretrainBatch:
        u_B2 = torch.rand(len(image_B), 2, generator=generator)
        row_B = self._first_I[image_B] + (u_B2[:, 0] * self._count_I[image_B]).long()
        flip_B = self._may_flip_N[row_B] & (u_B2[:, 1] < 0.5)
        ids_BL, caption_id_B = self._captions.rows(row_B)
        if flip_B.any():
            ids_BL, caption_id_B = _swap(flip_B, (ids_BL, caption_id_B), self._mirrored.rows(row_B))
        u_B7 = draw_views(len(image_B), generator)[seen]
        pixels_BCHW, flip_B = self._pixels.gather(self._row_I[image_B[seen]]), flip_B[seen]
        pixels_BCHW[flip_B] = pixels_BCHW[flip_B].flip(-1)
        pixels_BCHW = pixels_BCHW.to(self._device)
        mask_BL = (ids_BL != self._captions.padding).long()
        longest = int(mask_BL.sum(1).max())
        return PretrainBatch(
            image_BCHW=augment_by(pixels_BCHW, self._augmentation, u_B7),
            ids_BL=ids_BL[:, :longest].contiguous().to(self._device),
            mask_BL=mask_BL[:, :longest].contiguous().to(self._device),
            caption_id_B=caption_id_B.to(self._device),
        )


class _Captions:
    """Token ids of all captions, as wide as the longest allowed, and a number for each wording."""

    def __init__(self, tokenizer: Tokenizer, texts: list[str], tokens: int) -> None:
        ids_NL, _ = tokenizer.captions(texts, tokens)
        self.padding = tokenizer.pad_id
        self._ids_NL = torch.full((len(texts), tokens), tokenizer.pad_id)
        self._ids_NL[:, : ids_NL.shape[1]] = ids_NL
        self._caption_id_N = torch.tensor([_wording(row) for row in self._ids_NL.numpy()], dtype=torch.int64)

    def rows(self, row_B: Tensor) -> tuple[Tensor, Tensor]:
        return self._ids_NL[row_B], self._caption_id_N[row_B]


def _wording(ids_L: NDArray[np.int64]) -> int:
    digest = hashlib.blake2b(np.ascontiguousarray(ids_L, dtype="<i8").tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _swap(flip_B: Tensor, plain: tuple[Tensor, Tensor], mirrored: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    ids_BL = torch.where(flip_B[:, None], mirrored[0], plain[0])
    return ids_BL, torch.where(flip_B, mirrored[1], plain[1])
