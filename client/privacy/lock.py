"""One process at a time, also when the one before was killed."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from client.privacy.errors import LedgerError

PATIENCE_S = 60.0
PAUSE_S = 0.01


@contextmanager
def exclusive(path: Path, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Hold the lock of that file; the system lets it go when the process ends, however it ends.

    Raises:
        LedgerError: another process holds it for longer than `patience_s`.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _wait_for(handle, path, time.monotonic() + patience_s)
        yield
    finally:
        os.close(handle)


def _wait_for(handle: int, path: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise LedgerError(
                    f"another process has held {path} for too long; see what it does, or end it"
                ) from None
            time.sleep(PAUSE_S)
