"""A server whose run is private, and sites whose policy an officer has signed."""

import dataclasses
import hashlib
from pathlib import Path

from client.privacy.ledger import Ledger
from client.privacy.policy import sign_policy
from protocol.signing import new_key
from tests.client import conftest
from tests.client.privacy.officer import policy

SIGMA, BATCH, UNITS = 1.0, 4, 1000
PRIVATE = (
    "privacy=patient",
    f"privacy.noise_multiplier={SIGMA}",
    f"privacy.expected_batch={BATCH}",
    "privacy.physical_batch=2",
    "privacy.bank.size=4",
    "federation.rounds=3",
)


class PrivateServer(conftest.Server):
    """Orders of a private run. The same base weights serve every round."""

    def __init__(self, *settings: str, seed: int = 0) -> None:
        kept = conftest.TINY
        conftest.TINY = (*kept, *PRIVATE, *settings, f"seed={seed}")
        try:
            super().__init__()
        finally:
            conftest.TINY = kept


def approve(folder: Path, **changes) -> Ledger:
    """The ledger of a site whose officer has just signed a policy."""
    name = next(line for line in (folder / "site.yaml").read_text().splitlines() if line.startswith("name:"))
    ledger = Ledger.open(folder)
    ledger.approve(sign_policy(policy(**{"units": UNITS, **changes}), name.split(":")[1].strip(), new_key()))
    return ledger


def again(order, **changes):
    """The same order but for some fields."""
    return dataclasses.replace(order, **changes)


def said(answer) -> str:
    """What a site answered, in words: its report and the digest of its update."""
    sha = hashlib.sha256(b"".join(name.encode() + answer.arrays[name].tobytes() for name in sorted(answer.arrays)))
    return f"{answer.message} {sha.hexdigest()}"
