"""The ledger's file: lines that are on the disk before anyone is told so, under a lock."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.privacy.errors import LedgerError
from protocol.errors import SigningError
from protocol.lock import exclusive
from protocol.signing import new_key, read_private_key, write_private_key

PLACE = Path("state") / "privacy"


class LedgerFile:
    """`state/privacy/ledger.jsonl` of a site's folder, the key that signs its rows, and their lock."""

    def __init__(self, root: Path) -> None:
        self.folder = root / PLACE
        self.rows = self.folder / "ledger.jsonl"
        self.key = self.folder / "ledger.key"

    def exists(self) -> bool:
        """Whether anything was ever kept here."""
        return self.rows.exists() or self.key.exists()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the ledger for a change; the folder is made where it is not there.

        Raises:
            LedgerError: another process holds it for too long.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with exclusive(self.folder / "ledger.lock", LedgerError):
            yield

    def open_key(self) -> Ed25519PrivateKey:
        """The site's key for its ledger, made on first use.

        Raises:
            LedgerError: it cannot be used, or it is gone and rows are there that it signed.
        """
        try:
            if not self.key.exists():
                if self.rows.exists() and self.rows.stat().st_size:
                    raise LedgerError(f"{self.key} is gone, and the rows beside it need it; put it back from a backup")
                write_private_key(self.key, new_key())
            return read_private_key(self.key)
        except SigningError as error:
            raise LedgerError(f"the key of the ledger cannot be used: {error}") from None

    def read(self) -> bytes:
        """All that is in the file; nothing where there is none."""
        return self.rows.read_bytes() if self.rows.exists() else b""

    def append(self, line: bytes) -> None:
        """Add a line, and return once it and the file's name are on the disk."""
        handle = os.open(self.rows, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            while line:
                line = line[os.write(handle, line) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        _sync(self.folder)

    def cut(self, length: int) -> None:
        """Keep the first `length` bytes only."""
        handle = os.open(self.rows, os.O_WRONLY)
        try:
            os.ftruncate(handle, length)
            os.fsync(handle)
        finally:
            os.close(handle)

    def sync(self) -> None:
        """Wait until the disk has everything that another process left behind."""
        _sync(self.rows)
        _sync(self.folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
