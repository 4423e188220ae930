"""A site's privacy report as plain values: what was promised, what was spent, what vouches for it, what is not covered.

It is for whoever must believe the site from outside, so nothing of a patient stands in it: neither the number of those
who were withdrawn nor that of the ledger's rows, which would give it away. The same ledger gives the same report on
the same day.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from client.privacy import report_cells as cells
from client.privacy import report_numbers as numbers
from client.privacy import report_words as words
from client.privacy.errors import PlanError, PolicyError
from client.privacy.ledger import Ledger
from client.privacy.ledger_rows import code_digest
from client.privacy.policy import PrivacyPolicy
from protocol.signing import canonical, fingerprint

SCHEMA = "fedmumc/privacy-report"
VERSION = 1
SITE, OFFICER = "the site's ledger", "the privacy officer"
_PACKAGES = ("fedmumc", "dp-accounting", "opacus", "torch", "numpy", "cryptography")
_AUDIT = {
    "pass": bool,
    "claimed_epsilon": float,
    "lower_bound": float,
    "one_run_lower_bound": float,
    "delta": float,
    "confidence": float,
    "one_run_confidence": float,
    "effect_size": float,
    "effect_size_expected": float,
    "canaries": int,
    "trainer": str,
    "grad_sample": str,
}
"""What is taken over of an audit. An attack on a model stays out: its numbers are about patients."""

Values = dict[str, Any]


def build(
    ledger: Ledger,
    site: str,
    *,
    day: str,
    officer: str = "",
    audit: Values | None = None,
    uncharged: Sequence[str] = (),
) -> Values:
    """The report of this ledger.

    Args:
        ledger: What counts.
        site: Its pseudonym.
        day: On which the report is made.
        officer: The public key that will sign beside the ledger's own.
        audit: What `read_audit` gave.
        uncharged: What `uncharged_runs` gave.

    Raises:
        PolicyError: that key is not the one that approves at this site.
        LedgerError: the ledger is not to be trusted.
    """
    if officer and officer != ledger.officer:
        raise PolicyError(
            f"the key {fingerprint(officer)} is not this site's privacy officer's, and would vouch for nothing; sign "
            "with the key that approved the policy, or leave --key out"
        )
    key = ledger.open_key()
    policy, problem = _policy(ledger)
    charges = numbers.charges(ledger, policy)
    signers = [(SITE, key), *([(OFFICER, officer)] if officer else [])]
    report = {
        "schema": SCHEMA,
        "version": VERSION,
        "site": site,
        "day": day,
        "problem": problem,
        "charges": charges,
        "runs": [],
        "over_delta": [],
        "trust": [list(pair) for pair in words.TRUST],
        "covered": list(words.COVERED),
        "not_covered": [list(pair) for pair in words.NOT_COVERED],
        "signers": [{"who": who, "key": public, "fingerprint": fingerprint(public)} for who, public in signers],
    }
    shown = [*cells.of_mechanism(charges), *cells.of_ledger(ledger, key, charges, code_digest(), _versions())]
    shown += cells.of_uncharged(uncharged)
    if policy is not None:
        shown = [*_of_policy(ledger, policy), *shown]
        report |= {"runs": numbers.runs(ledger, policy), "over_delta": numbers.over_delta(ledger, policy)}
    report["cells"] = [*shown, *(cells.of_audit(audit) if audit else ())]
    return {"id": hashlib.sha256(canonical(report)).hexdigest()[:16], **report}


def read_audit(path: Path) -> Values:
    """What the file that `mumc-privacy audit --json` printed says of the program, and nothing that it says of patients.

    Raises:
        PlanError: it cannot be read, or is not an audit.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        taken = {name: found[name] for name in _AUDIT}
    except (OSError, ValueError, KeyError, TypeError):
        raise PlanError(f"{path} is not an audit; write one with `mumc-privacy audit --json > {path.name}`") from None
    for name, kind in _AUDIT.items():
        number = kind is float and type(taken[name]) is int
        if not (number or type(taken[name]) is kind) or (kind is float and not math.isfinite(taken[name])):
            raise PlanError(f"the audit's {name} is {str(taken[name])[:40]!r}; it was changed: run the audit again")
    if (trainer := taken["trainer"]) not in words.AUDITED:
        raise PlanError(
            f"the audit's trainer is {trainer[:40]!r}, none of {', '.join(words.AUDITED)}; run the audit again"
        )
    return taken


def uncharged_runs(root: Path) -> list[str]:
    """The runs that have trained at this site without differential privacy, as far as the site remembers."""
    from client.state import UNCHARGED

    path = root / "state" / UNCHARGED
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return sorted({str(json.loads(line)["run"]) for line in lines})


def value(report: Mapping[str, Any], name: str) -> Any:
    """The value of the cell of that name.

    Raises:
        KeyError: the report has none.
    """
    return {cell["id"]: cell["value"] for cell in report["cells"]}[name]


def _policy(ledger: Ledger) -> tuple[PrivacyPolicy | None, str]:
    try:
        return ledger.policy(), ""
    except PolicyError as error:
        return None, str(error)


def _of_policy(ledger: Ledger, policy: PrivacyPolicy) -> list[Values]:
    return [
        *cells.of_promise(policy),
        *cells.of_budget(numbers.budget(ledger, policy), policy, ledger.order),
        *cells.of_attack(numbers.attack(ledger, policy), policy.unit),
    ]


def _versions() -> Values:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
