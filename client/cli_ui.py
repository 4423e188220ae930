"""The part of `mumc-site` that opens a page in a browser: ui."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.ui.address import (
    Address,
    AddUserOption,
    CertificateKeyOption,
    CertificateOption,
    HostOption,
    PortOption,
    UsersOption,
)

if TYPE_CHECKING:
    import gradio as gr

app = typer.Typer(rich_markup_mode=None)


@app.command()
def ui(
    site: Annotated[Path, typer.Argument(help="Site folder.")],
    model: Annotated[
        Path | None, typer.Option(help="Answering model to ask; without it, what this site's own finetune left.")
    ] = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 0,
    users: UsersOption = None,
    add_user: AddUserOption = "",
    certificate: CertificateOption = None,
    certificate_key: CertificateKeyOption = None,
) -> None:
    """Open the site's workbench as a page: ask about studies, see where the model looked, training and federation.

    It is served on this machine only, unless there are a login and TLS. Every question stands in the site's log.
    Research software: no diagnosis.
    """
    from client.config import read_site_config
    from client.ui.serve import open_page

    address = Address(host=host, port=port, users=users, certificate=certificate, certificate_key=certificate_key)
    root = site.resolve()
    read_site_config(root)

    def build() -> "gr.Blocks":
        from client.ui.workbench.page import workbench

        return workbench(root, model.resolve() if model else None)

    open_page(build, address, add_user)
