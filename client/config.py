"""The site's own facts: `site.yaml`, written and read only at the site."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from configs.loader import ConfigurationError, load


@dataclass(frozen=True, kw_only=True)
class RunLimits:
    """What a run may ask of this site. `client/gate.py` holds every order to it before any data is opened."""

    code: tuple[str, ...] = ("installed",)
    """Digests of the run's code that are accepted; `installed` is what is installed here, and only that ever runs."""
    recipes: tuple[str, ...] = ()
    """Digests of recipes that are accepted (`mumc-server config` prints it); empty accepts any within the limits."""
    actions: tuple[str, ...] = ("train.rehearse", "train.pretrain", "train.finetune", "evaluate.vqa")
    """What may be asked for."""
    max_rounds: int = 200
    """Of one run."""
    max_steps: int = 2000
    """Optimiser steps in answer to one order."""
    min_steps: int = 2
    """Fewest of pre-training: a difference after one step comes close to a gradient, which can show a record."""
    max_batch: int = 512
    """Records in a step."""
    max_image_size: int = 512
    """Pixels along a side."""
    max_parameters: int = 400_000_000
    """Of the model, as its shape says."""
    min_records: int = 20
    """Fewest captioned images, or training questions, with which this site takes part; where an officer has signed a
    privacy policy, its public number of units stands for both."""
    weights: tuple[str, ...] = (
        "visual_encoder.",
        "text_encoder.bert.",
        "vision_proj.",
        "text_proj.",
        "itm_head.",
        "temp",
    )
    """Beginnings of the names of weights that may leave."""
    metrics: tuple[str, ...] = ("*",)
    """Names of metrics that may leave, with * and ?; others are left out of what is sent, and noted in the log."""
    smallest_count: int = 10
    """Figures about fewer questions than this stay here."""
    privacy: Literal["required", "allowed"] = "allowed"
    """`required` refuses any training without differential privacy, also before an officer has signed a budget."""
    noise_multiplier: float = 0.0
    """Least noise of a private run; the officer's signed policy may ask for more."""
    secure_aggregation: Literal["required", "allowed"] = "required"
    """`required` sends an update only under masks, so that the server learns nothing but the sum; `allowed` lets plain
    updates go to the server too."""
    min_sites: int = 3
    """Fewest sites in a session of secure aggregation."""
    colluding: int = 1
    """So many other sites may join forces with the server and still not learn this site's update; a session that holds
    against fewer is refused."""
    most_share: float = 0.9
    """Most that this site may weigh among those in the smallest sum of a session whose updates nobody else knows."""
    card: Literal["required", "optional"] = "optional"
    """`required` trains only while the site's data card is of its data as it is (`mumc-site card`)."""
    hours: str = ""
    """When orders are followed, as 19:00-07:00 in the machine's time; empty for always."""
    memory_gib: float = 0.0
    """Most main memory for the work on one order, as the site's task runner sets it; 0 sets no limit."""

    def __post_init__(self) -> None:
        """Refuse limits that would refuse everything or mean nothing."""
        for name in ("max_rounds", "max_steps", "max_batch", "max_image_size", "max_parameters", "min_sites"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"policy.runs.{name} in site.yaml is {getattr(self, name)}; choose 1 or more")
        for name in ("min_steps", "min_records", "smallest_count", "noise_multiplier", "colluding", "memory_gib"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigurationError(f"policy.runs.{name} in site.yaml is {getattr(self, name)}; choose 0 or more")
        if not 0 < self.most_share <= 1:
            raise ConfigurationError(
                f"policy.runs.most_share in site.yaml is {self.most_share}; choose it above 0 and up to 1"
            )
        for name, allowed in (
            ("privacy", ("required", "allowed")),
            ("secure_aggregation", ("required", "allowed")),
            ("card", ("required", "optional")),
        ):
            if getattr(self, name) not in allowed:
                raise ConfigurationError(
                    f"policy.runs.{name} in site.yaml is {getattr(self, name)!r}; choose {' or '.join(allowed)}"
                )
        if self.hours and not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d", self.hours):
            raise ConfigurationError(f"policy.runs.hours in site.yaml is {self.hours!r}; write it as 19:00-07:00")


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """What a run must keep to at this site, whatever it asks for."""

    runs: RunLimits | None = None
    """Limits that the site's engineer sets; without them a deployed site trains nothing."""
    privacy: Mapping[str, Any] | None = None
    """The signed privacy policy, as `mumc-privacy approve` writes it; `client/privacy/policy.py` reads it."""


@dataclass(frozen=True, kw_only=True)
class SiteConfig:
    """What the site says of itself; a run never changes it."""

    name: str
    """The pseudonym under which the federation knows this site."""
    unit: Literal["patient", "image"] = "patient"
    """What one privacy unit is; public sets without patients say `image`."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:1`."""
    processes: int = 1
    """Processes that share pre-training: one a GPU, from the first on, or parts of the CPU's cores."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """`bf16` runs the forward pass under autocast; weights and sums stay float32."""
    kernels: Literal["eager", "graphs", "compiled"] = "graphs"
    """How a GPU is given a step of pre-training: `eager`, one operation after another; `graphs`, recorded once and
    replayed; `compiled`, compiled by torch before, which takes a minute or two at the first step of an order."""
    bad_share: float = 0.01
    """Largest share of unusable records that is skipped; above it the site stops with an error."""
    bank: str = ""
    """Path of a site folder of public pairs, for runs under differential privacy that contrast with a bank here."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    """What a run must keep to here, whatever it asks for."""
    board: Mapping[str, Any] | None = None
    """The site's own prices for `mumc-site report`; `client/board/prices.py` reads them."""
    intake: Mapping[str, Any] | None = None
    """What `mumc-site import dicom` does with an archive; `client/intake/config.py` reads it."""

    def __post_init__(self) -> None:
        """Refuse a name that no report could carry, and no process at all, before any work is done."""
        if self.processes < 1:
            raise ConfigurationError(
                f"processes in site.yaml is {self.processes}; set it to 1, or to how many GPUs are to train"
            )
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", self.name):
            raise ConfigurationError(
                f"name in site.yaml is {self.name!r}; use up to 64 letters, digits, dots, hyphens or underscores, "
                "beginning with a letter or digit"
            )


def read_site_config(root: Path) -> SiteConfig:
    """The parsed `site.yaml` of a site folder.

    Raises:
        ConfigurationError: the file is absent, not YAML, or has an unknown key.
    """
    path = root / "site.yaml"
    if not path.is_file():
        raise ConfigurationError(f"{path} is missing; a site folder has one (mumc-site import writes it)")
    try:
        node = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is not valid YAML: {error}") from error
    return load(SiteConfig, node or {}, "site.yaml")
