"""The site's own facts: `site.yaml`, written and read only at the site."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from configs.loader import ConfigurationError, load


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """What the site's officers have signed; the part that checks a signature reads it."""

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
    precision: Literal["fp32", "bf16"] = "fp32"
    """`bf16` runs the forward pass under autocast; weights and sums stay float32."""
    bad_share: float = 0.01
    """Largest share of unusable records that is skipped; above it the site stops with an error."""
    bank: str = ""
    """Path of a site folder of public pairs, for runs under differential privacy that contrast with a bank here."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    """What a run must keep to here, whatever it asks for."""

    def __post_init__(self) -> None:
        """Refuse a name that no report could carry, before any work is done under it."""
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
