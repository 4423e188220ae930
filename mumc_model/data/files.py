"""Writing a file so that a crash leaves the old one or the new one, never half."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Replace the file's content in one step; folders are made where needed.

    `durable` waits for the disk, so that the step survives a loss of power as well.
    """
    with replacing(path, durable=durable) as file:
        file.write(content)


@contextmanager
def replacing(path: Path, *, durable: bool = True, ready: Callable[[], object] | None = None) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of the one at the path when the block ends without a fault.

    Before it does, `ready` is called, and may wait for what has to be there first; what it raises leaves the old file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        if ready is not None:
            ready()
        partial.replace(path)
        if durable:
            sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_if_changed(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write only what is new, so that times of change (and what is remembered by them) stay."""
    try:
        if path.read_bytes() == content:
            return
    except OSError:
        pass
    write_atomically(path, content, durable=durable)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the folder's new entries."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
