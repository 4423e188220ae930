"""The part of `mumc-site` that looks at the data before it trains: card."""

import json
from pathlib import Path
from typing import Annotated

import typer

from client.cli_join import SiteArgument, YesOption

app = typer.Typer(rich_markup_mode=None)

UNFIT = {
    "none": "has no data card",
    "stale": "has changed since its data card was made",
    "old": "has a card of an earlier fedmumc, which did not look at the image files",
}
"""Why a card cannot be approved."""


@app.command()
def card(
    folder: SiteArgument,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Site folder of a public set, or a folder of images, to look for in the data; repeatable."),
    ] = None,
    approve: Annotated[
        bool, typer.Option("--approve", help="Show what of the card would leave, and sign it for the server.")
    ] = False,
    person: Annotated[str, typer.Option(help="Who approves; by default the user of this machine.")] = "",
    yes: YesOption = False,
) -> None:
    """Count and compare the site's data, for a page that stays here; with --approve, sign the counts that may leave.

    Where policy.runs.card is required, the site trains only while its card is of the data as it is.
    """
    if approve:
        from client.log import acting_user

        _approve(folder, person or acting_user(), yes)
    else:
        _make(folder, against or [])


def _make(folder: Path, against: list[Path]) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from client.datacard.card import build
    from client.datacard.words import in_short
    from client.datacard.write import write_card

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns) as progress:
        tasks = {}

        def on_progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)

        made = build(folder, against, on_progress)
    for line in in_short(made):
        typer.echo(line)
    json_file, page = write_card(folder, made)
    typer.echo(f"the card: {page} and {json_file.name}; to let its counts leave: mumc-site card {folder} --approve")


def _approve(folder: Path, person: str, yes: bool) -> None:
    from client.datacard.publish import facts_that_leave, publish
    from client.datacard.reading import read_card
    from client.datacard.stamp import card_state
    from client.errors import SiteError

    made, state = read_card(folder), card_state(folder)
    if made is None or state != "current":
        raise SiteError(f"the site's data {UNFIT[state]}; look at it first: mumc-site card {folder}")
    typer.echo(json.dumps(facts_that_leave(folder, made), indent=1))
    typer.echo(f"this, and nothing else of the card, leaves {made.site} with the file.")
    if sentence := _goes_into_sums(folder):
        typer.echo(sentence)
    if not yes:
        typer.confirm("sign it?", abort=True, err=True)
    typer.echo(
        f"signed by {person}, and noted in the site's log; send to the operator: {publish(folder, made, person)}"
    )


def _goes_into_sums(folder: Path) -> str:
    """What a person approves beside the card where the site's limits list statistics; else nothing."""
    from client.config import RunLimits, read_site_config
    from client.datacard.sums import QUARTER
    from protocol.messages import STATISTICS
    from protocol.secagg.session import LEAST_SITES

    limits = read_site_config(folder).policy.runs or RunLimits()
    if STATISTICS not in limits.actions:
        return ""
    return (
        f"and, since policy.runs.actions lists {STATISTICS}: whenever the server asks, the exact counts of the five "
        f"tables and of the patients behind them go, masked, into a sum of at least "
        f"{max(limits.min_sites, LEAST_SITES)} sites, and into another sum once in {QUARTER.days} days."
    )
