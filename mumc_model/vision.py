"""The image encoder: timm's ViT blocks on a linear or convolutional stem, reading only the patches it is told to keep.

Dimensions: B images, C channels, H height, W width in pixels, N patches of a whole image, K kept patches, M dropped
patches, D width, P values in a patch.
"""

from functools import partial
from typing import Any

import torch
from timm.layers.hybrid_embed import HybridEmbed
from timm.layers.norm_act import GroupNormAct
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import Block as Block
from timm.models.vision_transformer_hybrid import ConvStem
from torch import Tensor, nn
from torch.nn import functional as F

from mumc_model.config import STEM_GROUP, VisionConfig
from mumc_model.errors import ConfigError
from mumc_model.kernels import RunPart, eagerly

_layer_norm: Any = partial(nn.LayerNorm, eps=1e-6)


def sincos_pos_embed(width: int, side: int) -> Tensor:
    """Fixed position table [1 + side^2, width]; row 0, of [CLS], is zero. Source: MAE, arXiv 2111.06377, appendix A."""
    frequency = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angle = torch.arange(side, dtype=torch.float64)[:, None] * frequency
    axis = torch.cat([angle.sin(), angle.cos()], dim=1)
    across, down = axis.repeat(side, 1), axis.repeat_interleave(side, 0)
    return F.pad(torch.cat([across, down], dim=1), (0, 0, 1, 0)).float()


