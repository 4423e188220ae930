"""Files that hold a secret: their owner alone reads them, and they appear whole or not at all."""

import os
from pathlib import Path

from protocol.errors import SigningError

PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700
MAX_SECRET_BYTES = 1 << 16


def write_secret(path: Path, content: bytes, *, replace: bool = False) -> None:
    """Keep a secret in a file that its owner alone can read; it is on the disk when this returns.

    Raises:
        SigningError: the file is there already, and is not to be replaced.
    """
    if path.exists() and not replace:
        raise SigningError(f"{path} is there already, and a key is never overwritten; choose another name")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def read_secret(path: Path, most: int = MAX_SECRET_BYTES) -> bytes:
    """What `write_secret` kept, up to `most` bytes of it.

    Raises:
        SigningError: there is none, or others than its owner can read it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            content = file.read(most)
    except OSError:
        raise SigningError(f"{path} cannot be read; give the file of a private key") from None
    if mode & 0o077:
        raise SigningError(f"{path} has mode {mode:o}, so that others can use the key; run: chmod 600 {path}")
    return content


def make_private_folder(path: Path) -> None:
    """The folder, which its owner alone may enter; folders above it are made where needed."""
    path.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    path.chmod(PRIVATE_FOLDER)


def erase(path: Path) -> None:
    """Remove a secret. Its bytes are overwritten first, which is worth what the disk makes of it."""
    if path.is_file() and not path.is_symlink():
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
            file.flush()
            os.fsync(file.fileno())
    path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the folder's new entries."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
