"""A site's images, decoded once at the training size, in one memory-mapped file that every later start finds again.

Dimensions: B images asked for, N images of the site, C channels (1 where every file is grey), S side in pixels.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mumc_model.data.images import UnusableImageError, is_grey, open_image, to_eight_bits
from mumc_model.data.schema import PIXEL_CACHES
from mumc_model.errors import DataError

MEMORY_BYTES = 2 << 30
"""The most that is held in memory where the site's folder cannot be written."""
DECODE_SIDES = 2
"""JPEG files are decoded at no less than this many training sides, which is quicker than in full."""

Progress = Callable[[int, int], None]
PixelArray = NDArray[np.uint8]


class Pixels:
    """The images behind some keys, as bytes; memory-mapped, so the system drops what it needs the memory for."""

    def __init__(self, root: Path, keys: Iterable[str], size: int, on_progress: Progress | None = None) -> None:
        """Find the images of a resolved site folder in its cache, or decode them in parallel and keep them there.

        Raises:
            DataError: an image that was readable no longer is, or there is no room for the cache.
        """
        self.size = size
        self.keys = tuple(sorted(set(keys)))
        self._row = {key: row for row, key in enumerate(self.keys)}
        path = root / "state" / f"pixels-{size}-{_fingerprint(root, self.keys)}.npy"
        found = _open(path, len(self.keys), size)
        self.array_NCSS = _build(root, self.keys, size, path, on_progress) if found is None else found

    def rows(self, keys: Iterable[str]) -> Tensor:
        """Row of each key, int64."""
        return torch.tensor([self._row[key] for key in keys], dtype=torch.int64)

    def gather(self, rows_B: Tensor) -> Tensor:
        """Images BCSS, uint8; a copy."""
        return torch.from_numpy(self.array_NCSS[rows_B.numpy()])


def decode_square(path: Path, size: int, channels: int) -> PixelArray:
    """The image as CSS bytes, squeezed to a square as the paper's code does.

    Raises:
        UnusableImageError: it cannot be decoded.
    """
    image = to_eight_bits(open_image(path, draft_side=DECODE_SIDES * size))
    image = image.convert("L" if channels == 1 else "RGB").resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(size, size, channels).transpose(2, 0, 1)


def _fingerprint(root: Path, keys: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for key in keys:
        try:
            status = (root / key).stat()
        except OSError:
            raise DataError("an image vanished after it was checked; read the site's folder again") from None
        digest.update(f"{key}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:16]


def _open(path: Path, images: int, size: int) -> PixelArray | None:
    try:
        array: PixelArray = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    fits = array.dtype == np.uint8 and array.ndim == 4 and array.shape[0] == images and array.shape[2:] == (size, size)
    return array if fits else None


def _build(root: Path, keys: tuple[str, ...], size: int, path: Path, on_progress: Progress | None) -> PixelArray:
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        grey = all(pool.map(lambda key: is_grey(root / key), keys))
        try:
            array = _room(partial, (len(keys), 1 if grey else 3, size, size))
            _fill(array, root, keys, pool, on_progress)
            if isinstance(array, np.memmap):
                array.flush()
                for old in root.glob(PIXEL_CACHES):
                    if old.name.startswith(f"pixels-{size}-"):
                        old.unlink(missing_ok=True)
                partial.replace(path)
        finally:
            with suppress(OSError):
                partial.unlink()
    array.flags.writeable = False
    return array


def _room(partial: Path, shape: tuple[int, ...]) -> PixelArray:
    """Space on the disk, or in memory where the disk refuses and the images are few."""
    needed = int(np.prod(shape))
    try:
        if needed:
            partial.parent.mkdir(exist_ok=True)
            array = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
            _reserve(partial)
            return array
    except OSError:
        if needed > MEMORY_BYTES:
            raise DataError(
                f"the decoded images need {needed / 2**30:.1f} GiB in the site's state folder, which is full or may "
                "not be written; make room there, or choose a smaller image size"
            ) from None
    return np.empty(shape, np.uint8)


def _reserve(path: Path) -> None:
    """Have the system promise the blocks now: writing to a mapped file on a full disk kills the process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _fill(
    array: PixelArray, root: Path, keys: tuple[str, ...], pool: ThreadPoolExecutor, on_progress: Progress | None
) -> None:
    def decode(row: int) -> bool:
        try:
            array[row] = decode_square(root / keys[row], array.shape[-1], array.shape[1])
        except UnusableImageError:
            return False
        return True

    unreadable = 0
    for done, good in enumerate(pool.map(decode, range(len(keys))), start=1):
        unreadable += not good
        if on_progress:
            on_progress(done, len(keys))
    if unreadable:
        raise DataError(
            f"{unreadable} of {len(keys)} images can no longer be read since they were checked; restore them, or read "
            "the site's folder again to leave them out"
        )
