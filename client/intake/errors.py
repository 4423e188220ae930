"""Why something of an archive does not become an image of the site."""

from mumc_model.errors import DataError


class UnusableSourceError(DataError):
    """A file cannot be used; `reason` says why in words that quote nothing of it."""

    def __init__(self, reason: str) -> None:
        """Keep the reason for the counts."""
        super().__init__(f"{reason}; correct the export or leave the file out")
        self.reason = reason
