"""The part of `mumc-site` for a hospital's board: report."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(rich_markup_mode=None)


@app.command()
def report(
    site: Annotated[Path, typer.Argument(help="Site folder.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write to; by default state/board at the site.")] = None,
    federated: Annotated[
        Path | None,
        typer.Option(
            help="What `evaluate --out` wrote of the federated model, or a run's folder in state/runs; by default the "
            "site's last evaluation, or else its newest run."
        ),
    ] = None,
    local: Annotated[
        Path | None,
        typer.Option(
            help="What `evaluate --out` wrote of a model that no federation has trained; by default "
            "state/evaluation-local, where it is there."
        ),
    ] = None,
) -> None:
    """Write one page for the hospital's board, HTML and PDF: was joining worth it, what it took, and what is not known.

    Prices come from `board:` in site.yaml alone. The page is about this hospital, and for it.
    """
    from client.board.site import of_site
    from client.board.verdict import findings
    from client.board.write import write_board

    facts = of_site(site, datetime.now(UTC).date().isoformat(), federated, local)
    html, pdf = write_board(facts, out or site / "state" / "board")
    for line in findings(facts):
        typer.echo(line)
    typer.echo(f"for the board: {html} and {pdf.name}")
