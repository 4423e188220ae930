"""Retrieval between images and captions: what pre-trained encoders know before anything is fine-tuned.

Dimensions: I images, C captions, E embedding.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mumc_model.data.pixels import Pixels
from mumc_model.data.records import SiteData
from mumc_model.data.tokenizer import Tokenizer
from mumc_model.data.transforms import normalise
from mumc_model.device import autocast
from mumc_model.errors import DataError
from mumc_model.model import MumcModel
from mumc_model.statistics import bootstrap_mean

CUTOFFS = (1, 5, 10)
_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """For each query whether a right one is among the first k, by k."""

    captions: dict[int, list[bool]]
    """A query is an image, and the right captions are its own and those that read the same."""
    images: dict[int, list[bool]]
    """A query is a distinct caption, and the right images are those that have it."""

    def describe(self, rng: np.random.Generator) -> str:
        """The share of queries with a right one among the first k, both ways, with intervals over queries."""
        lines = []
        for name, by_k in (("image to caption", self.captions), ("caption to image", self.images)):
            n = len(by_k[CUTOFFS[0]])
            intervals = {k: bootstrap_mean(found, range(n), rng) for k, found in by_k.items()}
            shares = ", ".join(
                f"R@{k} {100 * found.mean:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"
                for k, found in intervals.items()
            )
            lines.append(f"{name}: {shares}; n = {n} queries")
        return "\n".join(lines)


@torch.no_grad()
def retrieve(
    model: MumcModel,
    site: SiteData,
    tokenizer: Tokenizer,
    *,
    device: torch.device,
    precision: str = "fp32",
    caption_tokens: int = 25,
) -> Retrieval:
    """Retrieval both ways over all captioned images of the site, by the contrastive features.

    Raises:
        DataError: the site has no captions.
    """
    if not site.captions:
        raise DataError("retrieval needs captioned images, and this site has none; import some with mumc-site import")
    keys = sorted({site.key(record) for record in site.captions})
    texts = sorted({record.caption for record in site.captions})
    image_at, text_at = ({name: place for place, name in enumerate(names)} for names in (keys, texts))
    own_IC = torch.zeros(len(keys), len(texts), dtype=torch.bool)
    for record in site.captions:
        own_IC[image_at[site.key(record)], text_at[record.caption]] = True
    model.to(device).eval()
    with autocast(device, precision):
        image_IE = _image_features(model, site, keys, device)
        text_CE = _text_features(model, texts, tokenizer, caption_tokens, device)
    similarity_IC = (image_IE @ text_CE.T).cpu()
    return Retrieval(captions=hits(similarity_IC, own_IC), images=hits(similarity_IC.T, own_IC.T))


def hits(similarity_QC: Tensor, right_QC: Tensor) -> dict[int, list[bool]]:
    """Whether a right candidate is among the k nearest, for each query Q and each cut-off k."""
    best_Q1 = similarity_QC.masked_fill(~right_QC, -torch.inf).max(dim=1, keepdim=True).values
    # Candidates that lie exactly as near as the best right one stand before it: ties are no merit.
    before_Q = ((similarity_QC >= best_Q1) & ~right_QC).sum(1)
    return {k: (before_Q < k).tolist() for k in CUTOFFS}


def _image_features(model: MumcModel, site: SiteData, keys: list[str], device: torch.device) -> Tensor:
    pixels = Pixels(site.root, site.image_keys, model.config.vision.image_size)
    blocks = torch.split(pixels.rows(keys), _BATCH)
    return torch.cat([model.image_features(normalise(pixels.gather(block)).to(device))[1] for block in blocks])


def _text_features(
    model: MumcModel, texts: list[str], tokenizer: Tokenizer, caption_tokens: int, device: torch.device
) -> Tensor:
    ids_CL, mask_CL = tokenizer.captions(texts, caption_tokens)
    blocks = zip(torch.split(ids_CL, _BATCH), torch.split(mask_CL, _BATCH), strict=True)
    return torch.cat([model.text_features(ids.to(device), mask.to(device))[1] for ids, mask in blocks])
