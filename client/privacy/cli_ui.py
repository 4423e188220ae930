"""The part of `mumc-privacy` that opens a page: ui."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.ui.command import Build, page_command

if TYPE_CHECKING:
    import gradio as gr

app = typer.Typer(rich_markup_mode=None)


@page_command(app)
def ui(
    site: Annotated[Path | None, typer.Option(help="Site folder: its ledger, and whose policy is approved.")] = None,
    runs: Annotated[
        Path | None, typer.Option(help="Folder of past mumc-sim runs, for what privacy cost there; by default outputs.")
    ] = None,
) -> Build:
    """Open a page to plan, follow, sign and audit a budget, on this machine. Nothing is fetched from elsewhere."""

    def build() -> "gr.Blocks":
        from client.ui.officer.page import build as build_page

        return build_page(site, runs)

    return build
