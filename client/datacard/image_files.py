"""The image files that a card is of: told apart by their content, which is read anew only where size or time changed.

Looking at 100,000 files takes a fraction of a second, reading them takes minutes. So what was read is remembered in
`state/card/images.json` under each file's size and time of change. A copied or restored folder has other times: its
files are read once more, found to be the same, and remembered anew. Without that file all is read. No torch, no numpy.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mumc_model.data.files import write_atomically
from mumc_model.data.lines import bounded_lines
from mumc_model.data.schema import MAX_LINE_BYTES, UnusableRowError, image_key
from mumc_model.errors import DataError

FILES = ("captions.jsonl", "vqa.jsonl")
MEMORY = Path("state") / "card" / "images.json"
VERSION = 1
DIGEST_CHARS = 32
"""As many as `mumc_model/data/fingerprints.py` keeps, whose digests serve here too."""
MOST_BYTES = 256 << 20
"""A larger file is no image, and stands for itself by its size."""
_PART, _AT_ONCE = 2_000, 16
"""Files that one thread looks at in a row, and threads: on a network's disk each look is a wait."""

Place = tuple[int, int]
"""Size in bytes and time of the last change in nanoseconds."""
NOWHERE: Place = (-1, 0)
"""Of a file that is not there, or is none."""
Known = tuple[int, int, str]
"""The place, and the digest of the content; empty where there is none."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The images that records name, and what is known of each by key, sorted."""

    records: str
    """Digest of the records that name them."""
    images: Mapping[str, Known]


def places(root: Path, keys: Iterable[str]) -> dict[str, Place]:
    """Size and time of change of each image file, by key."""
    names, prefix = list(keys), f"{root}{os.sep}"
    parts = [names[start : start + _PART] for start in range(0, len(names), _PART)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        looked = pool.map(lambda part: [_place(prefix + key) for key in part], parts)
        return dict(zip(names, (place for part in looked for place in part), strict=True))


def named_images(root: Path) -> list[str]:
    """The keys of all images that a row names, sorted: also of rows that cannot be used as the image is missing.

    Raises:
        DataError: a file of records cannot be read.
    """
    keys: set[str] = set()
    for name in FILES:
        try:
            keys.update(key for _, line in bounded_lines(root / name, MAX_LINE_BYTES) if (key := _key(line)))
        except FileNotFoundError:
            continue
        except OSError:
            raise DataError(f"{name} cannot be read; check that it is a file this user may read") from None
    return sorted(keys)


def remember(root: Path, seen: Seen) -> None:
    """Write it down; a folder that may only be read is read anew each time."""
    content = {"version": VERSION, "records": seen.records, "images": seen.images}
    try:
        write_atomically(root / MEMORY, json.dumps(content).encode(), durable=False)
    except OSError:
        return


def look(root: Path, records: str) -> Seen:
    """The images of these records as they are now; what is new is read and remembered.

    Raises:
        DataError: a file of records cannot be read.
    """
    before = _recall(root)
    keys = before.images if before.records == records else named_images(root)
    found = places(root, keys)
    fresh = {key: place for key, place in found.items() if before.images.get(key, ("",))[:2] != place}
    if not fresh and before.records == records:
        return before
    seen = known(root, records, found, {key: before.images[key][2] for key in found.keys() - fresh.keys()})
    remember(root, seen)
    return seen


def known(root: Path, records: str, found: Mapping[str, Place], digests: Mapping[str, str]) -> Seen:
    """What is at these places; of an image without a digest the file is read.

    The places must be from before the digests were taken: whatever changes afterwards then has another place.
    """
    unread = [key for key, place in found.items() if key not in digests and place != NOWHERE]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        read = dict(zip(unread, pool.map(lambda key: _digest(root / key), unread), strict=True))
    images = {key: (*place, read.get(key) or digests.get(key, "")) for key, place in sorted(found.items())}
    return Seen(records=records, images=images)


def digest_of(seen: Seen) -> str:
    """SHA-256 in hex over the names of the images and what is in them, not over when they changed."""
    lines = (f"{key}\0{one[2]}\0{_size_alone(one)}\n" for key, one in seen.images.items())
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


def _size_alone(one: Known) -> int:
    """Of a file that is too large to be read."""
    return 0 if one[2] else one[0]


def _place(path: str) -> Place:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return NOWHERE
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else NOWHERE


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > MOST_BYTES:
                return ""
            return hashlib.file_digest(file, "sha256").hexdigest()[:DIGEST_CHARS]
    except (OSError, ValueError):
        return ""


def _key(line: bytes | None) -> str:
    """The image that a row names; empty where there is none that could be in the folder."""
    try:
        return image_key(json.loads(line or b"")["image"])
    except (ValueError, KeyError, TypeError, RecursionError, UnusableRowError):
        return ""


def _recall(root: Path) -> Seen:
    """What is remembered; a file that cannot be read is no loss."""
    try:
        content = json.loads((root / MEMORY).read_bytes())
        images = {key: (int(size), int(when), str(digest)) for key, (size, when, digest) in content["images"].items()}
        if content["version"] == VERSION and isinstance(content["records"], str):
            return Seen(records=content["records"], images=images)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return Seen(records="", images={})
