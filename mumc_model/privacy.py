"""What a run says about differential privacy: the unit, the noise, the public bank. No torch; off by default."""

import math
from dataclasses import dataclass, field
from typing import Literal

from mumc_model.config_checks import require


@dataclass(frozen=True, kw_only=True)
class BankConfig:
    """The public image-text pairs that every private record is contrasted with."""

    source: Literal["phantom", "site"] = "phantom"
    """`phantom` draws synthetic pairs; `site` reads the site folder that `bank` in each site's site.yaml names."""
    size: int = 256
    """Pairs."""
    seed: int = 0
    """Of the phantoms: public, and the same at every site."""
    refresh_steps: int = 25
    """Optimiser steps between two encodings of the bank by the current weights."""
    digest: str = ""
    """SHA-256 of the bank's records, in hex; where it is given, a site with another bank refuses."""

    def __post_init__(self) -> None:
        """Refuse a bank that cannot contrast."""
        require(self.size >= 2, f"privacy.bank.size is {self.size}; contrast needs at least 2 pairs")
        require(self.refresh_steps >= 1, f"privacy.bank.refresh_steps is {self.refresh_steps}; choose 1 or more")


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """Low-rank adapters that learn in place of a frozen backbone, and are folded into it after each round."""

    rank: int = 0
    """Rank of each adapter (LoRA, arXiv 2106.09685); 0 trains the weights themselves."""
    alpha: int = 16
    """Adapters are scaled by alpha / rank."""

    def __post_init__(self) -> None:
        """Refuse ranks that cannot be."""
        require(self.rank >= 0, f"adapters.rank is {self.rank}; choose 0 (none) or more")
        require(self.alpha > 0, f"adapters.alpha is {self.alpha}; choose it above 0")


@dataclass(frozen=True, kw_only=True)
class PrivateFinetuneConfig:
    """Fine-tuning of which something is to leave: noise in its steps, and in the one release of its metrics."""

    release: Literal["nothing", "metrics"] = "nothing"
    """`nothing` fine-tunes plainly at the site, charges nothing and reports nothing; `metrics` charges private steps
    and reports an accuracy with noise."""
    noise_multiplier: float = 1.0
    """Deviation of the noise of a step over the clipping norm."""
    clipping_norm: float = 1.0
    """Largest length of one unit's gradient."""
    expected_batch: int = 64
    """Units a step takes in expectation: public, fixed, and what the noised sum is divided by."""
    physical_batch: int = 16
    """Questions in memory at once; the result does not depend on it."""
    metrics_noise: float = 5.0
    """Deviation of the noise in correctness and count over what one unit can change of both together."""
    answers: tuple[str, ...] = ()
    """Public answers to rank for the metrics. Empty: the decoder writes its answers, since the site's own list of
    answers is private."""

    def __post_init__(self) -> None:
        """Refuse numbers that protect nothing."""
        for name in ("noise_multiplier", "clipping_norm", "metrics_noise"):
            value = getattr(self, name)
            require(0 < value < math.inf, f"privacy.finetune.{name} is {value}; choose a finite number above 0")
        for name in ("expected_batch", "physical_batch"):
            value = getattr(self, name)
            require(value >= 1, f"privacy.finetune.{name} is {value}; choose 1 or more")
        require(
            all(answer.strip() for answer in self.answers) and len(set(self.answers)) == len(self.answers),
            "privacy.finetune.answers has an empty text or the same one twice; list each public answer once",
        )


@dataclass(frozen=True, kw_only=True)
class PrivacyConfig:
    """Differential privacy of a run; the site's own signed policy may only ask for more."""

    unit: Literal["none", "patient", "record"] = "none"
    """What adding or removing must not show; `none` trains without differential privacy."""
    noise_multiplier: float = 1.0
    """Deviation of the noise over the clipping norm."""
    clipping_norm: float = 1.0
    """Largest length of one unit's gradient."""
    expected_batch: int = 64
    """Units a step takes in expectation: public, fixed, and what the noised sum is divided by. The sample rate is this
    over the number of units that the site's policy declares."""
    physical_batch: int = 16
    """Records in memory at once; the result does not depend on it."""
    grad_sample: Literal["hooks", "opacus", "loop"] = "hooks"
    """How single units' gradients are bounded: `hooks` clips after one backward pass from kept activations, `opacus`
    holds every unit's gradient (GradSampleModule), `loop` takes one unit at a time. All give the same sum."""
    negatives: Literal["bank", "batch"] = "bank"
    """`bank` contrasts with public pairs; `batch` with the other records of the step, at the sensitivity that this
    truly has: the whole step's gradient is clipped as one, and the noise is doubled. For comparison only."""
    bank: BankConfig = field(default_factory=BankConfig)
    adapters: AdapterConfig = field(default_factory=AdapterConfig)
    finetune: PrivateFinetuneConfig = field(default_factory=PrivateFinetuneConfig)

    def __post_init__(self) -> None:
        """Refuse numbers that protect nothing."""
        for name in ("noise_multiplier", "clipping_norm"):
            value = getattr(self, name)
            require(0 < value < math.inf, f"privacy.{name} is {value}; choose a finite number above 0")
        for name in ("expected_batch", "physical_batch"):
            require(getattr(self, name) >= 1, f"privacy.{name} is {getattr(self, name)}; choose 1 or more")
        require(
            self.on or not self.releases_metrics,
            "privacy.finetune.release is metrics and privacy.unit is none, so nothing would be protected; set "
            "privacy=patient, or privacy.finetune.release=nothing",
        )

    @property
    def releases_metrics(self) -> bool:
        """Whether metrics of fine-tuning leave a site with noise, charged."""
        return self.finetune.release == "metrics"

    @property
    def on(self) -> bool:
        """Whether the run is private at all."""
        return self.unit != "none"
