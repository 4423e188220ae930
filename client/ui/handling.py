"""What a page does when something is wrong: it says so in a sentence, keeps all as it was, and shows no trace."""

import logging
import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import gradio as gr

from client.errors import PageError
from client.ui.look import alert
from configs.loader import ConfigurationError
from mumc_model.errors import MumcError
from protocol.errors import ProtocolError

log = logging.getLogger(__name__)

Updates = dict[gr.Component, Any]
"""New values of some components; the others stay as they are."""
MODEL_LANE = "model"
"""Handlers with this `concurrency_id` go one after another, in the order of asking: it is one model that they use."""


def faults_at(place: gr.Markdown) -> Callable[[Callable[..., Updates]], Callable[..., Updates]]:
    """A decorator for handlers: a fault is said at `place`, which a handler that says nothing there empties."""

    def decorate(handler: Callable[..., Updates]) -> Callable[..., Updates]:
        @wraps(handler)
        def handled(*values: Any) -> Updates:
            try:
                return {place: "", **handler(*values)}
            except (ConfigurationError, MumcError, ProtocolError) as error:
                return {place: alert(str(error))}
            except Exception:
                # The terminal belongs to whoever started the page; the page may be looked at by others.
                log.exception("a handler of the page failed")
                return {place: alert("this did not work, through a fault of the program; the terminal says more")}

        return handled

    return decorate


def answer_directly(page: gr.Blocks) -> None:
    """Have handlers answer the request that asks for them, except in the model's lane and where progress is shown.

    Gradio's other way is one stream for all answers to a visitor, which is closed once none is awaited. On a busy
    machine a browser may hear of that only after it has asked for something else, and then waits for ever.
    """
    for handler in page.fns.values():
        handler.queue = handler.tracks_progress or handler.concurrency_id == MODEL_LANE


def number(value: float | None, name: str, *, least: float | None = None, most: float | None = None) -> float:
    """A number that was typed.

    Raises:
        PageError: there is none, or it lies outside.
    """
    if value is None or value != value:
        raise PageError(f"{name} is empty; type a number")
    if math.isinf(value):
        raise PageError(f"{name} is infinite; type a number")
    if least is not None and value < least:
        raise PageError(f"{name} is {value:g}; choose at least {least:g}")
    if most is not None and value > most:
        raise PageError(f"{name} is {value:g}; choose at most {most:g}")
    return value


def whole(value: float | None, name: str, *, least: int | None = None, most: int | None = None) -> int:
    """A whole number that was typed.

    Raises:
        PageError: there is none, it has a fraction, or it lies outside.
    """
    found = number(value, name, least=least, most=most)
    if found != int(found):
        raise PageError(f"{name} is {found:g}; type a whole number")
    return int(found)
