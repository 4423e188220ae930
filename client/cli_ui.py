"""The part of `mumc-site` that opens a page in a browser: ui."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.ui.command import Build, page_command

if TYPE_CHECKING:
    import gradio as gr

app = typer.Typer(rich_markup_mode=None)


@page_command(app)
def ui(
    site: Annotated[Path, typer.Argument(help="Site folder.")],
    model: Annotated[
        Path | None, typer.Option(help="Answering model to ask; without it, what this site's own finetune left.")
    ] = None,
) -> Build:
    """Open the site's workbench as a page: ask about studies, see where the model looked, training and federation.

    It is served on this machine only, unless there are a login and TLS. Every question stands in the site's log.
    Research software: no diagnosis.
    """
    from client.config import read_site_config

    root = site.resolve()
    read_site_config(root)

    def build() -> "gr.Blocks":
        from client.ui.workbench.page import workbench

        return workbench(root, model.resolve() if model else None)

    return build
