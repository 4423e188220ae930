"""`mumc-site`: what an engineer at a hospital types."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from client import cli_check, cli_join, cli_log, cli_report, cli_start, cli_ui, cli_vqa

app = typer.Typer(
    help="Run a hospital's side of a federation: for the engineer at the hospital.",
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)


app.registered_commands += cli_join.app.registered_commands
app.registered_commands += cli_check.app.registered_commands
app.registered_commands += cli_start.app.registered_commands
app.registered_commands += cli_vqa.app.registered_commands
app.registered_commands += cli_report.app.registered_commands
app.registered_commands += cli_ui.app.registered_commands
app.add_typer(cli_log.app, name="log", no_args_is_help=True)


@app.callback()
def site() -> None:
    """Whatever a command writes, its owner alone can read: data, state and logs are about patients."""
    os.umask(0o077)


@app.command("import")
def import_set(
    kind: Annotated[str, typer.Argument(help="Which data set or table; --list shows them.")] = "",
    source: Annotated[Path, typer.Argument(help="Folder of the data set as it was published.")] = Path(),
    destination: Annotated[Path, typer.Argument(help="Site folder to write; made where it is not there.")] = Path(),
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="An option of the importer, as NAME=VALUE; repeatable.")
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="List the importers and their options.")] = False,
) -> None:
    """Turn a public data set or a table into a site folder; what is left out is counted and explained."""
    from mumc_model.data.importers import IMPORTERS

    console = Console()
    if show_list or not kind:
        for name, importer in sorted(IMPORTERS.items()):
            console.print(f"{name:<14}{(importer.__doc__ or '').strip().splitlines()[0]}", highlight=False)
        return
    if kind not in IMPORTERS:
        from configs.loader import ConfigurationError, nearest

        raise ConfigurationError(f"no importer is called '{kind}'; {nearest(kind, IMPORTERS)}")
    with Progress(
        TextColumn(kind), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    ) as progress:
        task = progress.add_task(kind, total=None)
        summary = IMPORTERS[kind](
            source,
            destination,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
            **_options(option or []),
        )
    console.print(
        f"{summary.images} images, {summary.captions} captions, {summary.questions} questions in {destination}",
        highlight=False,
    )
    for reason, count in sorted(summary.left_out.items()):
        console.print(f"left out {count}: {reason}", highlight=False)


def _options(pairs: list[str]) -> dict[str, str]:
    return dict(pair.partition("=")[::2] for pair in pairs)


def main() -> None:
    """Run the command line; a fault that has a remedy is one line, not a traceback."""
    from configs.loader import ConfigurationError
    from mumc_model.errors import MumcError
    from protocol.errors import ProtocolError

    try:
        app()
    except (ConfigurationError, MumcError, ProtocolError) as error:
        print(f"mumc-site: {error}", file=sys.stderr)
        sys.exit(2)
