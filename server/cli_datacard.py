"""The part of `mumc-server` that keeps what sites tell of their data: datacard add, list, show, page."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from server.datacards import Held

app = typer.Typer(help="Take in, list and compare the data cards of the sites.")

HomeArgument = Annotated[Path, typer.Argument(help="Federation folder.", metavar="DIR")]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON, for another program.")]


@app.command()
def add(
    folder: HomeArgument,
    file: Annotated[Path, typer.Argument(help="What the site sent: its state/card/public.json.")],
) -> None:
    """Take a site's data card in, once its signature is checked; the newest that it approved counts."""
    from datetime import UTC, datetime

    from protocol.datacard import read
    from server.datacard_page import write_page
    from server.datacards import held, take_in
    from server.home import Home

    home = Home.open(folder)
    card = read(file)
    with home.locked():
        new = take_in(home, card, datetime.now(UTC))
        page = write_page(home)
        cards = [one for one in held(home) if one.card]
    what = "is taken in" if new else "is here already"
    typer.echo(
        f"the data card of {card.site}, approved {card.approved[:16].replace('T', ' ')}, {what}; sites with a card: "
        f"{len(cards)}\nall of them beside one another: {page}"
    )


@app.command("list")
def list_cards(folder: HomeArgument, as_json: JsonOption = False) -> None:
    """List the enrolled sites with the sizes that their cards tell, and those that have none."""
    from rich.console import Console
    from rich.table import Table

    from server.datacards import held
    from server.home import Home

    found = held(Home.open(folder))
    if as_json:
        typer.echo(json.dumps([_plain(one) for one in found], indent=1))
        return
    if not found:
        typer.echo(f"no site yet; next: mumc-server enroll {folder} FILE")
        return
    rows = Table("site", "images", "captions", "questions", "patients", "counted on", box=None, pad_edge=False)
    for one in found:
        rows.add_row(one.site, *_sizes(one))
    Console().print(rows)
    for one in found:
        if one.fault:
            typer.echo(f"{one.site}: {one.fault}")


@app.command()
def show(
    folder: HomeArgument,
    site: Annotated[str, typer.Argument(help="The site.", metavar="SITE")],
    as_json: JsonOption = False,
) -> None:
    """Show all that one site's card tells."""
    from rich.console import Console

    from server.datacards import held
    from server.errors import DataCardError
    from server.home import Home

    one = next((each for each in held(Home.open(folder)) if each.site == site), None)
    if one is None or one.card is None:
        why = one.fault if one and one.fault else "there is none, or no such site is enrolled"
        raise DataCardError(
            f"of {site!r} no data card can be shown: {why}; mumc-server datacard list {folder} shows which are here"
        )
    if as_json:
        typer.echo(json.dumps(_plain(one), indent=1))
        return
    typer.echo(f"{one.site}, counted on {one.card.made}, approved {one.card.approved}, signed by its key")
    for part in _tables(one):
        Console().print("", part)


@app.command()
def page(folder: HomeArgument) -> None:
    """Write the page that puts the sites' counts beside one another."""
    from server.datacard_page import write_page
    from server.home import Home

    home = Home.open(folder)
    with home.locked():
        typer.echo(write_page(home))


def _plain(one: "Held") -> dict[str, object]:
    from dataclasses import asdict

    return {"site": one.site, "fault": one.fault, "card": asdict(one.card) if one.card else None}


def _sizes(one: "Held") -> tuple[str, ...]:
    from server.datacard_page import shown

    if one.card is None:
        return ("damaged" if one.fault else "no card", "", "", "", "")
    facts = one.card.card
    if "counts" not in facts:
        return ("not told", "not told", "not told", f"{facts['units']:,} units (privacy policy)", one.card.made)
    counts = facts["counts"]
    known = [shown(counts[name]) for name in ("images", "captions", "questions")]
    return (*known, shown(counts.get("patients", "unknown")), one.card.made)


def _tables(one: "Held") -> "Iterator[Table]":
    """What the card tells, a table a part; labels of which there are none are left out."""
    assert one.card is not None
    facts = one.card.card
    if "counts" not in facts:
        yield _pairs("", {f"units ({facts['unit']}), as its privacy officer says": facts["units"]})
        return
    yield _pairs("", {"unit": facts["unit"], **facts["counts"]})
    for name, cells in facts["tables"].items():
        yield _pairs(name, {label: value for label, value in cells.items() if value != 0})
    yield _pairs("words (quartiles)", facts["words"])
    yield _pairs("near copies", facts["near copies"])
    for overlap in facts["overlaps"]:
        rest = dict(overlap)
        yield _pairs(f"in {rest.pop('set')}", rest)


def _pairs(title: str, found: dict[str, object]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    from server.datacard_page import shown

    rows = Table(title, "", box=None, pad_edge=False, show_header=bool(title))
    for name, value in found.items():
        rows.add_row(name, Text(", ".join(map(str, value)) if isinstance(value, list) else shown(value)))
    return rows
