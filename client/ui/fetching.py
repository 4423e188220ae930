"""Gradio's downloads, taken out: a page fetches nothing, whatever a request asks for."""

from typing import NoReturn

from gradio import processing_utils

from client.errors import PageError

DOWNLOADS = ("ssrf_protected_download", "save_url_to_cache", "unsafe_download")
DOWNLOADS_AWAITED = ("async_ssrf_protected_get", "async_ssrf_protected_download")


def forbid_downloads() -> None:
    """Replace every function of Gradio that downloads, for the life of this process.

    A request that is made by hand may name a web address where a browser names its upload. Gradio would look it up and
    fetch it, at the will of whoever can open the page, from a machine that holds patients' data.

    Raises:
        PageError: this Gradio has other functions, so that nobody knows whether it downloads.
    """
    for name in (*DOWNLOADS, *DOWNLOADS_AWAITED):
        if not callable(getattr(processing_utils, name, None)):
            raise PageError(f"this Gradio has no {name} to be taken out; run: pip install 'fedmumc[ui]'")
        setattr(processing_utils, name, _refuse_awaited if name in DOWNLOADS_AWAITED else _refuse)


def _refuse(*_: object, **__: object) -> NoReturn:
    raise PageError("a page fetches nothing from elsewhere; choose a file of this machine")


async def _refuse_awaited(*_: object, **__: object) -> NoReturn:
    _refuse()
