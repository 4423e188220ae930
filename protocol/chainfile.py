"""A file of signed, chained lines that only grows: the log of a site or of the server.

A line is on the disk before anyone is told so. Nothing in the file can be changed, left out or cut off unseen by who
knows a later head of it; the two ends of a federation exchange their heads with every message. Where a site takes new
keys into use, a line that both keys have signed hands the log over, so that it stays one chain.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol import hashchain
from protocol.errors import ChainError, LogError, SignatureError, SigningError
from protocol.hashchain import Entry, Head
from protocol.lock import exclusive
from protocol.signing import public_hex, sign, verify

KEY = "key"
"""The kind of the line with which one key hands the log over to the next."""


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
        return self._append(key, lambda head: body)

    def hand_over(self, old: Ed25519PrivateKey, new: Ed25519PrivateKey) -> None:
        """Let `new` sign from here on; both keys sign the line that says so. An empty log needs none.

        Raises:
            ChainError: the last line is not the old key's.
            LogError: the disk refuses, or another process holds the log.
        """

        def change(head: Head) -> Mapping[str, Any]:
            agreed = {"from": public_hex(old), "to": public_hex(new), "lines": head.count, "last": head.hash}
            return {"kind": KEY, **agreed, "agreed": sign(new, self._context + "-key", agreed)}

        if self.head().count and self._last_signer() != public_hex(new):
            self._append(old, change)

    def verify(self, public: str, *anchors: Head) -> list[Entry]:
        """All entries, once each was checked; each anchor is a head of this log that somebody remembers.

        Args:
            public: The key that signs the log now. Earlier ones are those that handed it over.
            anchors: Heads that others remember.

        Raises:
            ChainError: a line was changed, left out, cut off, or signed by another key; it names the first.
            LogError: the file cannot be read.
        """
        entries = self.entries()
        head = Head()
        for key, part in _parts(entries, public):
            head = hashchain.verify_chain(part, key, self._context, head)
            if part and part[-1].get("kind") == KEY:
                self._check_handover(part[-1])
        for anchor in anchors:
            hashchain.check_contains(entries, anchor)
        return entries

    def entries(self) -> list[Entry]:
        """All entries, their signatures not looked at; nothing where there is no file.

        A last line without its end (a crash while writing) was never acknowledged and is left out.

        Raises:
            ChainError: a line is none that was written here.
            LogError: the file cannot be read.
        """
        lines = self._whole().splitlines(keepends=True)
        return [hashchain.from_line(line, number) for number, line in enumerate(lines)]

    def head(self) -> Head:
        """How far the log goes, by its last line.

        Raises:
            ChainError: that line is none that was written here.
        """
        line = self._last_line()
        return hashchain.head_of(hashchain.from_line(line, -1)) if line else Head()

    def _append(self, key: Ed25519PrivateKey, body_after: Callable[[Head], Mapping[str, Any]]) -> Entry:
        try:
            with self._locked():
                head = self._end(public_hex(key))
                entry = hashchain.append(head, {**body_after(head), "time": _now()}, key, self._context)
                self._write(hashchain.to_line(entry))
                return entry
        except LogError:
            raise
        except OSError as error:
            raise LogError(f"the log {self.path} cannot be written ({error.strerror}); make room on its disk") from None

    def _end(self, public: str) -> Head:
        """The head to go on from, the last line verified; a line without its end was never acknowledged and is cut."""
        whole = self._whole()
        if self.path.exists() and len(whole) < self.path.stat().st_size:
            os.truncate(self.path, len(whole))
        line = self._last_line()
        if not line:
            return Head()
        entry = hashchain.from_line(line, -1)
        before = Head(count=entry["index"], hash=entry["previous"])
        if entry.get("kind") == KEY and entry.get("to") == public:
            self._check_handover(entry)
            public = entry["from"]
        return hashchain.verify_chain([entry], public, self._context, before)

    def _check_handover(self, line: Entry) -> None:
        """Return only if the key that a line hands over to has agreed. That the other one signed it is checked apart.

        Raises:
            ChainError: it has not.
        """
        change = {name: line.get(name) for name in ("from", "to", "lines", "last")}
        try:
            verify(str(line.get("to")), self._context + "-key", change, str(line.get("agreed")))
            agreed = (change["lines"], change["last"]) == (line["index"], line["previous"])
        except (SignatureError, SigningError):
            agreed = False
        if not agreed:
            raise ChainError(
                f"entry {line['index']} hands the log over to a key that did not agree to it", line["index"]
            )

    def _last_signer(self) -> str:
        """The key that a handover in the last line names, or nothing."""
        line = self._last_line()
        entry = hashchain.from_line(line, -1) if line else {}
        return str(entry.get("to", "")) if entry.get("kind") == KEY else ""

    def _last_line(self) -> bytes:
        lines = self._whole().splitlines(keepends=True)
        return lines[-1] if lines else b""

    def _whole(self) -> bytes:
        content = self._content()
        return content[: content.rfind(b"\n") + 1]

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
        """Hold the log against other processes."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(self.path.with_suffix(".lock"), LogError):
            yield


def _parts(entries: Sequence[Entry], public: str) -> Iterator[tuple[str, Sequence[Entry]]]:
    """The stretches of a log, each with the key that signs it; the last is signed by `public`.

    Raises:
        ChainError: a log is handed over to another key than the one that follows.
    """
    ends = [number for number, entry in enumerate(entries) if entry.get("kind") == KEY]
    keys = [str(entries[end].get("from")) for end in ends] + [public]
    for end, key in zip(ends, keys[1:], strict=True):
        if entries[end].get("to") != key:
            raise ChainError(f"entry {end} hands the log over to another key than the one that follows it", end)
    starts = [0, *(end + 1 for end in ends)]
    yield from ((key, entries[start:stop]) for key, start, stop in zip(keys, starts, [*starts[1:], None], strict=True))


def contains(entries: list[Entry], anchor: Head) -> bool:
    """Whether a log has gone through this head."""
    try:
        hashchain.check_contains(entries, anchor)
    except ChainError:
        return False
    return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
