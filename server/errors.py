"""What can go wrong at the aggregator."""

import errno
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.journal import RoundRecord


class ServerError(Exception):
    """Base of every error that the server raises on purpose."""


class FederationError(ServerError):
    """Too few sites came, or too few of their updates could be merged; the message names the sites that were lost."""


class VoidRoundError(FederationError):
    """An attempt at a round came to nothing, and the weights are as before.

    `over` says that the round is not tried again: under masks, sites have revealed what opens its sum.
    """

    def __init__(self, message: str, record: "RoundRecord", *, over: bool) -> None:
        super().__init__(message)
        self.record, self.over = record, over


class OutputError(ServerError):
    """The output folder holds another run, or the disk refuses; what was saved last is still whole."""


class CardError(ServerError):
    """A model card cannot be made or believed; the message names what is wrong with it."""


class DataCardError(ServerError):
    """A site's data card is not taken in; the message says whose it is, and why."""


class FolderError(ServerError):
    """The federation's folder is missing, damaged, held by another command, or does not know the site."""


class ControlError(ServerError):
    """The SuperLink does not answer, or refuses what the operator's command asks."""


def disk_error(place: Path, error: OSError) -> OutputError:
    """What to raise where writing under `place` failed: it names the disk, how full it is, and what to do."""
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    usage = shutil.disk_usage(there)
    remedy = {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "free some space, or ask for a larger quota",
        errno.EROFS: "mount it for writing",
    }.get(error.errno or 0, "look after the disk")
    return OutputError(
        f"{place} cannot be written: {error.strerror} ({usage.free / 1e9:.2f} of {usage.total / 1e9:.2f} GB free); the "
        f"last checkpoint stands: {remedy}, and go on with --resume"
    )
