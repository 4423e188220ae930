"""A command that opens a page: its own words, and behind them the options that all pages have. No Gradio."""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from client.ui.address import Address

if TYPE_CHECKING:
    import gradio as gr

Build = Callable[[], "gr.Blocks"]
"""What makes the page, once Gradio is needed."""


def page_command(app: typer.Typer) -> Callable[[Callable[..., Build]], Callable[..., None]]:
    """A decorator: the function becomes a command of `app`; what it returns is served where the page's options say."""

    def decorate(prepare: Callable[..., Build]) -> Callable[..., None]:
        @wraps(prepare)
        def command(**words: Any) -> None:
            from client.ui.serve import open_page

            address, add_user = _options(**{name: words.pop(name) for name in OPTIONS})
            open_page(prepare(**words), address, add_user)

        own = inspect.signature(prepare).parameters
        parameters = [*own.values(), *OPTIONS.values()]
        # Typer reads the words of a command off both of these.
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return app.command()(command)

    return decorate


def _options(
    host: Annotated[str, typer.Option(help="Where to listen; beyond loopback with --users and --certificate.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="0 takes any that is free.")] = 0,
    users: Annotated[Path | None, typer.Option(help="File of who may log in; without it nobody is asked.")] = None,
    add_user: Annotated[str, typer.Option(help="Ask for a password, add this name to --users, and end.")] = "",
    certificate: Annotated[Path | None, typer.Option(help="TLS certificate, PEM; with --certificate-key.")] = None,
    certificate_key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
) -> tuple[Address, str]:
    """Where the page is served, and the user to be added instead, if any."""
    address = Address(host=host, port=port, users=users, certificate=certificate, certificate_key=certificate_key)
    return address, add_user


OPTIONS = inspect.signature(_options).parameters
"""The options of a page by their names."""
