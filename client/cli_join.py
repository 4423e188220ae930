"""The part of `mumc-site` that is about taking part: init, join, rotate, leave."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from client.joining import Answer
    from protocol.enrolment import Enrolment

app = typer.Typer(rich_markup_mode=None)

Unit = Literal["patient", "image"]
SiteArgument = Annotated[Path, typer.Argument(help="Site folder.", metavar="DIR")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask once more.")]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Site folder to make, or one that import made.", metavar="DIR")],
    name: Annotated[str, typer.Option(help="Pseudonym of the site; by default that in its site.yaml.")] = "",
    units: Annotated[
        int, typer.Option(help="Public, rounded number of patients (or images): the weight of this site's updates.")
    ] = 1,
    unit: Annotated[Unit, typer.Option(help="What one person's data is, where the folder is new.")] = "patient",
) -> None:
    """Make the site's keys, which never leave it, and the enrolment file to send to the operator."""
    from client.joining import prepare

    file, enrolment = prepare(folder, name, units, unit)
    _show_enrolment(file, enrolment)
    typer.echo(
        "read both fingerprints to the operator by telephone, then take the answer in:\n"
        f"    mumc-site join {folder} {enrolment.site}.join.json\n"
        f"and look through the limits in {folder / 'site.yaml'} (policy.runs): every order is held to them"
    )


@app.command()
def join(
    folder: SiteArgument,
    file: Annotated[Path, typer.Argument(help="What the operator answered: NAME.join.json.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Also where the federation, its CA or its server's key is another.")
    ] = False,
    yes: YesOption = False,
) -> None:
    """Show a federation's answer and believe it from now on, after comparing its fingerprint by telephone."""
    from client.joining import check_answer
    from protocol.enrolment import Join
    from protocol.papers import read_paper

    answer = check_answer(folder, read_paper(Join, file), replace=replace)
    _show_answer(answer)
    if answer.join == answer.pinned:
        typer.echo("this very file is pinned already")
        return
    same = answer.pinned is not None and answer.pinned.server_key == answer.join.server_key
    question = "take this in?" if same else "telephone the operator: is this the server's fingerprint?"
    if not yes:
        typer.confirm(question, abort=True, err=True)
    answer.take_in()
    typer.echo(f"{answer.join.site} takes part in {answer.join.federation}; pinned in {answer.keys.federation}")
    if answer.rotates:
        typer.echo("the new keys are in use and the old ones destroyed; restart mumc-site start")


@app.command()
def rotate(
    folder: SiteArgument,
    units: Annotated[int, typer.Option(help="New public weight; without it, it stays.")] = 0,
) -> None:
    """Make new keys beside those in use, and the enrolment file for them, signed by the old signing key."""
    from client.joining import rotate as rotate_keys

    file, enrolment = rotate_keys(folder, units)
    _show_enrolment(file, enrolment)
    typer.echo(
        "the keys until now stay in use. Once the operator has enrolled this file they are refused, so take the answer "
        f"in at once:\n    mumc-site join {folder} {enrolment.site}.join.json"
    )


@app.command()
def leave(
    folder: SiteArgument,
    reason: Annotated[str, typer.Option(help="For the operator; one line.")] = "",
    yes: YesOption = False,
) -> None:
    """Write a signed note of leave and destroy the site's keys; data, state and ledgers stay."""
    from client.joining import leave as leave_federation
    from client.keys import SiteKeys

    joined = SiteKeys.open(folder).joined()
    typer.echo(
        f"{joined.site} leaves {joined.federation}: its keys are destroyed, and to take part again it enrols anew.\n"
        "Its data, models, logs and privacy ledger stay."
    )
    if not yes:
        typer.confirm("leave?", abort=True, err=True)
    file, keys = leave_federation(folder, reason)
    keys.forget()
    typer.echo(f"the keys are destroyed; stop mumc-site start if it is at work, and send to the operator: {file}")


def _show_enrolment(file: Path, enrolment: "Enrolment") -> None:
    from protocol.node_keys import node_fingerprint
    from protocol.signing import fingerprint

    _show("site", enrolment.site)
    _show("units", f"{enrolment.units:,}, the public weight of its updates")
    _show("signing key", fingerprint(enrolment.signing_key))
    _show("node key", node_fingerprint(enrolment.auth_key))
    if len(str(enrolment.units).rstrip("0")) > 2:
        typer.echo(f"{enrolment.units:,} looks like an exact count, and everybody will see it; give a rounded one")
    typer.echo(f"send to the operator: {file}")


def _show_answer(answer: "Answer") -> None:
    from client.joining import changes
    from protocol.certificates import read_certificate
    from protocol.signing import fingerprint

    join = answer.join
    _show("federation", f"{join.federation}, answer {join.serial} of {join.issued[:10]}")
    _show("address", join.address)
    _show("server", fingerprint(join.server_key))
    _show("CA", f"until {read_certificate(join.ca).not_valid_after_utc:%Y-%m-%d}")
    _show(
        "this site", f"{join.site}, {join.units:,} units, under this folder's {'next ' if answer.rotates else ''}keys"
    )
    for name, key in sorted(join.peers.items()):
        _show("peer", f"{fingerprint(key)}  {name}")
    if answer.pinned is not None:
        for line in changes(join, answer.pinned):
            _show("changed", line)


def _show(name: str, value: str) -> None:
    typer.echo(f"{name:<13}{value}")
