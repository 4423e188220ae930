"""A ledger's verified rows, in memory and on the disk: the file, its chain, and this machine's registry together."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.privacy.errors import LedgerError, PolicyError
from client.privacy.ledger_book import Book
from client.privacy.ledger_file import LedgerFile
from client.privacy.ledger_rows import row
from client.privacy.registry import Registry
from protocol import hashchain
from protocol.errors import ChainError
from protocol.hashchain import Entry, Head
from protocol.signing import public_hex

CONTEXT = "privacy-ledger"


class LedgerStore:
    """The rows as they were when this object last held the lock."""

    def __init__(self, root: Path) -> None:
        self.file, self.registry = LedgerFile(root), Registry.here()
        self.key: Ed25519PrivateKey | None = None
        """The site's key for its ledger; None before the first row."""
        self.book = Book()
        self.head = Head()
        self.entries: list[Entry] = []
        self._seen = b""
        """What of the file was verified: only what follows it is looked at again."""

    @contextmanager
    def changing(self) -> Iterator[Ed25519PrivateKey]:
        """Hold the ledger and the registry, with everything that other processes wrote read and verified.

        Raises:
            LedgerError: the rows are not to be trusted, cannot be read or written, or are held for too long.
        """
        try:
            with self.file.locked(), self.registry.locked():
                self.key = self.file.open_key()
                self._refresh(public_hex(self.key))
                yield self.key
        except OSError as error:
            raise LedgerError(
                f"the ledger or its registry cannot be read or written ({error.strerror}: {error.filename}); "
                "make room on the disk, or correct who owns the file"
            ) from None

    def _refresh(self, public: str) -> None:
        content = self.file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if not whole.startswith(self._seen) or self.book.ledger != public:
            self._forget(public)
        known = self.registry.head(public)
        try:
            self._take_in(whole, public)
            hashchain.check_contains(self.entries, known or Head())
        except (ChainError, PolicyError) as error:
            self._forget()
            raise LedgerError(
                f"the ledger {self.file.rows} is not to be trusted, and nothing is charged: {error}"
            ) from None
        except BaseException:
            self._forget()
            raise
        if torn := content[len(whole) :]:
            # A line without its end was never acknowledged: its writer was killed inside the write.
            self.file.cut(len(whole))
            self.append(row("recovered", bytes=len(torn), digest=hashlib.sha256(torn).hexdigest()))
        elif known != self.head and self.entries:
            self.file.sync()
            self.registry.keep_head(public, self.head)

    def _take_in(self, whole: bytes, public: str) -> None:
        lines = whole[len(self._seen) :].splitlines(keepends=True)
        start = len(self.entries)
        entries = [hashchain.from_line(line, start + number) for number, line in enumerate(lines)]
        self.head = hashchain.verify_chain(entries, public, CONTEXT, self.head)
        for entry in entries:
            self.book.apply(entry)
        self.entries += entries
        self._seen = whole

    def append(self, body: dict[str, Any]) -> Entry:
        """Write a row durably: first the ledger, then the registry, which so is never ahead."""
        assert self.key is not None, "rows are appended under the lock only"
        self.book.check(body)
        entry = hashchain.append(self.head, body, self.key, CONTEXT)
        line = hashchain.to_line(entry)
        self.file.append(line)
        self.book.apply(entry)
        self.entries.append(entry)
        self._seen += line
        self.head = hashchain.head_of(entry)
        self.registry.keep_head(public_hex(self.key), self.head)
        return entry

    def _forget(self, public: str = "") -> None:
        self.book, self.head, self.entries, self._seen = Book(public), Head(), [], b""
