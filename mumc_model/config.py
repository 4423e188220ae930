"""What a MUMC run is made of: the model, its objective, and the two ways of training it.

Frozen, keyword-only and checked once, here. No torch: the server, the planner and `--help` read these too.
"""

from dataclasses import dataclass, field
from typing import Literal

from mumc_model.config_checks import require, require_at_least, require_share
from mumc_model.model_config import STEM_GROUP, InitConfig, ModelConfig, TextConfig, VisionConfig
from mumc_model.privacy import AdapterConfig, PrivacyConfig

__all__ = [
    "STEM_GROUP",
    "FinetuneConfig",
    "InitConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "PretrainConfig",
    "Recipe",
    "TextConfig",
    "VisionConfig",
]


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """The weight of each loss and the constants of MUMC; a loss of weight 0 costs nothing."""

    mcl: float = 1.0
    """Multimodal contrastive: image to text and text to image."""
    ucl: float = 1.0
    """Unimodal contrastive: image to image and text to text."""
    itm: float = 1.0
    """Image-text matching on hard negatives."""
    mlm: float = 1.0
    """Masked language modelling, conditioned on the image."""
    mim: float = 0.0
    """Masked image modelling: the dropped patches' normalised pixels."""
    patch_drop: float = 0.15
    """Share of patches that each view leaves out."""
    mlm_probability: float = 0.15
    """Share of tokens that are predicted."""
    distill: float = 0.4
    """Final weight alpha of the teacher's soft targets; 0 gives hard targets."""
    distill_ramp_steps: int = 0
    """Steps over which alpha rises linearly from 0; 0 starts at its final value."""
    momentum: float = 0.995
    """Share of itself that the EMA teacher keeps at each step."""
    teacher_order: Literal["mumc", "albef"] = "mumc"
    """`mumc` asks the teacher for its features and then moves it towards the student; `albef` moves it first. The
    queue takes the features after the losses have seen it, in both."""
    mask_equal_captions: bool = False
    """Pairs whose captions read the same are not counted as negatives of one another."""
    mim_depth: int = 1
    """Blocks of the light decoder that reconstructs dropped patches."""

    def __post_init__(self) -> None:
        """Refuse weights and shares outside their range."""
        weights = {"mcl": self.mcl, "ucl": self.ucl, "itm": self.itm, "mlm": self.mlm, "mim": self.mim}
        for name, weight in weights.items():
            require(weight >= 0, f"objective.{name} is {weight}; a loss weight is 0 (off) or positive")
        require(any(weights.values()), "every loss of the objective has weight 0; switch at least one on")
        for name in ("patch_drop", "mlm_probability", "distill", "momentum"):
            require_share(f"objective.{name}", getattr(self, name))
        require_at_least(0, "objective", self, "distill_ramp_steps")
        require_at_least(1, "objective", self, "mim_depth")
        require(self.patch_drop < 1, "objective.patch_drop is 1, which leaves no patch to look at; drop fewer")
        require(
            self.mim == 0 or self.patch_drop > 0,
            "objective.mim reconstructs dropped patches, but patch_drop is 0; drop some or set mim to 0",
        )


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with warm-up and one schedule over the whole run."""

    lr: float = 3e-4
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    schedule: Literal["cosine", "exponential", "constant"] = "cosine"
    warmup_steps: int = 0
    """Linear warm-up at the start of the run."""
    rewarm_steps: int = 0
    """Linear warm-up at the start of each later round, when the merged weights are new to the optimiser."""
    final_lr_share: float = 0.0
    """The rate at the end, as a share of `lr` (cosine and exponential)."""
    clip_norm: float = 0.0
    """Largest gradient norm; 0 does not clip."""

    def __post_init__(self) -> None:
        """Refuse rates and counts outside their range."""
        require_at_least(0, "optimizer", self, "weight_decay", "warmup_steps", "rewarm_steps", "clip_norm")
        for name in ("lr", "eps"):
            require(getattr(self, name) > 0, f"optimizer.{name} is {getattr(self, name)}; choose it above 0")
        require(
            all(0 <= beta < 1 for beta in self.betas), f"optimizer.betas are {list(self.betas)}; choose them in [0, 1)"
        )
        require_share("optimizer.final_lr_share", self.final_lr_share)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Local pre-training at a site."""

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    batch_size: int = 32
    """Records in one optimiser step."""
    accumulation: int = 1
    """Micro-batches that make up one optimiser step; contrastive negatives stay within a micro-batch."""
    caption_tokens: int = 25
    """Longest caption in tokens, [CLS] and [SEP] included."""
    crop_scale: float = 0.6
    """Smallest share of the image that a random crop keeps; 1 does not crop."""
    prox_mu: float = 0.0
    """FedProx: weight of the squared distance to the weights the round began with."""
    keep_optimizer: bool = True
    """Keep Adam's moments at the site between rounds."""
    adapters: AdapterConfig = field(default_factory=AdapterConfig)
    """With a rank, low-rank adapters learn in place of a frozen backbone, and what leaves a site is their factors; for
    public weights to start from. A private run has adapters of its own, `privacy.adapters`."""

    def __post_init__(self) -> None:
        """Refuse batches that do not divide."""
        require(self.batch_size >= 2, f"pretrain.batch_size is {self.batch_size}; contrast needs at least 2 records")
        require(
            self.accumulation >= 1 and self.batch_size % self.accumulation == 0,
            f"pretrain.batch_size {self.batch_size} is not a multiple of pretrain.accumulation {self.accumulation}",
        )
        require_at_least(3, "pretrain", self, "caption_tokens")
        require_at_least(0, "pretrain", self, "prox_mu")
        require(0 < self.crop_scale <= 1, f"pretrain.crop_scale is {self.crop_scale}; choose it in (0, 1]")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Fine-tuning for visual question answering at a site."""

    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=2e-5))
    steps: int = 300
    batch_size: int = 8
    image_size: int = 0
    """Side in pixels; 0 keeps the pre-training size. Position embeddings are interpolated."""
    question_tokens: int = 25
    answer_tokens: int = 12
    decoder_layers: int = 0
    """Layers of the answer decoder; 0 takes as many as there are fusion layers."""
    distill: float = 0.4
    """Weight of the momentum teacher's soft targets; 0 trains without a teacher."""
    momentum: float = 0.995
    freeze: Literal["none", "vision", "encoders"] = "none"
    """What keeps the merged weights: nothing, the image encoder, or both encoders."""
    adapters: AdapterConfig = field(default_factory=AdapterConfig)
    """With a rank, low-rank adapters learn in place of the encoders that are not frozen, beside the whole decoder. They
    are folded into the weights at the end, so the model is as any other."""
    examples: int = 0
    """Training questions to learn from, drawn image by image; 0 takes all. All of them say what can be answered."""
    select_every: int = 50
    """Steps between looks at the validation split; the best look is kept."""
    select_on: Literal["val", "test"] = "val"
    """Where the best look is sought. `test` gives too good a test accuracy, and every report of it says so."""

    def __post_init__(self) -> None:
        """Refuse counts and shares outside their range."""
        require_at_least(0, "finetune", self, "steps", "image_size", "decoder_layers", "examples")
        require_at_least(1, "finetune", self, "batch_size", "select_every")
        require_at_least(3, "finetune", self, "question_tokens", "answer_tokens")
        for name in ("distill", "momentum"):
            require_share(f"finetune.{name}", getattr(self, name))
        require(
            not self.adapters.rank or self.freeze != "encoders",
            f"finetune.adapters.rank is {self.adapters.rank} and finetune.freeze=encoders, so nothing is left to "
            "adapt; set freeze to none or vision, or the rank to 0",
        )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a site needs to know to train: plain values only, sent by the server as JSON."""

    model: ModelConfig
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)

    def __post_init__(self) -> None:
        """Refuse a queue under differential privacy: it holds other patients' features."""
        require(
            not (self.privacy.on and self.model.queue_size),
            f"privacy is on and model.queue_size is {self.model.queue_size}; a queue contrasts a patient with earlier "
            "ones, so no epsilon would hold: set model.queue_size=0, the public bank takes its place",
        )
        require(
            not (self.privacy.on and self.pretrain.adapters.rank),
            f"privacy is on and pretrain.adapters.rank is {self.pretrain.adapters.rank}, which a private step does not "
            "know; set it to 0, and privacy.adapters.rank in its place",
        )
        require(
            not (self.privacy.releases_metrics and (self.finetune.adapters.rank or self.finetune.examples)),
            "privacy.finetune.release is metrics, and private fine-tuning knows neither finetune.adapters nor "
            "finetune.examples; set both to 0",
        )
