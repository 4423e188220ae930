"""Which sources an import has stored already, so that the same command goes on where it was cut short.

The journal is a file of the site's own folder, `state/import-<source>.jsonl`: one line an image, with a digest of what
the source was, a digest of the file that was stored, and the file's suffix. It holds no name and no path. It is kept
after the import, because a second import of an unchanged archive then decodes nothing. A source that changed has
another digest and is stored anew, and so is one whose stored file is gone or altered. Images that could not be read are
not remembered: they are tried again.
"""

import hashlib
import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from mumc_model.data.lines import bounded_lines, write_lines_if_changed

Source = Path | bytes | Image.Image
"""An image to store: a file, the content of one, or pixels."""
FORM = 1
"""Raised when images are stored in another form than before, so that older lines count no more."""
DIGEST_BYTES = 16
SUFFIXES = (".png", ".jpg")
MAX_LINE_BYTES = 256


class Stored(NamedTuple):
    """The file that a source became."""

    suffix: str
    digest: bytes


class ImportJournal:
    """What earlier imports stored; each line is written at once, so that it outlives the process."""

    def __init__(self, path: Path) -> None:
        """Nothing is read before it is asked for."""
        self._path = path
        self._stored: dict[bytes, Stored] | None = None
        self._appends = False
        self._lock = threading.Lock()

    def find(self, mark: bytes) -> Stored | None:
        """What the source with this mark became, if it was ever stored."""
        with self._lock:
            return self._known().get(mark)

    def note(self, mark: bytes, stored: Stored) -> None:
        """The source with this mark is stored.

        Raises:
            OSError: the journal cannot be written.
        """
        with self._lock:
            self._known()[mark] = stored
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._path, "ab", buffering=0, opener=_private) as file:
                # A line that a kill cut short must not swallow the one after it.
                file.write((b"" if self._appends else b"\n") + _line(mark, stored))
            self._appends = True

    def keep(self, marks: Iterable[bytes]) -> None:
        """Forget all but these: what was withdrawn from the archive leaves no trace here either.

        Raises:
            OSError: the journal cannot be written.
        """
        with self._lock:
            known = self._known()
            kept = {mark: known[mark] for mark in sorted(marks) if mark in known}
            if self._appends or len(kept) != len(known):
                write_lines_if_changed(self._path, lambda: (_line(*item) for item in kept.items()))
                self._path.chmod(0o600)
            self._stored, self._appends = kept, False

    def _known(self) -> dict[bytes, Stored]:
        if self._stored is None:
            self._stored = _read(self._path)
        return self._stored


def identity_of(source: Source) -> bytes:
    """What tells one source from another; a file is told by place, size and times, without reading it.

    Raises:
        OSError: the file cannot be looked at.
    """
    if isinstance(source, bytes):
        return content_digest(source)
    if isinstance(source, Image.Image):
        return content_digest(f"{source.mode} {source.size}\0".encode() + source.tobytes())
    status = source.stat()
    # The time of the last change to the inode also sees content that was replaced under an old time stamp.
    seen = f"\0{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}".encode()
    return content_digest(_encoded(str(source.absolute())) + seen)


def content_digest(content: bytes) -> bytes:
    """16 bytes that stand for the content."""
    return hashlib.sha256(content).digest()[:DIGEST_BYTES]


def mark_of(identity: bytes, name: str, max_side: int) -> bytes:
    """What a source is remembered by: it, under this name, stored in this size."""
    return content_digest(f"{FORM} {max_side} {identity.hex()} ".encode() + _encoded(name))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _line(mark: bytes, stored: Stored) -> bytes:
    row = {"source": mark.hex(), "stored": stored.digest.hex(), "suffix": stored.suffix}
    return json.dumps(row).encode() + b"\n"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _read(path: Path) -> dict[bytes, Stored]:
    """The lines that are whole; whatever else stands in the file costs work and nothing more."""
    found: dict[bytes, Stored] = {}
    try:
        for _, line in bounded_lines(path, MAX_LINE_BYTES):
            if line and (row := _parse(line)):
                found[row[0]] = row[1]
    except OSError:
        return {}
    return found


def _parse(line: bytes) -> tuple[bytes, Stored] | None:
    try:
        row = json.loads(line)
        mark, digest = bytes.fromhex(row["source"]), bytes.fromhex(row["stored"])
        suffix = SUFFIXES[SUFFIXES.index(row["suffix"])]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return (mark, Stored(suffix, digest)) if len(mark) == len(digest) == DIGEST_BYTES else None
