"""What tells a site's image files apart, and what makes them alike: a digest of the bytes and a hash of the picture.

Both are remembered in `state/` under the file's size and time of change, so that a second card of 100,000 images takes
seconds, and one that was cut short goes on where it was.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from mumc_model.data.files import write_atomically
from mumc_model.data.images import MAX_BYTES, SITE_FORMATS, SOURCE_FORMATS, UnusableImageError, open_image
from mumc_model.data.near import image_hash

FILE = Path("state") / "fingerprints.json"
VERSION = 1
"""Raised when digest or hash are taken in another way."""
DIGEST_CHARS = 32
_BATCH = 500
_KEEP_EVERY = 5_000
"""Images after which what was found is kept: a kill costs so many at most."""

Progress = Callable[[int, int], None]


class Fingerprint(NamedTuple):
    """Of one image file."""

    digest: str
    """The first `DIGEST_CHARS` hexadecimal digits of the SHA-256 of its bytes."""
    hash: int
    """The perceptual hash, 64 bits."""


Known = dict[str, tuple[int, int, str, int]]
"""By key: bytes, nanoseconds of the last change, digest, hash."""


def site_fingerprints(root: Path, keys: Iterable[str], on_progress: Progress | None = None) -> dict[str, Fingerprint]:
    """The fingerprints of the images of a site's folder, by key; images that cannot be read are left out."""
    names, remembered = sorted(set(keys)), _load(root)
    # What is no longer among the records is forgotten here too.
    known = {key: remembered[key] for key in names if key in remembered}
    found: dict[str, Fingerprint] = {}
    fresh: dict[str, tuple[int, int]] = {}
    for key in names:
        stamp = _stamp(root / key)
        if stamp and key in known and known[key][:2] == stamp:
            found[key] = Fingerprint(*known[key][2:])
        elif stamp:
            fresh[key] = stamp
    total, unkept = len(found) + len(fresh), 0
    for batch, prints in _in_batches(root, fresh, SITE_FORMATS):
        found |= prints
        known |= {key: (*fresh[key], *one) for key, one in prints.items()}
        unkept += len(prints)
        if unkept >= _KEEP_EVERY:
            _save(root, known)
            unkept = 0
        if on_progress:
            on_progress(total - len(fresh) + batch, total)
    if unkept or len(known) != len(remembered):
        _save(root, known)
    return found


def folder_fingerprints(
    folder: Path, keys: Iterable[str], on_progress: Progress | None = None
) -> dict[str, Fingerprint]:
    """The fingerprints of images in any folder, by key, of which nothing is remembered there."""
    names = sorted(set(keys))
    found: dict[str, Fingerprint] = {}
    for done, prints in _in_batches(folder, names, SOURCE_FORMATS):
        found |= prints
        if on_progress:
            on_progress(done, len(names))
    return found


def _in_batches(
    root: Path, keys: Iterable[str], formats: tuple[str, ...]
) -> Iterator[tuple[int, dict[str, Fingerprint]]]:
    """How many are done, and the fingerprints of the last batch; few images are held at once."""
    waiting, done = iter(keys), 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while batch := list(itertools.islice(waiting, _BATCH)):
            prints = pool.map(lambda key: _fingerprint(root / key, formats), batch)
            done += len(batch)
            yield done, {key: one for key, one in zip(batch, prints, strict=True) if one}


def _fingerprint(path: Path, formats: tuple[str, ...]) -> Fingerprint | None:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            return None
        image = open_image(BytesIO(content), formats)
    except (OSError, UnusableImageError):
        return None
    return Fingerprint(hashlib.sha256(content).hexdigest()[:DIGEST_CHARS], image_hash(image))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


def _load(root: Path) -> Known:
    """What is remembered; a file that cannot be read is no loss."""
    try:
        content = json.loads((root / FILE).read_bytes())
        if content["version"] != VERSION:
            return {}
        return {key: _entry(entry) for key, entry in content["images"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _entry(entry: list[object]) -> tuple[int, int, str, int]:
    size, changed, digest, value = entry
    if not (type(size) is type(changed) is type(value) is int and isinstance(digest, str) and 0 <= value < 1 << 64):
        raise ValueError("not an entry of ours")
    return size, changed, digest, value


def _save(root: Path, known: Mapping[str, tuple[int, int, str, int]]) -> None:
    """A folder that may only be read is looked through anew each time."""
    content = json.dumps({"version": VERSION, "images": known}).encode()
    try:
        write_atomically(root / FILE, content)
    except OSError:
        return
