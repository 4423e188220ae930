"""What a site's privacy officer has signed: the cap of a life-time, and how little protection a run may ask for."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.config import read_site_config
from client.privacy.errors import PolicyError
from client.privacy.limits import check_delta_for
from client.site_settings import with_privacy_policy
from configs.loader import ConfigurationError, dump, load
from mumc_model.data.files import write_atomically
from mumc_model.privacy import PrivacyConfig
from protocol.errors import ProtocolError
from protocol.signing import public_hex, sign, verify

CONTEXT = "privacy-policy"
MOST_CHARS = 500


@dataclass(frozen=True, kw_only=True)
class PrivacyPolicy:
    """The signed cap and floor of one site. Every field but the signature is signed, together with the site's name."""

    unit: Literal["patient", "record"] = "patient"
    """What adding or removing must not show."""
    units: int
    """Public, rounded number of privacy units: it stands for the site's size in sample rates and merge weights."""
    epsilon: float
    """Cap over the site's life-time, of everything that is charged together, by an RDP filter."""
    delta: float = 1e-6
    """At which epsilon is stated; at most 1 / (10 units)."""
    noise_multiplier: float = 0.0
    """Least noise that any charged mechanism may use; 0 leaves it to the cap."""
    expires: str = ""
    """Last day (2027-12-31) on which anything may be charged; empty for none."""
    officer: str
    """The name of who signs."""
    role: str
    reason: str
    approved: str
    """When it was signed, in ISO form with the time; a later policy has a later one."""
    public_key: str = ""
    signature: str = ""

    def __post_init__(self) -> None:
        """Refuse a policy that protects nothing, or that cannot be read back as it was signed."""
        if self.unit not in ("patient", "record"):
            raise PolicyError(f"the policy's unit is {self.unit!r}; choose patient or record")
        _require(self.units >= 1, "units", self.units, "choose the public, rounded number of privacy units")
        _require(0 < self.epsilon < math.inf, "epsilon", self.epsilon, "choose a finite cap above 0")
        _require(0 <= self.noise_multiplier < math.inf, "noise_multiplier", self.noise_multiplier, "choose 0 or more")
        check_delta_for(self.delta, self.units, self.unit, PolicyError)
        for name in ("officer", "role", "reason"):
            text = getattr(self, name)
            _require(text.isprintable() and 0 < len(text) <= MOST_CHARS, name, text[:40], "give a line of text")
        _require(_is_date(self.approved, moment), "approved", self.approved[:40], "write it as 2027-12-31T10:00:00Z")
        _require(
            _is_date(self.expires or "2027-12-31", date.fromisoformat),
            "expires",
            self.expires[:40],
            "write it as 2027-12-31",
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values; numbers as the loader reads them back, so that what is signed stays the same."""
        floats = {name: float(getattr(self, name)) for name in ("epsilon", "delta", "noise_multiplier")}
        plain: dict[str, Any] = dump(self)
        return plain | floats

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PrivacyPolicy":
        """The policy that `to_dict` wrote, its signature not yet looked at.

        Raises:
            PolicyError: a field is unknown, missing or impossible.
        """
        try:
            return load(cls, values, "policy.privacy")
        except ConfigurationError as error:
            raise PolicyError(f"the privacy policy cannot be read: {error}") from None


def moment(text: str) -> datetime:
    """The moment that an ISO text names, with its time zone.

    Raises:
        ValueError: it names none, or no time zone.
    """
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("no time zone")
    return found


def sign_policy(policy: PrivacyPolicy, site: str, key: Ed25519PrivateKey) -> PrivacyPolicy:
    """The policy with the officer's public key and signature, for the site of that name."""
    policy = dataclasses.replace(policy, public_key=public_hex(key), signature="")
    return dataclasses.replace(policy, signature=sign(key, CONTEXT, _signed(policy, site)))


def verify_policy(policy: PrivacyPolicy, site: str) -> None:
    """Return only if the key that the policy names signed it for this site. Whose key it is, the ledger knows.

    Raises:
        PolicyError: it did not.
    """
    try:
        verify(policy.public_key, CONTEXT, _signed(policy, site), policy.signature)
    except ProtocolError as error:
        raise PolicyError(
            f"the privacy policy is not signed as it stands for the site '{site}': {error}; "
            "let the privacy officer sign it again with `mumc-privacy approve`"
        ) from None


def read_policy(root: Path) -> PrivacyPolicy | None:
    """The signed policy of a site's folder, or None where its site.yaml has none.

    Raises:
        PolicyError: it cannot be read, its signature is not good, or the site does not know its patients.
        ConfigurationError: there is no readable site.yaml.
    """
    config = read_site_config(root)
    if config.policy.privacy is None:
        return None
    policy = PrivacyPolicy.from_dict(config.policy.privacy)
    verify_policy(policy, config.name)
    check_site_unit(policy, config.unit)
    return policy


def check_site_unit(policy: PrivacyPolicy, site_unit: str) -> None:
    """Return only if the site's records can be told apart by the policy's unit.

    Raises:
        PolicyError: the policy protects patients, and the site knows only images.
    """
    if policy.unit == "patient" and site_unit != "patient":
        raise PolicyError(
            f"the policy protects patients, and site.yaml says `unit: {site_unit}`; give the records their patients "
            "and set `unit: patient`, or let the officer approve the unit `record`"
        )


def write_policy(root: Path, policy: PrivacyPolicy) -> None:
    """Put the policy into site.yaml in one step; everything else in it stays, comments too where that can be.

    Raises:
        ConfigurationError: there is no readable site.yaml.
    """
    read_site_config(root)
    path = root / "site.yaml"
    edited = with_privacy_policy(path.read_text(encoding="utf-8"), policy.to_dict())
    write_atomically(path, edited.encode())


def check_run(policy: PrivacyPolicy | None, privacy: PrivacyConfig) -> None:
    """Return only if a run protects the site's patients at least as the policy demands.

    Raises:
        PolicyError: it is weaker, or asks for a budget that nobody has signed.
    """
    if policy is None:
        if privacy.on:
            raise PolicyError(
                "the run is differentially private and this site has no signed policy to charge it to; "
                "let the privacy officer run `mumc-privacy approve`"
            )
        return
    if not privacy.on:
        raise PolicyError(
            f"the run is not differentially private, and this site's policy demands it for each {policy.unit}; "
            f"set privacy.unit={policy.unit} in the run"
        )
    check_strength(policy, privacy.unit, privacy.noise_multiplier)
    if privacy.releases_metrics:
        for name in ("noise_multiplier", "metrics_noise"):
            noise = getattr(privacy.finetune, name)
            check_strength(policy, privacy.unit, noise, f"privacy.finetune.{name}")


def check_strength(
    policy: PrivacyPolicy, unit: str, noise_multiplier: float, name: str = "the noise multiplier"
) -> None:
    """Return only if unit and noise are at least the policy's, and the policy has not expired.

    Raises:
        PolicyError: one of them is weaker.
    """
    if (policy.unit, unit) == ("patient", "record"):
        raise PolicyError("the run protects single records and this site's policy patients; set privacy.unit=patient")
    if noise_multiplier < policy.noise_multiplier:
        raise PolicyError(
            f"{name} is {noise_multiplier:g}, and this site's policy asks for at least "
            f"{policy.noise_multiplier:g}; raise it in the run"
        )
    if policy.expires and date.today() > date.fromisoformat(policy.expires):
        raise PolicyError(f"the privacy policy ended on {policy.expires}; let the privacy officer approve a new one")


def _signed(policy: PrivacyPolicy, site: str) -> dict[str, Any]:
    fields = policy.to_dict()
    del fields["signature"]
    return {"site": site, "policy": fields}


def _require(condition: bool, name: str, value: object, remedy: str) -> None:
    if not condition:
        raise PolicyError(f"the policy's {name} is {value!r}; {remedy}")


def _is_date(text: str, parse: Callable[[str], object]) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True
