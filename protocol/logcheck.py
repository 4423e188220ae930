"""What reading a whole log finds: whether it is whole, and if not, at which line, why, and what to do."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from protocol.chainfile import ChainFile
from protocol.errors import ChainError, LogError
from protocol.hashchain import Entry, Head

_HEAD = re.compile(r"(\d{1,12}):([0-9a-f]{64})")


@dataclass(frozen=True, kw_only=True)
class Break:
    """Where a log is not what was written, or does not add up."""

    line: int
    """Of the file, from 1."""
    cause: str
    remedy: str

    def __str__(self) -> str:
        """One line for a person."""
        return f"broken at line {self.line}: {self.cause}"


def read_log(
    log: ChainFile, public: str, anchors: Sequence[Head], remedy: str
) -> tuple[list[Entry], tuple[Break, ...]]:
    """The entries of a log, all verified, or none and where it breaks.

    Args:
        log: The file.
        public: The key that signs it now.
        anchors: Heads of it that the other end remembers.
        remedy: What to do about a break.

    Raises:
        LogError: there is no log, or it cannot be read.
    """
    if not log.path.is_file():
        raise LogError(f"there is no log {log.path}; give the folder of a site or federation that has sent a message")
    try:
        return log.verify(public, *anchors), ()
    except ChainError as error:
        line = 1 + (error.index if error.index is not None else 0)
        return [], (Break(line=line, cause=str(error), remedy=remedy),)


def parse_head(text: str) -> Head:
    """The head that `head_text` wrote.

    Raises:
        LogError: it is none.
    """
    found = _HEAD.fullmatch(text.strip())
    if found is None:
        raise LogError(f"{text[:90]!r} is no head of a log; give COUNT:HASH, as the other end's log verify shows it")
    return Head(count=int(found[1]), hash=found[2])


def head_text(head: Head) -> str:
    """A head as people send it to each other."""
    return f"{head.count}:{head.hash}"
