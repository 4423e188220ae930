"""`mumc-site`: what an engineer at a hospital types."""

import os
import sys

import typer

from client import cli_ask, cli_card, cli_check, cli_import, cli_join, cli_log, cli_report, cli_start, cli_ui, cli_vqa

app = typer.Typer(
    help="Run a hospital's side of a federation: for the engineer at the hospital.",
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)


app.registered_commands += cli_join.app.registered_commands
app.registered_commands += cli_import.app.registered_commands
app.registered_commands += cli_card.app.registered_commands
app.registered_commands += cli_check.app.registered_commands
app.registered_commands += cli_start.app.registered_commands
app.registered_commands += cli_vqa.app.registered_commands
app.registered_commands += cli_ask.app.registered_commands
app.registered_commands += cli_report.app.registered_commands
app.registered_commands += cli_ui.app.registered_commands
app.add_typer(cli_import.quarantine, name="quarantine", no_args_is_help=True)
app.add_typer(cli_log.app, name="log", no_args_is_help=True)


@app.callback()
def site() -> None:
    """Whatever a command writes, its owner alone can read: data, state and logs are about patients."""
    os.umask(0o077)


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
