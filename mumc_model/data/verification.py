"""Whether the images of a site can be read, remembered so that a second start is quick."""

import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mumc_model.data.files import write_atomically
from mumc_model.data.images import UnusableImageError, open_image
from mumc_model.data.schema import OUTSIDE

CACHE = Path("state") / "verified.json"
CACHE_VERSION = 1
MISSING = "image missing"

Stamp = tuple[int, int]
"""Size in bytes and time of the last change in nanoseconds."""
Verdict = tuple[int, int, str]
"""The stamp and the problem found, empty where there was none."""


def verify_images(root: Path, keys: Iterable[str]) -> dict[str, str]:
    """The reason for each image that cannot be used; images that can are left out.

    Decodes each new or changed file once, in parallel. `root` must be resolved.
    """
    known = _load(root)
    problems: dict[str, str] = {}
    fresh: dict[str, Stamp] = {}
    for key in sorted(set(keys)):
        stamp, problem = _locate(root, key)
        if problem:
            problems[key] = problem
        elif key not in known or known[key][:2] != stamp:
            fresh[key] = stamp
        elif known[key][2]:
            problems[key] = known[key][2]
    if fresh:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for key, problem in zip(fresh, pool.map(lambda key: _problem(root / key), fresh), strict=True):
                known[key] = (*fresh[key], problem)
                if problem:
                    problems[key] = problem
        _save(root, known)
    return problems


def _locate(root: Path, key: str) -> tuple[Stamp, str]:
    try:
        real = (root / key).resolve(strict=True)
        status = real.stat()
    except (OSError, ValueError, RuntimeError):  # RuntimeError is a loop of links.
        return (0, 0), MISSING
    if not real.is_relative_to(root):
        return (0, 0), OUTSIDE
    return (status.st_size, status.st_mtime_ns), "" if real.is_file() else MISSING


def _problem(path: Path) -> str:
    try:
        open_image(path).close()
    except UnusableImageError as error:
        return error.reason
    return ""


def _load(root: Path) -> dict[str, Verdict]:
    """What is remembered; a cache that cannot be read is no loss."""
    try:
        content = json.loads((root / CACHE).read_bytes())
        if content["version"] != CACHE_VERSION:
            return {}
        return {
            key: (entry[0], entry[1], entry[2])
            for key, entry in content["images"].items()
            if [type(value) for value in entry] == [int, int, str]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _save(root: Path, known: dict[str, Verdict]) -> None:
    """A folder that may only be read is verified anew at every start."""
    content = json.dumps({"version": CACHE_VERSION, "images": known}).encode()
    try:
        write_atomically(root / CACHE, content)
    except OSError:
        return
