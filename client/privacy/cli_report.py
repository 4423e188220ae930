"""The part of `mumc-privacy` that attests: report, verify-report."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(rich_markup_mode=None)


@app.command()
def report(
    site: Annotated[Path, typer.Argument(help="Site folder.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to; by default state/privacy/report at the site.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="The officer's private key: they sign as well.")] = None,
    password_file: Annotated[
        Path | None, typer.Option("--password-file", help="File with the key's password; without it, it is asked for.")
    ] = None,
    audit: Annotated[Path | None, typer.Option(help="What `mumc-privacy audit --json` printed.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report's values, for another program.")] = False,
) -> None:
    """Write a signed report of a site's budget: a page to read, its values, a signature. No patient stands in it."""
    from client.config import read_site_config
    from client.privacy.cli_ledger import open_key
    from client.privacy.ledger import Ledger
    from client.privacy.ledger_file import PLACE
    from client.privacy.ledger_rows import now
    from client.privacy.report import build, read_audit, uncharged_runs
    from client.privacy.report_files import write
    from protocol.signing import public_hex

    name, ledger = read_site_config(site).name, Ledger.open(site)
    officer = open_key(key, password_file) if key is not None else None
    built = build(
        ledger,
        name,
        day=now()[:10],
        officer=public_hex(officer) if officer else "",
        audit=read_audit(audit) if audit is not None else None,
        uncharged=uncharged_runs(site),
    )
    folder = site / PLACE / "report" if out is None else out
    write(built, folder, ledger, officer)
    if as_json:
        import json

        typer.echo(json.dumps(built, indent=1, allow_nan=False))
    else:
        _show(built, f"written: {folder}")


@app.command("verify-report")
def verify_report(
    folder: Annotated[Path, typer.Argument(help="What `mumc-privacy report` wrote.")],
    officer: Annotated[Path | None, typer.Option(help="Public key (OUT.pub) that must be among the signers.")] = None,
) -> None:
    """Verify a report to the last byte, on any machine. Compare the fingerprints with those that you know."""
    from client.privacy.cli_ledger import public_key
    from client.privacy.report_files import check

    _show(check(folder, public_key(officer) if officer is not None else ""), "verified: no byte was changed")


def _show(report: dict[str, object], line: str) -> None:
    typer.echo(f"{line}\nreport {report['id']} of the site '{report['site']}', {report['day']}")
    signers = report["signers"]
    assert isinstance(signers, list)
    for signer in signers:
        typer.echo(f"signed by {signer['who']}: {signer['fingerprint']}")
