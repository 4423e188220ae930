"""What an officer sees before signing, and the signature: one way for the command and the page."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.privacy.budget import rounded_up
from client.privacy.errors import PolicyError
from client.privacy.ledger import Ledger
from client.privacy.limits import check_delta_for
from client.privacy.plan import Sketch
from client.privacy.policy import PrivacyPolicy, check_site_unit, sign_policy
from mumc_model.data.records import read_site


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A policy that is ready to be signed."""

    policy: PrivacyPolicy
    site: str
    """The name of the site, which is signed with it."""
    count: int
    """How many units the site holds; neither signed nor sent."""

    def rows(self) -> Iterator[tuple[str, str]]:
        """What is signed, by name, and for whom."""
        for field in dataclasses.fields(self.policy):
            if field.name not in ("public_key", "signature"):
                yield field.name, str(getattr(self.policy, field.name) or "-")
        unit = self.policy.unit
        yield "site", f"{self.site}, which holds {self.count:,} {unit}s (this number is not signed or sent)"


def draft(root: Path, policy: PrivacyPolicy) -> Draft:
    """The policy for the site of that folder.

    Raises:
        PolicyError: it contradicts the site's records.
        DataError: they cannot be read.
    """
    data = read_site(root)
    check_site_unit(policy, data.unit)
    patients = [*(row.patient_id for row in data.captions), *(row.patient_id for row in data.vqa)]
    count = len(set(patients)) if policy.unit == "patient" else len(patients)
    check_delta_for(policy.delta, count, policy.unit, PolicyError)
    return Draft(policy=policy, site=data.name, count=count)


def approve(root: Path, draft: Draft, key: Ed25519PrivateKey) -> int:
    """Sign the draft and put it in force; the number of its row in the ledger.

    Raises:
        PolicyError: the key is not this site's officer's, or more was spent already than the policy allows.
        LedgerError: the ledger is not to be trusted or written.
    """
    ledger = Ledger.open(root)
    ledger.approve(sign_policy(draft.policy, draft.site, key))
    return ledger.head.count - 1


def numbers_for(plan: Sketch) -> dict[str, Any]:
    """The numbers of a policy under which the plan runs: its cap, else what it brings the budget to; its own noise."""
    return {
        "units": plan.patients,
        "epsilon": rounded_up(plan.epsilon_after) if plan.cap is None else plan.cap,
        "delta": plan.delta,
        "noise_multiplier": math.floor(plan.noise_multiplier * 1e4) / 1e4,
    }
