"""A privacy report on the disk: the page, its values, and a detached signature that fits both to the byte."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.privacy.ledger import Ledger
from client.privacy.report import OFFICER, SITE
from client.privacy.report import SCHEMA as REPORT_SCHEMA
from client.privacy.report import VERSION as REPORT_VERSION
from client.privacy.report_html import to_html
from mumc_model.data.files import write_atomically
from protocol.errors import ProtocolError, SignatureError
from protocol.signing import sign, verify

PAGE, VALUES, SIGNATURE = "privacy-report.html", "privacy-report.json", "privacy-report.sig.json"
CONTEXT = "privacy-report"
SCHEMA = "fedmumc/privacy-report-signature"
VERSION = 1
MOST_BYTES = 1 << 26

Values = dict[str, Any]


def write(report: Values, folder: Path, ledger: Ledger, officer: Ed25519PrivateKey | None = None) -> None:
    """Write and sign the report. The signature comes last, so that a report without one is an unfinished one."""
    # Whoever only verifies a report draws nothing, and matplotlib takes a second to import.
    from client.privacy.report_plots import draw_plots

    page, values = to_html(report, draw_plots(report)).encode(), _rendered(report)
    payload = _payload(report, page)
    signatures = {SITE: ledger.sign(CONTEXT, payload)}
    if officer is not None:
        signatures[OFFICER] = sign(officer, CONTEXT, payload)
    signed = {
        "schema": SCHEMA,
        "version": VERSION,
        "page_sha256": payload["page_sha256"],
        "signatures": [
            {"who": who, "key": _key(report, who), "signature": signature} for who, signature in signatures.items()
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SIGNATURE).unlink(missing_ok=True)
    for name, content in ((PAGE, page), (VALUES, values), (SIGNATURE, _rendered(signed))):
        write_atomically(folder / name, content)


def check(folder: Path, officer: str = "") -> Values:
    """The report in a folder, once every byte of its three files has been checked.

    Whose the keys are is for a person to compare; `officer`, where given, must be the public key of a signer.

    Raises:
        SignatureError: something was changed, is missing, or was signed by other keys than the report names.
    """
    page, values, signed = (_read(folder / name) for name in (PAGE, VALUES, SIGNATURE))
    try:
        report, found = json.loads(values), json.loads(signed)
        if _rendered(report) != values or _rendered(found) != signed:
            raise ValueError("another spelling")
        given = {(row["who"], row["key"]): row["signature"] for row in found["signatures"]}
        named = [(row["who"], row["key"]) for row in report["signers"]]
        whole = {"schema": SCHEMA, "version": VERSION, "page_sha256": hashlib.sha256(page).hexdigest()}
        if (report["schema"], report["version"]) != (REPORT_SCHEMA, REPORT_VERSION):
            raise ValueError("not a report of this version")
        if list(given) != named or not named or found != {**whole, "signatures": found["signatures"]}:
            raise ValueError("another page, or other signers")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SignatureError(f"the report in {folder} was changed after signing ({error}); {_REMEDY}") from None
    for (who, key), signature in given.items():
        try:
            verify(key, CONTEXT, _payload(report, page), signature)
        except ProtocolError as error:
            raise SignatureError(f"the report in {folder} is not signed by {who}: {error}; {_REMEDY}") from None
    if officer and (OFFICER, officer) not in given:
        raise SignatureError(f"the report in {folder} is not signed by that officer; let them sign it with --key")
    return dict(report)


_REMEDY = "ask the site for the report as it signed it"


def _payload(report: Mapping[str, Any], page: bytes) -> Values:
    return {"report": report, "page_sha256": hashlib.sha256(page).hexdigest()}


def _rendered(value: Any) -> bytes:
    """The one spelling of a file, so that any other byte in it is an edit."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _key(report: Mapping[str, Any], who: str) -> str:
    return str(next(row["key"] for row in report["signers"] if row["who"] == who))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES)
    except OSError:
        raise SignatureError(f"{path} cannot be read; give the folder that `mumc-privacy report` wrote") from None
