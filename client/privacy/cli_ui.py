"""The part of `mumc-privacy` that opens a page: ui."""

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
    site: Annotated[Path | None, typer.Option(help="Site folder: its ledger, and whose policy is approved.")] = None,
    runs: Annotated[
        Path | None, typer.Option(help="Folder of past mumc-sim runs, for what privacy cost there; by default outputs.")
    ] = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 0,
    users: UsersOption = None,
    add_user: AddUserOption = "",
    certificate: CertificateOption = None,
    certificate_key: CertificateKeyOption = None,
) -> None:
    """Open a page to plan, follow, sign and audit a budget, on this machine. Nothing is fetched from elsewhere."""
    from client.ui.serve import open_page

    address = Address(host=host, port=port, users=users, certificate=certificate, certificate_key=certificate_key)

    def build() -> "gr.Blocks":
        from client.ui.officer.page import build as build_page

        return build_page(site, runs)

    open_page(build, address, add_user)
