"""The public bank: image-text pairs that stand in for other patients wherever MUMC's losses contrast records.

A private record that is also in the bank is left out of the private ones; what the bank holds never depends on a site.
Images decide what is the same: the bank's patients are read by nobody, and phantoms count theirs as hospitals do.

Dimensions: N pairs of the bank, R private records, S image tokens, L tokens, D width, E embedding.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from client.privacy.errors import PolicyError
from mumc_model.config import Recipe
from mumc_model.data.collate import CaptionDataset, PretrainBatch
from mumc_model.data.phantom import PhantomConfig, write_hospitals
from mumc_model.data.records import read_site
from mumc_model.data.tokenizer import Tokenizer
from mumc_model.errors import ConfigError
from mumc_model.model import MumcModel
from mumc_model.privacy import BankConfig

_ENCODED_AT_ONCE = 32


@dataclass(frozen=True)
class Encoded:
    """The bank as weights that are private already see it: what follows from them costs nothing more."""

    token_NSD: Tensor
    image_NE: Tensor
    state_NLD: Tensor
    """After the text layers."""
    text_NE: Tensor
    mask_NL: Tensor
    caption_id_N: Tensor


class Bank:
    """The pairs, seen whole and unaugmented, and the digest that names them."""

    def __init__(self, records: CaptionDataset, row_N: Tensor, device: torch.device) -> None:
        """The pairs are these rows of public records; their images stay on the disk until they are encoded."""
        self._records, self._row_N, self._device = records, row_N, device
        digests = _image_digests(records, row_N)
        self._image_digests = frozenset(digests)
        self.digest = _digest(digests, [records.captions[row] for row in row_N.tolist()])
        """SHA-256, in hex, over images and captions."""

    def __len__(self) -> int:
        """Pairs."""
        return len(self._row_N)

    def pairs(self, index_B: Tensor) -> PretrainBatch:
        """These pairs, on the device."""
        return self._records.pairs(self._row_N[index_B], None).to(self._device)

    @torch.no_grad()
    def encode(self, model: MumcModel) -> Encoded:
        """All pairs through the model, without dropout."""
        was_training = model.training
        model.eval()
        parts = [self._encode(model, index_B) for index_B in torch.arange(len(self)).split(_ENCODED_AT_ONCE)]
        model.train(was_training)
        return Encoded(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _encode(self, model: MumcModel, index_B: Tensor) -> tuple[Tensor, ...]:
        pairs = self.pairs(index_B)
        token_BSD, image_BE = model.image_features(pairs.image_BCHW)
        state_BLD, text_BE = model.text_features(pairs.ids_BL, pairs.mask_BL)
        return token_BSD, image_BE, state_BLD, text_BE, pairs.mask_BL, pairs.caption_id_B

    def new_rows(self, records: CaptionDataset) -> Tensor:
        """The private rows R whose image is not in the bank, decided for each record by itself."""
        rows = torch.arange(len(records.captions))
        known = [digest in self._image_digests for digest in _image_digests(records, rows)]
        return rows[~torch.tensor(known, dtype=torch.bool)]


def open_bank(
    settings: BankConfig, recipe: Recipe, tokenizer: Tokenizer, state: Path, own: str, device: torch.device
) -> Bank:
    """The bank that the run names: phantoms, made once in the folder `state`, or the site folder `own`.

    Raises:
        ConfigError: the bank has too few pairs, or the site names none.
        PolicyError: the pairs are not those that the run pins.
    """
    folder = _phantoms(settings, recipe, state) if settings.source == "phantom" else _own(own)
    size, tokens = recipe.model.vision.image_size, recipe.pretrain.caption_tokens
    records = CaptionDataset(read_site(folder), tokenizer, size, tokens, 1.0)
    row_N = _one_an_image(records)[: settings.size]
    if len(row_N) < settings.size:
        raise ConfigError(
            f"the public bank has {len(row_N)} images with captions, but privacy.bank.size is {settings.size}; add "
            "public pairs or ask for fewer"
        )
    bank = Bank(records, row_N, device)
    if settings.digest and settings.digest != bank.digest:
        raise PolicyError(
            f"the bank at this site has the digest {bank.digest[:16]}..., but the run pins {settings.digest[:16]}...; "
            "put the same public pairs here, or have the run name these"
        )
    return bank


def _phantoms(settings: BankConfig, recipe: Recipe, state: Path) -> Path:
    """A synthetic hospital that sees everything alike, at the model's own image size."""
    side = recipe.model.vision.image_size
    config = PhantomConfig(
        hospitals=1,
        images=settings.size,
        captions_per_image=1,
        images_per_patient=1,
        train_questions=0,
        val_questions=0,
        test_questions=0,
        image_size=side,
        unlike=0.0,
    )
    # Another stream than any simulated hospital's, so that the bank does not repeat their patients.
    (folder,) = write_hospitals(
        config, state / f"bank-{settings.size}-{settings.seed}-{side}", 0x6D756D63 + settings.seed
    )
    return folder


def _own(path: str) -> Path:
    if not path:
        raise ConfigError(
            "the run contrasts with a bank at the site, but this site's site.yaml names none; set bank to the path of "
            "a site folder of public pairs"
        )
    return Path(path)


def _one_an_image(records: CaptionDataset) -> Tensor:
    first = {key: row for row, key in reversed(list(enumerate(records.keys)))}
    return torch.tensor(sorted(first.values()), dtype=torch.int64)


def _image_digests(records: CaptionDataset, row_R: Tensor) -> list[bytes]:
    """SHA-256 of each image at the training size, grey or in colour the same."""
    digests = []
    for row in row_R.split(256):
        pixels_BCHW = records.pixels(row).expand(-1, 3, -1, -1).contiguous().numpy()
        digests += [hashlib.sha256(image.tobytes()).digest() for image in pixels_BCHW]
    return digests


def _digest(images: list[bytes], captions: list[str]) -> str:
    sha = hashlib.sha256()
    for image, caption in zip(images, captions, strict=True):
        sha.update(image + hashlib.sha256(caption.encode()).digest())
    return sha.hexdigest()
