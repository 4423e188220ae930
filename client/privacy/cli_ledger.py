"""The part of `mumc-privacy` that signs and follows a budget: keygen, approve, ledger, exclude."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

app = typer.Typer(rich_markup_mode=None)

Unit = Literal["patient", "record"]
SiteArgument = Annotated[Path, typer.Argument(help="Site folder.")]
PasswordOption = Annotated[
    Path | None, typer.Option("--password-file", help="File with the key's password; without it, it is asked for.")
]


@app.command()
def keygen(
    out: Annotated[Path, typer.Argument(help="File to write the private key to; OUT.pub is the public one.")],
    password_file: PasswordOption = None,
) -> None:
    """Make a privacy officer's key, encrypted under a password. Keep it off the site's machine."""
    from protocol.signing import fingerprint, new_key, public_hex, write_private_key

    key = new_key()
    write_private_key(out, key, _password(password_file, confirm=True))
    out.with_name(out.name + ".pub").write_text(public_hex(key) + "\n", encoding="ascii")
    typer.echo(f"private key: {out}\npublic key:  {public_hex(key)}\nfingerprint: {fingerprint(public_hex(key))}")


@app.command()
def approve(
    site: SiteArgument,
    key: Annotated[Path, typer.Option(help="The officer's private key, made by keygen.")],
    epsilon: Annotated[float, typer.Option(help="Cap over the site's life-time, by an RDP filter.")] = 0.0,
    units: Annotated[int, typer.Option(help="Public, rounded number of patients (records) that stands for it.")] = 0,
    delta: Annotated[float, typer.Option(help="At most 1 / (10 patients).")] = 1e-6,
    noise_multiplier: Annotated[float, typer.Option(help="Least that a run may use; 0 leaves it to the cap.")] = 0.0,
    unit: Annotated[Unit, typer.Option(help="What adding or removing must not show.")] = "patient",
    expires: Annotated[str, typer.Option(help="Last day on which anything may be charged, as 2027-12-31.")] = "",
    officer: Annotated[str, typer.Option(help="Who signs.")] = "",
    role: Annotated[str, typer.Option(help="As what.")] = "privacy officer",
    reason: Annotated[str, typer.Option(help="Why this budget is right.")] = "",
    handover: Annotated[
        Path | None, typer.Option(help="Public key (OUT.pub) that approves from now on; nothing else is signed.")
    ] = None,
    password_file: PasswordOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Sign without asking once more.")] = False,
) -> None:
    """Sign a site's life-time budget, or hand over to another officer's key. Shows first what is signed."""
    from client.privacy.approving import approve as sign_and_keep
    from client.privacy.approving import draft
    from client.privacy.ledger_rows import now
    from client.privacy.policy import PrivacyPolicy

    if handover is not None:
        _hand_over(site, key, handover, password_file, yes)
        return
    policy = PrivacyPolicy(
        unit=unit,
        units=units,
        epsilon=epsilon,
        delta=delta,
        noise_multiplier=noise_multiplier,
        expires=expires,
        officer=officer,
        role=role,
        reason=reason,
        approved=now(),
    )
    shown = draft(site, policy)
    for name, value in shown.rows():
        typer.echo(f"{name:<17}{value}")
    signer = open_key(key, password_file)
    _confirm(yes)
    row = sign_and_keep(site, shown, signer)
    typer.echo(f"approved: row {row} of the ledger, and policy.privacy in site.yaml")


@app.command("ledger")
def show_ledger(
    site: SiteArgument,
    verify: Annotated[bool, typer.Option("--verify", help="Only verify the rows, the chain and the registry.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for another program.")] = False,
) -> None:
    """Verify a site's ledger, and show what is planned, reserved, spent and left. Nothing leaves the site."""
    from client.privacy.ledger import Ledger
    from client.privacy.ledger_view import summary, to_console

    ledger = Ledger.open(site)
    if verify:
        typer.echo(
            f"verified: {ledger.head.count} rows, head {ledger.head.hash}, key {ledger.public_key or 'none yet'}"
        )
    elif as_json:
        import json

        typer.echo(json.dumps(summary(ledger), indent=2, allow_nan=False))
    else:
        from rich.console import Console

        to_console(summary(ledger), Console())


@app.command()
def exclude(
    site: SiteArgument,
    patient: Annotated[str, typer.Argument(help="Patient id as in the site's records; - reads it from the input.")],
) -> None:
    """Withdraw a patient: no round that begins from now on uses their records. Only a keyed hash is kept."""
    import sys

    from client.config import read_site_config
    from client.privacy.errors import LedgerError
    from client.privacy.ledger import Ledger

    bad_share = read_site_config(site).bad_share
    patient_id = sys.stdin.readline().rstrip("\n") if patient == "-" else patient
    if not patient_id.strip():
        raise LedgerError("the patient id is empty; give it as it stands in the site's records")
    Ledger.open(site).exclude(patient_id)
    typer.echo("withdrawn from the next round on; what earlier rounds learned cannot be taken back")
    if not _is_known(site, patient_id, bad_share):
        typer.echo(
            "but no record that can be read here has this patient id: check how it is spelt. What was given is kept, "
            "and holds for records that come later",
            err=True,
        )


def _is_known(site: Path, patient_id: str, bad_share: float) -> bool:
    """Whether a record names this patient. Data that cannot be read keeps nobody from withdrawing."""
    from mumc_model.data.records import read_site
    from mumc_model.errors import DataError

    try:
        data = read_site(site, bad_share=bad_share)
    except DataError:
        return False
    return patient_id in {row.patient_id for row in data.captions} | {row.patient_id for row in data.vqa}


def _hand_over(site: Path, key: Path, to: Path, password_file: Path | None, yes: bool) -> None:
    from client.privacy.ledger import Ledger
    from protocol.signing import fingerprint

    public = public_key(to)
    typer.echo(f"from now on the key with this fingerprint approves: {fingerprint(public)}")
    signer = open_key(key, password_file)
    _confirm(yes)
    Ledger.open(site).hand_over(public, signer)
    typer.echo("handed over")


def public_key(path: Path) -> str:
    """The public key in a file that keygen wrote.

    Raises:
        SigningError: there is none.
    """
    from protocol.errors import SigningError
    from protocol.signing import fingerprint

    try:
        public = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise SigningError(f"{path} is not a public key; give the .pub file that keygen wrote") from None
    fingerprint(public)
    return public


def open_key(path: Path, password_file: Path | None) -> "Ed25519PrivateKey":
    """The private key in a file, opened with its password.

    Raises:
        SigningError: there is none, or the password is wrong.
    """
    from protocol.errors import SigningError
    from protocol.signing import read_private_key

    if not path.is_file():
        raise SigningError(f"there is no key {path}; give the file that `mumc-privacy keygen` wrote")
    return read_private_key(path, _password(password_file, confirm=False))


def _password(file: Path | None, *, confirm: bool) -> bytes:
    from protocol.errors import SigningError

    if file is None:
        text: str = typer.prompt("password of the key", hide_input=True, confirmation_prompt=confirm, err=True)
        return text.encode()
    try:
        password = file.read_bytes().rstrip(b"\r\n")
    except OSError:
        raise SigningError(f"{file} cannot be read; it is to hold the password on one line") from None
    if not password:
        raise SigningError(f"{file} holds no password; write it on one line")
    return password


def _confirm(yes: bool) -> None:
    if not yes:
        typer.confirm("sign this?", abort=True, err=True)
