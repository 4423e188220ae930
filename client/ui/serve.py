"""A page, served: on loopback unless there are a login and TLS, without a word to anyone else."""

import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from client.errors import PageError
from client.ui.address import Address
from client.ui.users import Users, Visitors, add_user

if TYPE_CHECKING:
    import gradio as gr
    from fastapi import FastAPI

LOGIN = "This page belongs to one site. Your name stands in its log with everything you do here."


def open_page(build: "Callable[[], gr.Blocks]", address: Address, add: str = "") -> None:
    """Serve the page that `build` makes until it is interrupted; or add a user to its file and end.

    Raises:
        PageError: Gradio is not installed, the address cannot be had, or its files cannot be used.
    """
    if add:
        _ask_and_add(address.users, add)
        return
    users = None if address.users is None else Users(address.users)
    _keep_quiet()
    # Whoever ends the page otherwise than with Ctrl-C would leave what was uploaded behind.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with address.listen() as listening, tempfile.TemporaryDirectory(prefix="fedmumc-page-") as scratch:
        # Uploaded studies lie there, for their owner alone, and are gone when the page is.
        os.environ["GRADIO_TEMP_DIR"] = scratch
        _serve(build, address, listening.getsockname()[1], users, listening.fileno())


def _serve(build: "Callable[[], gr.Blocks]", address: Address, port: int, users: Users | None, descriptor: int) -> None:
    """Answer on the socket until it is interrupted."""
    try:
        import uvicorn

        from client.ui.door import Door
        from client.ui.fetching import forbid_downloads
    except ImportError:
        raise PageError("the pages need Gradio, which is not installed; run: pip install 'fedmumc[ui]'") from None
    forbid_downloads()
    blocks = build()
    # On loopback every account of the machine can connect: whoever was told the address is let in, as with Jupyter.
    key = secrets.token_urlsafe(32) if users is None else ""
    config = uvicorn.Config(
        Door(_mounted(blocks, address, port, users), address, port, key),
        # Python's own loop tells audit hooks of every name and connection that is asked for; uvloop would not.
        loop="asyncio",
        log_level="warning",
        access_log=False,
        server_header=False,
        ssl_certfile=address.certificate,
        ssl_keyfile=None if address.certificate_key is None else str(address.certificate_key),
        timeout_graceful_shutdown=2,
        # A request on a connection that is just being given up is lost: one is kept for longer than people pause.
        timeout_keep_alive=120,
    )
    typer.echo(f"{blocks.title}: {address.url(port, key)}\nCtrl-C ends it")
    config.fd = descriptor
    uvicorn.Server(config).run()


def _mounted(blocks: "gr.Blocks", address: Address, port: int, users: Users | None) -> "FastAPI":
    """Gradio's program with the page in it, which asks for a login where there are users."""
    import fastapi
    import gradio as gr

    from client.ui.handling import answer_directly
    from client.ui.look import CSS, THEME

    answer_directly(blocks)
    page: FastAPI = gr.mount_gradio_app(
        fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        blocks,
        path="/",
        server_name=address.host,
        server_port=port,
        auth=None if users is None else users.check,
        auth_message=LOGIN,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        footer_links=[],
        max_file_size="64mb",
        theme=THEME,
        css=CSS,
    )
    if users is not None:
        below = (getattr(route, "app", None) for route in page.routes)
        (mounted,) = (app for app in below if isinstance(app, gr.routes.App))
        mounted.tokens = Visitors(users)
    # Until then Gradio takes any path in a request for an upload, and hands out a copy of the file.
    blocks.has_launched = True
    return page


def _keep_quiet() -> None:
    """Gradio and what it brings along phone home unless they are told not to, when they are imported."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_HUB_OFFLINE"] = "1"


def _ask_and_add(path: Path | None, name: str) -> None:
    if path is None:
        raise PageError("--add-user needs the file that the user goes to; give --users FILE")
    password = typer.prompt(f"password of {name}", hide_input=True, confirmation_prompt=True, err=True)
    add_user(path, name, password)
    typer.echo(f"{name} may log in; the file is {path}")
