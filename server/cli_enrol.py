"""The part of `mumc-server` that says who takes part: init, enroll, revoke, renew, sites."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from server.home import Home
    from server.roster import SiteRegister

app = typer.Typer(rich_markup_mode=None)

HomeArgument = Annotated[Path, typer.Argument(help="Federation folder.", metavar="DIR")]
DaysOption = Annotated[int, typer.Option(help="How long the server's certificate is valid.")]
SanOption = Annotated[
    list[str] | None, typer.Option("--san", help="Further DNS name or IP address of the server; repeatable.")
]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask once more.")]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Federation folder to make.", metavar="DIR")],
    name: Annotated[str, typer.Option(help="Of the federation, as the sites see it.")],
    address: Annotated[str, typer.Option(help="HOST:PORT that sites dial.")],
    san: SanOption = None,
    days: DaysOption = 365,
    port: Annotated[int, typer.Option(help="Port of the SuperLink; by default that of the address.")] = 0,
    health_port: Annotated[int, typer.Option(help="Port on loopback for its health; by default the next one.")] = 0,
) -> None:
    """Make a federation: its folder, CA, server certificate and signing key."""
    from protocol.enrolment import is_address, split_address
    from protocol.signing import fingerprint, public_hex
    from server.home import FederationFile
    from server.joining import create, expiry

    port = port or (split_address(address)[1] if is_address(address) else 9092)
    health_port = health_port or (port + 1 if port < 65535 else port - 1)
    config = FederationFile(name=name, address=address, sans=tuple(san or ()), port=port, health_port=health_port)
    home = create(folder, config, days)
    typer.echo(
        f"federation {name} in {folder}; sites dial {address}\n"
        f"server's fingerprint: {fingerprint(public_hex(home.signer()))}\n"
        f"certificate for {', '.join(config.names)}, until {expiry(home)}\n"
        f"keep {home.keys} private and in the backup; next: mumc-server enroll {folder} FILE"
    )


@app.command()
def enroll(
    folder: HomeArgument,
    file: Annotated[Path, typer.Argument(help="What the site sent: enrolment-NAME.json.")],
    yes: YesOption = False,
) -> None:
    """Take a site in, or its new keys, after comparing fingerprints with it by telephone."""
    from protocol.enrolment import Enrolment
    from protocol.node_keys import node_fingerprint
    from protocol.papers import read_paper
    from protocol.signing import fingerprint
    from server.home import Home
    from server.joining import admit, publish

    home = Home.open(folder)
    enrolment = read_paper(Enrolment, file)
    with home.locked():
        admitted = admit(home, enrolment)
        _show("site", enrolment.site)
        _show("units", f"{enrolment.units:,}, the public weight of its updates")
        _show("signing key", fingerprint(enrolment.signing_key))
        _show("node key", node_fingerprint(enrolment.auth_key))
        if enrolment.previous:
            _show("in place of", f"{fingerprint(enrolment.previous)}, which signed this")
        if not yes:
            typer.confirm("telephone the site: does it read out the same two fingerprints?", abort=True, err=True)
        register = publish(home, admitted)
    typer.echo(f"{enrolment.site} is enrolled; sites in the federation: {len(register.active)}")
    _say_what_to_send(home, register)


@app.command()
def revoke(
    folder: HomeArgument,
    name: Annotated[str, typer.Argument(help="The site; with --note it is the note's.", metavar="NAME")] = "",
    reason: Annotated[str, typer.Option(help="Why; stays in the register.")] = "",
    note: Annotated[Path | None, typer.Option(help="A site's own leave-NAME.json.")] = None,
) -> None:
    """Shut a site out, for good under its present keys: by name, or because it took its leave."""
    from protocol.enrolment import Leave
    from protocol.papers import read_paper
    from server.datacard_page import write_page
    from server.errors import FolderError
    from server.home import Home
    from server.joining import check_note
    from server.joining import revoke as revoke_site

    home = Home.open(folder)
    with home.locked():
        if note is not None:
            leave = read_paper(Leave, note)
            if name and name != leave.site:
                raise FolderError(f"the note is {leave.site}'s, not {name}'s; give one of the two")
            check_note(home, leave)
            name, reason = leave.site, reason or f"left: {leave.reason or 'no reason given'}"
        if not name:
            raise FolderError("nobody is named; give the site's NAME and --reason, or its note with --note FILE")
        if not (reason.strip() and reason.isprintable() and len(reason) <= 300):
            raise FolderError("a reason of one line is missing; give it with --reason TEXT, it stays in the register")
        register = revoke_site(home, name, reason.strip())
        if home.data_cards.is_dir():
            write_page(home)
    typer.echo(f"{name} is revoked: {reason.strip()}")
    _say_what_to_send(home, register)


@app.command()
def renew(
    folder: HomeArgument,
    san: SanOption = None,
    days: DaysOption = 365,
) -> None:
    """Make the server a new key and certificate from the same CA; no site has to do anything."""
    from server.home import Home
    from server.joining import expiry
    from server.joining import renew as renew_certificate

    home = Home.open(folder)
    with home.locked():
        names = renew_certificate(home, san or (), days)
    typer.echo(f"certificate for {', '.join(names)}, until {expiry(home)}; restart mumc-server start to show it")


@app.command()
def sites(
    folder: HomeArgument,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for another program.")] = False,
) -> None:
    """List the sites, enrolled and revoked, with their fingerprints."""
    import json
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from protocol.node_keys import node_fingerprint
    from protocol.signing import fingerprint
    from server.home import Home
    from server.roster import SiteRegister

    register = SiteRegister.read(Home.open(folder))
    if as_json:
        rows = [
            {
                **asdict(site),
                "signing_fingerprint": fingerprint(site.signing_key),
                "node_fingerprint": node_fingerprint(site.auth_key),
            }
            for site in register.sites
        ]
        typer.echo(json.dumps({"serial": register.serial, "sites": rows}, indent=1))
        return
    if not register.sites:
        typer.echo(f"no site yet; next: mumc-server enroll {folder} FILE")
        return
    table = Table("site", "units", "enrolled", "key", "fingerprint", box=None, pad_edge=False)
    for site in register.sites:
        table.add_row(
            site.name,
            f"{site.units:,}",
            site.enrolled[:10],
            "signing",
            Text(fingerprint(site.signing_key), no_wrap=True),
        )
        table.add_row("", "", "", "node", Text(node_fingerprint(site.auth_key), no_wrap=True))
        if site.revoked:
            table.add_row("", "", "", "revoked", Text(f"{site.revoked[:10]}, {site.reason}"))
    Console().print(table)


def _show(name: str, value: str) -> None:
    typer.echo(f"{name:<15}{value}")


def _say_what_to_send(home: "Home", register: "SiteRegister") -> None:
    """Which file goes to whom: every site gets an answer of its own, since the peers of all have changed."""
    for site in register.active:
        typer.echo(f"send to {site.name}: {home.join_file(site.name)}")
    if register.active:
        typer.echo("each site takes its file in with: mumc-site join SITE FILE")
