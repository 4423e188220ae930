"""From bytes to what the image encoder takes: normalised, and in training seen a little differently each time.

Dimensions: B images, C channels as stored (1 or 3), S side in pixels.
"""

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""Channel statistics that MUMC normalises with (those of CLIP's training images)."""

MIRRORED = {"left": "right", "leftward": "rightward", "lul": "rul", "lll": "rll", "lt": "rt"}
MIRRORED |= {right: left for left, right in MIRRORED.items()}
UNMIRRORED = ("rml", "lingula", "lingular", "dextrocardia", "levocardia", "situs")
"""Words that fix a side and have no word for the other one."""
_SIDE = re.compile(rf"\b({'|'.join(MIRRORED)})\b", re.IGNORECASE)
_FIXED = re.compile(rf"\b({'|'.join(UNMIRRORED)})\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How differently an image may be seen. No left-right flip: that changes what the text must say."""

    crop_scale: float = 0.6
    """Smallest share of the area that a crop keeps; 1 does not crop."""
    crop_aspect: float = 4 / 3
    """Largest ratio of a crop's sides."""
    rotation_degrees: float = 8.0
    brightness: float = 0.1
    """Largest shift, as a share of the full range."""
    contrast: float = 0.1
    """Largest relative change of the distance to the image's mean."""


def normalise(image_BCSS: Tensor) -> Tensor:
    """Float images B3SS with MUMC's channel statistics, from bytes; grey is repeated over the three channels."""
    scale_C, shift_C = _affine(image_BCSS.device)
    return image_BCSS.float().mul(scale_C).add_(shift_C)


def augment(image_BCSS: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Float images B3SS, each cropped, turned, brightened and stretched at random, normalised.

    The draws come from the CPU generator whatever the device, so that a seed means the same everywhere.
    """
    return augment_by(image_BCSS, settings, draw_views(len(image_BCSS), generator))


def draw_views(images: int, generator: torch.Generator) -> Tensor:
    """Seven numbers in [0, 1) an image, B7, that say how it is seen."""
    return torch.rand(images, 7, generator=generator)


def augment_by(image_BCSS: Tensor, settings: Augmentation, u_B7: Tensor) -> Tensor:
    """Float images B3SS as the numbers of `draw_views` say. One bilinear resampling does crop and rotation together."""
    u_B7 = u_B7.to(image_BCSS.device)
    grid_BSS2 = _grid(_views(u_B7[:, :5], settings), image_BCSS.shape[-1])
    view_BCSS = F.grid_sample(image_BCSS.float(), grid_BSS2, padding_mode="border", align_corners=False)
    mean_B111 = view_BCSS.mean((1, 2, 3), keepdim=True)
    gain_B111, offset_B111 = (
        1 + settings.contrast * (2 * u_B7[:, 5, None, None, None] - 1),
        255 * settings.brightness * (2 * u_B7[:, 6, None, None, None] - 1),
    )
    view_BCSS = view_BCSS.mul_(gain_B111).add_(mean_B111 * (1 - gain_B111) + offset_B111).clamp_(0, 255)
    return normalise(view_BCSS)


def mirror_text(text: str) -> str | None:
    """The sentence with left and right swapped; None where it names a side that has no counterpart."""
    if _FIXED.search(text):
        return None
    return _SIDE.sub(lambda match: _like(MIRRORED[match[0].lower()], match[0]), text)


def _views(u_B5: Tensor, settings: Augmentation) -> Tensor:
    """Affine matrices B23 from output to input coordinates in [-1, 1]: crop, and rotation about its centre."""
    area_B = settings.crop_scale + (1 - settings.crop_scale) * u_B5[:, 0]
    spread = math.log(settings.crop_aspect) if settings.crop_scale < 1 else 0.0
    aspect_B = torch.exp(spread * (2 * u_B5[:, 1] - 1))
    width_B, height_B = (area_B * aspect_B).sqrt().clamp(max=1), (area_B / aspect_B).sqrt().clamp(max=1)
    x_B, y_B = (1 - width_B) * (2 * u_B5[:, 2] - 1), (1 - height_B) * (2 * u_B5[:, 3] - 1)
    angle_B = math.radians(settings.rotation_degrees) * (2 * u_B5[:, 4] - 1)
    cos_B, sin_B = angle_B.cos(), angle_B.sin()
    rows = (width_B * cos_B, -height_B * sin_B, x_B, width_B * sin_B, height_B * cos_B, y_B)
    return torch.stack(rows, 1).view(-1, 2, 3)


def _grid(matrix_B23: Tensor, side: int) -> Tensor:
    """Where each output pixel is read, BSS2: `affine_grid` for square images, in a quarter of its time."""
    centre_S = (torch.arange(side, device=matrix_B23.device) + 0.5) * (2 / side) - 1
    across_B2S = matrix_B23[:, :, 0, None] * centre_S
    down_B2S = matrix_B23[:, :, 1, None] * centre_S + matrix_B23[:, :, 2, None]
    grid_BSS2 = matrix_B23.new_empty(len(matrix_B23), side, side, 2)
    for axis in range(2):
        torch.add(across_B2S[:, axis, None, :], down_B2S[:, axis, :, None], out=grid_BSS2[..., axis])
    return grid_BSS2


def _affine(device: torch.device) -> tuple[Tensor, Tensor]:
    mean_C, deviation_C = (torch.tensor(values, device=device).view(3, 1, 1) for values in (MEAN, DEVIATION))
    return 1 / (255 * deviation_C), -mean_C / deviation_C


def _like(word: str, model: str) -> str:
    if model.isupper():
        return word.upper()
    return word.capitalize() if model[0].isupper() else word
