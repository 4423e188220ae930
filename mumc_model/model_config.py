"""The shapes of the model: its two encoders, and where they start.

Frozen, keyword-only and checked once, here. No torch: the server, the planner and `--help` read these too.
"""

from dataclasses import dataclass
from typing import Literal

from mumc_model.config_checks import require, require_at_least, require_share

STEM_GROUP = 8
"""Channels that a convolutional stem normalises together."""


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The image encoder, a ViT."""

    image_size: int
    """Side of the square input in pixels."""
    patch_size: int
    """Side of a patch in pixels; the image side is a multiple of it."""
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    stem: Literal["linear", "conv"] = "linear"
    """`linear` is ViT's patch embedding; `conv` (3x3 of stride 2, GroupNorm) learns far faster from little data."""
    stem_width: int = 32
    """Channels of a convolutional stem's first layer; they double from layer to layer up to `width`."""
    pos_embed: Literal["sincos", "learned"] = "sincos"
    """`sincos` is fixed in pre-training, as in the paper; `learned` is trained."""

    def __post_init__(self) -> None:
        """Refuse shapes that cannot be or do not divide."""
        require_at_least(1, "model.vision", self, "image_size", "patch_size", "width", "depth", "heads", "mlp_ratio")
        require(
            self.image_size % self.patch_size == 0,
            f"model.vision.image_size {self.image_size} is not a multiple of vision.patch_size {self.patch_size}",
        )
        require(
            self.width % self.heads == 0, f"model.vision.width {self.width} is not a multiple of {self.heads} heads"
        )
        require(
            self.pos_embed == "learned" or self.width % 4 == 0,
            f"model.vision.pos_embed=sincos needs a width that is a multiple of 4, not {self.width}",
        )
        if self.stem == "conv":
            self._check_stem()

    def _check_stem(self) -> None:
        require(
            self.patch_size > 1 and self.patch_size & (self.patch_size - 1) == 0,
            "model.vision.stem=conv halves the image at each step; "
            f"patch_size {self.patch_size} must be a power of two",
        )
        for name in ("stem_width", "width"):
            channels = getattr(self, name)
            require(
                channels > 0 and channels % STEM_GROUP == 0,
                f"model.vision.stem=conv normalises channels by groups of {STEM_GROUP}, so "
                f"model.vision.{name} {channels} must be a multiple of {STEM_GROUP}",
            )

    @property
    def patches(self) -> int:
        """Number of patches of a whole image."""
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """BERT: the first `text_layers` read text, the next `fusion_layers` cross-attend to the image."""

    width: int
    text_layers: int
    fusion_layers: int
    heads: int
    vocab_size: int = 0
    """Number of tokens; 0 takes the size of the run's vocabulary."""
    max_positions: int = 512
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Refuse shapes that cannot be or do not divide."""
        require_at_least(1, "model.text", self, "width", "heads")
        require_at_least(3, "model.text", self, "max_positions")
        require_at_least(0, "model.text", self, "text_layers", "fusion_layers", "vocab_size")
        require(self.width % self.heads == 0, f"model.text.width {self.width} is not a multiple of {self.heads} heads")
        require_share("model.text.dropout", self.dropout)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """MUMC: two encoders, two projections into one space, a matching head."""

    vision: VisionConfig
    text: TextConfig
    projection: int = 256
    """Width of the shared embedding space."""
    queue_size: int = 0
    """Teacher features kept as extra negatives; 0 keeps none."""
    temperature: float = 0.07
    """Start of the learned temperature, clamped to [0.001, 0.5]."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be; a decoder may go without text layers, an encoder may not."""
        require_at_least(1, "model.text", self.text, "text_layers")
        require_at_least(1, "model", self, "projection")
        require_at_least(0, "model", self, "queue_size")
        require(
            0.001 <= self.temperature <= 0.5, f"model.temperature is {self.temperature}; choose it from 0.001 to 0.5"
        )


@dataclass(frozen=True, kw_only=True)
class InitConfig:
    """Where the encoders start. Empty: at random."""

    vision: str = ""
    """A timm model name, or a local folder or `.safetensors` file."""
    text: str = ""
    """A Hugging Face model name, or a local folder or `.safetensors` file."""
