"""A file of signed, chained lines that only grows: the log of a site or of the server.

A line is on the disk before anyone is told so. Nothing in the file can be changed, left out or cut off unseen by who
knows a later head of it; the two ends of a federation exchange their heads with every message.
"""

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol import hashchain
from protocol.errors import ChainError, LogError
from protocol.hashchain import Entry, Head
from protocol.signing import public_hex

PATIENCE_S = 30.0
_PAUSE_S = 0.01


class ChainFile:
    """An append-only log.

    Args:
        path: The file, of JSON lines.
        context: What kind of log it is; signed with every line.
    """

    def __init__(self, path: Path, context: str) -> None:
        self.path, self._context = path, context

    def append(self, key: Ed25519PrivateKey, body: Mapping[str, Any]) -> Entry:
        """The entry that was added for this body, with the time; it is on the disk.

        Raises:
            ChainError: the last line is not this key's; nothing is added to a log that was tampered with.
            LogError: the disk refuses, or another process holds the log.
        """
        try:
            with self._locked():
                entry = hashchain.append(self._end(public_hex(key)), {**body, "time": _now()}, key, self._context)
                self._write(hashchain.to_line(entry))
                return entry
        except OSError as error:
            raise LogError(f"the log {self.path} cannot be written ({error.strerror}); make room on its disk") from None

    def verify(self, public: str, *anchors: Head) -> list[Entry]:
        """All entries, once each was checked; each anchor is a head of this log that somebody remembers.

        Raises:
            ChainError: a line was changed, left out, cut off, or signed by another key; it names the first.
            LogError: the file cannot be read.
        """
        entries = self.entries()
        hashchain.verify_chain(entries, public, self._context)
        for anchor in anchors:
            hashchain.check_contains(entries, anchor)
        return entries

    def entries(self) -> list[Entry]:
        """All entries, their signatures not looked at; nothing where there is no file.

        Raises:
            ChainError: a line is none that was written here.
            LogError: the file cannot be read.
        """
        lines = self._content().splitlines(keepends=True)
        return [hashchain.from_line(line, number) for number, line in enumerate(lines)]

    def head(self) -> Head:
        """How far the log goes, by its last line.

        Raises:
            ChainError: that line is none that was written here.
        """
        line = self._last_line()
        return hashchain.head_of(hashchain.from_line(line, -1)) if line else Head()

    def _end(self, public: str) -> Head:
        """The head to go on from, the last line verified; a line without its end was never acknowledged and is cut."""
        content = self._content()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))
        line = self._last_line()
        if not line:
            return Head()
        entry = hashchain.from_line(line, -1)
        before = Head(count=entry["index"], hash=entry["previous"])
        return hashchain.verify_chain([entry], public, self._context, before)

    def _last_line(self) -> bytes:
        lines = self._content().splitlines(keepends=True)
        return lines[-1] if lines else b""

    def _content(self) -> bytes:
        try:
            return self.path.read_bytes() if self.path.exists() else b""
        except OSError as error:
            raise LogError(f"the log {self.path} cannot be read ({error.strerror}); correct who owns it") from None

    def _write(self, line: bytes) -> None:
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            while line:
                line = line[os.write(handle, line) :]
            os.fsync(handle)
        finally:
            os.close(handle)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the log against other processes; the system lets go when a process ends, however it ends."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + PATIENCE_S
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise LogError(f"another process has held the log {self.path} for {PATIENCE_S:g} s") from None
                    time.sleep(_PAUSE_S)
            yield
        finally:
            os.close(handle)


def contains(entries: list[Entry], anchor: Head) -> bool:
    """Whether a log has gone through this head."""
    try:
        hashchain.check_contains(entries, anchor)
    except ChainError:
        return False
    return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
