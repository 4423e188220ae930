"""The part of `mumc-site` that looks before the first run: check."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.cli_join import SiteArgument

if TYPE_CHECKING:
    from rich.console import Console

    from client.preflight.finding import Finding

app = typer.Typer(rich_markup_mode=None)

PLAIN_COLUMNS = 120
"""Where there is no terminal to ask for its width."""


@app.command()
def check(
    folder: SiteArgument,
    run: Annotated[
        Path | None, typer.Option(help="What the site is to be fit for, as mumc-server config prints it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A report to send; it names no patient.")] = False,
) -> None:
    """Look at everything that could keep this site from taking part; exit code 1 where something does."""
    from rich.console import Console

    from client.preflight.case import Case
    from client.preflight.checks import examine
    from client.preflight.report import is_fit, summary, to_dict
    from client.preflight.run import read_run, usual_run

    case = Case(folder, read_run(run) if run else usual_run())
    progress = Console(stderr=True)
    with progress.status("") as status:
        found = list(examine(case, lambda name: status.update(f"looking at: {name}")))
    if as_json:
        typer.echo(json.dumps(to_dict(found, case.root), indent=2, ensure_ascii=False))
    else:
        _show(found, Console(width=None if sys.stdout.isatty() else PLAIN_COLUMNS), case.root, folder)
        typer.echo(summary(found))
    raise typer.Exit(0 if is_fit(found) else 1)


def _show(findings: "Sequence[Finding]", console: "Console", root: Path, typed: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    from client.preflight.report import WORDS

    colours = {"pass": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        words = [finding.what, finding.here, f"-> {finding.remedy}" if finding.remedy else ""]
        text = "\n".join(filter(None, words)).replace(str(root), str(typed))
        # A path or a server's word is never read as markup.
        table.add_row(Text(WORDS[finding.status], style=colours[finding.status]), finding.name, Text(text))
    console.print(table)
