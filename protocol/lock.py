"""One process at a time, also when the one before was killed."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 60.0
_PAUSE_S = 0.01


@contextmanager
def exclusive(path: Path, error: Callable[[str], Exception], patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Hold the lock of that file; the system lets it go when the process ends, however it ends.

    Raises:
        Exception: the one that `error` makes of a text, where another process holds it for longer than `patience_s`.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + patience_s
        while not _taken(handle):
            if time.monotonic() > deadline:
                raise error(f"another process has held {path} for {patience_s:g} s; see what it does, or end it")
            time.sleep(_PAUSE_S)
        yield
    finally:
        os.close(handle)


def _taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
