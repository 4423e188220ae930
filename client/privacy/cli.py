"""`mumc-privacy`: what a privacy officer types."""

import sys

import typer

from client.privacy import cli_audit, cli_ledger, cli_plan, cli_report, cli_ui

APPS = (cli_plan.app, cli_ledger.app, cli_audit.app, cli_report.app, cli_ui.app)
"""The commands, a module for each part of them."""

app = typer.Typer(
    help="Set, follow and sign a differential-privacy budget: for the privacy officer.",
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)

for part in APPS:
    app.registered_commands += part.registered_commands


@app.callback()
def privacy() -> None:
    """Keep `mumc-privacy` a group of commands."""


def main() -> None:
    """Run the command line; a fault that has a remedy is one line, not a traceback."""
    from configs.loader import ConfigurationError
    from mumc_model.errors import MumcError
    from protocol.errors import ProtocolError

    try:
        app()
    except (ConfigurationError, MumcError, ProtocolError) as error:
        print(f"mumc-privacy: {error}", file=sys.stderr)
        sys.exit(2)
