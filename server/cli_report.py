"""The part of `mumc-server` that shows what a run has left: report, card."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from server.home import Home

app = typer.Typer(rich_markup_mode=None)


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="Output folder of a run, finished or not.")]) -> None:
    """Write report.md and report.html anew from a run's journal, also while it is at work."""
    from server.report_page import write_reports

    typer.echo(write_reports(folder))


@app.command()
def card(
    folder: Annotated[Path | None, typer.Argument(help="Output folder of a finished run.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to put both files; by default the run's folder.")] = None,
    home: Annotated[
        Path | None, typer.Option(help="The federation's folder, where the run's own does not lie in it.")
    ] = None,
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Of a run without a federation's folder: the card says so.")
    ] = False,
    verify: Annotated[
        Path | None, typer.Option(help="Check this card.json instead of writing one.", metavar="CARD")
    ] = None,
    key: Annotated[str, typer.Option(help="Public signing key that must have signed it, in hex.")] = "",
    weights: Annotated[Path | None, typer.Option(help="Weights that it must be of.")] = None,
) -> None:
    """Write the signed model card of a run, card.md and card.json, or check one; exit code 2 where it does not hold."""
    from server.errors import CardError

    if verify is not None:
        _verify(verify, key=key, home=home, weights=weights, folder=folder)
    elif folder is None:
        raise CardError("no run is named; give the output folder of a finished run, or --verify card.json")
    else:
        _write(folder, out or folder, home=home, unsigned=unsigned)


def _write(folder: Path, out: Path, *, home: Path | None, unsigned: bool) -> None:
    from server.card import build
    from server.card_seal import seal, to_json
    from server.card_text import to_markdown
    from server.checkpoint import write_whole

    federation = None if unsigned else _home_of(folder, home)
    sealed = seal(build(folder, federation), federation.signer() if federation else None)
    write_whole(out / "card.json", to_json(sealed).encode())
    write_whole(out / "card.md", to_markdown(sealed).encode())
    typer.echo(f"{out / 'card.md'} and card.json, {'signed' if federation else 'NOT signed'}")


def _home_of(folder: Path, given: Path | None) -> "Home":
    """The federation whose key signs: the one that is given, or in whose `runs` the folder lies."""
    from server.errors import CardError
    from server.home import SETTINGS, Home

    place = given or folder.resolve().parent.parent
    if given is None and not (place / SETTINGS).is_file():
        raise CardError(
            f"{folder} lies in no federation's folder, so nobody would sign the card; name the federation with --home, "
            "or write one that says it is not signed with --unsigned"
        )
    return Home.open(place)


def _verify(path: Path, *, key: str, home: Path | None, weights: Path | None, folder: Path | None) -> None:
    from protocol.signing import fingerprint, public_hex
    from server.card_seal import check_folder, check_seal, check_weights, read_card
    from server.card_text import to_markdown
    from server.errors import CardError
    from server.home import Home

    federation = Home.open(home) if home else None
    expected = key or (public_hex(federation.signer()) if federation else "")
    found = read_card(path)
    check_seal(found, expected)
    typer.echo(f"whole: every section is as it was signed by the key {fingerprint(found['seal']['key'])}")
    if expected:
        typer.echo("key: it is the one that was given")
    else:
        typer.echo("NOT checked: whose key that is; give --key as the federation told it, or --home")
    text = path.with_name("card.md")
    if text.is_file():
        if text.read_bytes() != to_markdown(found).encode():
            raise CardError(f"{text} is not the text of this card; believe card.json, or write both anew")
        typer.echo("card.md: it says the same")
    if folder is not None:
        check_folder(found, folder)
        typer.echo(f"files: weights, journal and result of {folder} are those of the card")
    if weights is not None:
        check_weights(found, weights)
        typer.echo(f"weights: {weights} are those of the card")
    elif folder is None:
        typer.echo("NOT checked: the weights; give --weights FILE")
    if federation:
        _resolve(found, federation)


def _resolve(card: dict[str, Any], home: "Home") -> None:
    """Show the operator, who has the key, which site is which."""
    from server.pseudonyms import resolve

    known = {site["pseudonym"] for site in card["sites"]}
    for pseudonym, name in resolve(card["about"]["run"], home, known).items():
        typer.echo(f"{pseudonym}  {name}")
