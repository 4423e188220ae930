"""Why a site does not do what it was asked, beside what its data, disk and privacy rules say."""

from mumc_model.errors import MumcError


class GateError(MumcError):
    """The site's limits do not allow the order; the text holds nothing of its data and is told to the server."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class SiteError(MumcError):
    """The site is not set up for what it is to do; the message says what to run."""


class PageError(MumcError):
    """A page cannot be served as it was asked for, or what was typed into it cannot be used."""
