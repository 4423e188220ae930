"""The files of an export, one after another: folders and zips, whatever hostile or broken thing lies among them.

Nothing is unpacked to the disk, no link is followed, and nothing is read here but folders and tables of contents.
"""

import os
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from client.intake.config import IntakeConfig
from client.intake.errors import UnusableSourceError

LINK, NO_FILE = "a link, which is not followed", "neither a file nor a folder"
UNREADABLE, TOO_LARGE, EMPTY = "cannot be read", "larger than intake.max_file_mib", "empty file"
BROKEN_ZIP, NESTED, ENCRYPTED = "a zip that is broken", "a zip in a zip", "encrypted in its zip"
OUTSIDE, BOMB = "its name in the zip leads elsewhere", "unpacks to far more than it is"
ZIP_TOO_LARGE = "a zip that unpacks to more than intake.max_archive_gib"
UNNAMEABLE = "a name that is not Unicode"
TOO_MANY = "beyond intake.max_files"

BOMB_RATIO, BOMB_BYTES = 1000, 64 << 20
"""Nothing that a scanner makes shrinks a thousandfold and is still this large."""
_UNIX = 3


@dataclass(frozen=True)
class Source:
    """One file of an export, on the disk or in a zip. It can be sent to another process."""

    path: Path
    """The file, or the zip that holds it."""
    member: str
    """Its name in the zip; empty for a file on the disk."""
    name: str
    """Its path in the export. For the site's own eyes: exports are often sorted by the names of patients."""
    size: int
    """Bytes, unpacked."""
    stamp: str
    """Changes when the content does: size with time of change, or with checksum."""

    def read(self, config: IntakeConfig) -> bytes:
        """The whole content.

        Raises:
            UnusableSourceError: it cannot be read, or is larger than allowed or than it says.
        """
        most = config.max_file_mib << 20
        try:
            if self.member:
                with _zip(self.path, self.path.stat().st_mtime_ns).open(self.member) as file:
                    content = file.read(most + 1)
            else:
                # Between the walk and now the file may have become a link.
                handle = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                with os.fdopen(handle, "rb") as file:
                    content = file.read(most + 1)
        except Exception:  # What a broken zip raises is any of a dozen kinds, some quoting it.
            raise UnusableSourceError(UNREADABLE) from None
        if len(content) > most:
            raise UnusableSourceError(TOO_LARGE)
        return content


@dataclass(frozen=True)
class Left:
    """A file that is left out, and why."""

    name: str
    reason: str


def walk(root: Path, config: IntakeConfig) -> Iterator[Source | Left]:
    """Every file of a folder, of the zips in it, or of the one zip that `root` is, in the order of their names."""
    found = _zip_members(root, root.name, config) if root.is_file() else _folder(root, config)
    for count, item in enumerate(found):
        if count >= config.max_files:
            yield Left(item.name, TOO_MANY)
            return
        yield item


def _folder(root: Path, config: IntakeConfig) -> Iterator[Source | Left]:
    # With a stack of its own, since folders may be nested deeper than Python calls may.
    levels = [_entries(root, "")]
    while levels:
        item = next(levels[-1], None)
        if item is None:
            levels.pop()
        elif isinstance(item, Left):
            yield item
        elif stat.S_ISDIR(item[2].st_mode):
            levels.append(_entries(Path(item[0]), item[1]))
        else:
            yield from _file(Path(item[0]), *item[1:], config)


def _entries(folder: Path, name: str) -> Iterator[tuple[str, str, os.stat_result] | Left]:
    """Path, name in the export and facts of all that is in a folder."""
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError:
        yield Left(name, UNREADABLE)
        return
    for entry in entries:
        inside = f"{name}/{entry.name}" if name else entry.name
        try:
            inside.encode()
            yield entry.path, inside, entry.stat(follow_symlinks=False)
        except UnicodeEncodeError:
            yield Left(inside.encode("utf-8", "replace").decode(), UNNAMEABLE)
        except OSError:
            yield Left(inside, UNREADABLE)


def _file(path: Path, name: str, facts: os.stat_result, config: IntakeConfig) -> Iterator[Source | Left]:
    if stat.S_ISLNK(facts.st_mode):
        yield Left(name, LINK)
    elif not stat.S_ISREG(facts.st_mode):
        yield Left(name, NO_FILE)
    elif path.name.lower().endswith(".zip"):
        yield from _zip_members(path, name, config)
    else:
        yield _sized(Source(path, "", name, facts.st_size, f"{facts.st_size}-{facts.st_mtime_ns}"), config)


def _zip_members(path: Path, name: str, config: IntakeConfig) -> Iterator[Source | Left]:
    try:
        members = _zip(path, path.stat().st_mtime_ns).infolist()
    except Exception:  # As in `Source.read`.
        yield Left(name, BROKEN_ZIP)
        return
    if sum(member.file_size for member in members) > config.max_archive_gib << 30:
        yield Left(name, ZIP_TOO_LARGE)
        return
    for member in sorted(members, key=lambda member: member.filename):
        if not member.is_dir():
            yield _member(path, f"{name}/{member.filename}", member, config)


def _member(path: Path, name: str, member: zipfile.ZipInfo, config: IntakeConfig) -> Source | Left:
    inside = PurePosixPath(member.filename)
    if inside.is_absolute() or ".." in inside.parts or "\\" in member.filename or member.filename[1:2] == ":":
        return Left(name, OUTSIDE)
    if member.create_system == _UNIX and stat.S_ISLNK(member.external_attr >> 16):
        return Left(name, LINK)
    if member.flag_bits & 1:
        return Left(name, ENCRYPTED)
    if member.filename.lower().endswith(".zip"):
        return Left(name, NESTED)
    if member.file_size > BOMB_BYTES and member.file_size > BOMB_RATIO * max(1, member.compress_size):
        return Left(name, BOMB)
    return _sized(Source(path, member.filename, name, member.file_size, f"{member.file_size}-{member.CRC}"), config)


def _sized(source: Source, config: IntakeConfig) -> Source | Left:
    if not source.size:
        return Left(source.name, EMPTY)
    return Left(source.name, TOO_LARGE) if source.size > config.max_file_mib << 20 else source


@lru_cache(maxsize=2)
def _zip(path: Path, changed_ns: int) -> zipfile.ZipFile:
    """The zip, kept open: reading the table of contents again for each member would take the square of their number."""
    return zipfile.ZipFile(path)
