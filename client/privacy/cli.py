"""`mumc-privacy`: what a privacy officer types."""

import typer

app = typer.Typer(
    help=(
        "Set, follow and sign a differential-privacy budget: for the privacy officer. This release trains without "
        "differential privacy, so it has no commands yet: what leaves a site are the differences of the encoder "
        "weights, the mean losses and the accuracies; see docs/privacy.md."
    ),
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    invoke_without_command=True,
)


@app.callback(invoke_without_command=True)
def privacy(context: typer.Context) -> None:
    """Show the help: there is nothing else yet."""
    typer.echo(context.get_help())


def main() -> None:
    """Run the command line."""
    app()