def resize_pos_embed(pos_embed_1ND: Tensor, patches: int) -> Tensor:
    """Position embedding [1, 1 + patches, D] for another square grid, bicubic; [CLS] keeps its own."""
    old, new = round((pos_embed_1ND.shape[1] - 1) ** 0.5), round(patches**0.5)
    if old == new:
        return pos_embed_1ND
    grid_1DHW = pos_embed_1ND[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid_1DHW = F.interpolate(grid_1DHW, size=(new, new), mode="bicubic", align_corners=False)
    return torch.cat([pos_embed_1ND[:, :1], grid_1DHW.flatten(2).transpose(1, 2)], dim=1)


def stem_channels(config: VisionConfig) -> tuple[int, ...]:
    """Channels after each convolution of a `conv` stem, of which each halves the image's side."""
    halvings = config.patch_size.bit_length() - 1
    return (*(min(config.width, config.stem_width << step) for step in range(halvings - 1)), config.width)


def _patch_embed(config: VisionConfig) -> nn.Module:
    if config.stem == "linear":
        return PatchEmbed(config.image_size, config.patch_size, embed_dim=config.width, strict_img_size=False)
    channels = stem_channels(config)
    norm: Any = partial(GroupNormAct, group_size=STEM_GROUP)
    strides = (2,) * len(channels)
    stem = ConvStem(3, len(channels), channels, stride=strides, norm_layer=norm, act_layer=nn.GELU)
    return HybridEmbed(stem, config.image_size, embed_dim=config.width, proj=False, strict_img_size=False)


class VisionEncoder(nn.Module):
    """ViT whose parameter names are timm's: `cls_token`, `pos_embed`, `patch_embed`, `blocks`, `norm`."""

    def __init__(self, config: VisionConfig) -> None:
        """Build it with torch's own initialisation; see `mumc_model.model.build_model`."""
        super().__init__()
        self.config = config
        self.run_part: RunPart = eagerly
        self.patch_embed = _patch_embed(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        table_1ND = sincos_pos_embed(config.width, round(config.patches**0.5))[None]
        self.pos_embed = nn.Parameter(table_1ND, requires_grad=config.pos_embed == "learned")
        self.blocks = nn.Sequential(*_blocks(config.width, config.heads, config.depth, config.mlp_ratio))
        self.norm = _layer_norm(config.width)

    def forward(self, image_BCHW: Tensor, keep_BK: Tensor | None = None) -> Tensor:
        """Tokens B(1+K)D of the kept patches in the order given, [CLS] first; of all patches without `keep_BK`.

        Raises:
            ConfigError: the image is not of the size that the encoder was built for.
        """
        side = self.config.image_size
        if image_BCHW.shape[-2:] != (side, side):
            height, width = image_BCHW.shape[-2:]
            raise ConfigError(
                f"the image is {height} x {width} pixels, but this encoder reads {side} x {side}; resize the image, or "
                "build the encoder with that vision.image_size and carry the weights over with resize_pos_embed"
            )
        given = (image_BCHW,) if keep_BK is None else (image_BCHW, keep_BK)
        return self.run_part([self], self._tokens, *given)

    def _tokens(self, image_BCHW: Tensor, keep_BK: Tensor | None = None) -> Tensor:
        if self.config.stem == "conv":
            # Narrow convolutions, their norms and their gradients are a third faster in this layout.
            image_BCHW = image_BCHW.contiguous(memory_format=torch.channels_last)
        patch_BND = self.patch_embed(image_BCHW) + self.pos_embed[:, 1:]
        if keep_BK is not None:
            patch_BND = patch_BND.gather(1, keep_BK[:, :, None].expand(-1, -1, patch_BND.shape[2]))
        cls_B1D = (self.cls_token + self.pos_embed[:, :1]).expand(len(patch_BND), -1, -1)
        token_BKD: Tensor = self.norm(self.blocks(torch.cat([cls_B1D, patch_BND], dim=1)))
        return token_BKD


def _blocks(width: int, heads: int, depth: int, mlp_ratio: float) -> list[Block]:
    return [Block(width, heads, mlp_ratio, qkv_bias=True, norm_layer=_layer_norm) for _ in range(depth)]


def patchify(image_BCHW: Tensor, patch_size: int) -> Tensor:
    """Pixels of each patch in reading order, BNP with P = patch_size^2 * C."""
    blocks = image_BCHW.unfold(2, patch_size, patch_size).unfold(3, patch_size, patch_size)
    return blocks.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


def blank_patches(image_BCHW: Tensor, drop_BM: Tensor, patch_size: int) -> Tensor:
    """The images with the dropped patches at 0, so that overlapping convolutions cannot see what they must paint."""
    side = image_BCHW.shape[-1] // patch_size
    seen_BN = image_BCHW.new_ones(len(image_BCHW), side * side).scatter_(1, drop_BM, 0.0)
    seen_B1HW = seen_BN.view(-1, 1, side, side).repeat_interleave(patch_size, 2).repeat_interleave(patch_size, 3)
    return image_BCHW * seen_B1HW


def mim_width(config: VisionConfig) -> int:
    """Width of the painting decoder: half the encoder's, in heads of 32."""
    return max(32, config.width // 2 // 32 * 32)


class MimDecoder(nn.Module):
    """A light decoder that paints the dropped patches from the kept ones. It stays at the site."""

    def __init__(self, config: VisionConfig, depth: int) -> None:
        """Half the encoder's width, `depth` blocks, a fixed position table."""
        super().__init__()
        width = mim_width(config)
        self.patches = config.patches
        self.embed = nn.Linear(config.width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.Sequential(*_blocks(width, width // 16 if width < 128 else width // 32, depth, 4.0))
        self.norm = _layer_norm(width)
        self.paint = nn.Linear(width, config.patch_size**2 * 3)
        table_1ND = sincos_pos_embed(width, round(config.patches**0.5))[None]
        self.register_buffer("pos_embed", table_1ND, persistent=False)
        self.pos_embed: Tensor

    def forward(self, token_BKD: Tensor, keep_BK: Tensor, drop_BM: Tensor) -> Tensor:
        """Normalised pixels BMP of the dropped patches, from the encoder's tokens ([CLS], then the kept patches)."""
        place_BK = F.pad(keep_BK + 1, (1, 0))
        seen_BKD = self.embed(token_BKD) + self.pos_embed[0][place_BK]
        blank_BMD = self.mask_token + self.pos_embed[0][drop_BM + 1]
        decoded = self.blocks(torch.cat([seen_BKD, blank_BMD.to(seen_BKD.dtype)], dim=1))
        pixel_BMP: Tensor = self.paint(self.norm(decoded[:, -drop_BM.shape[1] :]))
        return pixel_BMP
