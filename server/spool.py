"""Updates on disk between their arrival and the deadline of their round: a file a site, whole or not there.

A file is valid safetensors: the packed arrays, beside each the largest magnitude in every block of it (`peaks.TYPE`),
and the site's report in the metadata. It is written as it came, without a copy in memory, and read through a map.
"""

import mmap
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mumc_model.tensorfile import map_tensors, write_tensors
from protocol.errors import NotFiniteError
from protocol.messages import Report, from_json, to_json
from server.errors import OutputError, disk_error

Array = np.ndarray[Any, Any]

BLOCK = 1 << 17
"""Values that are read, judged and added at a time: small enough for the processor's cache."""
_HUGE = 1 << 21
"""Bytes of a huge page."""
_SUFFIX, _PEAKS = ".safetensors", "peaks."


@dataclass(frozen=True, eq=False)
class Update:
    """One site's update as it lies in the spool."""

    report: Report
    """Its `site` is the name that the server knows it by, its `examples` the weight that it has in a mean."""
    late: int
    """How many rounds after its own it is used; 0 for one that came in time."""
    arrays: Mapping[str, Array]
    """The packed arrays, read-only and mapped: nothing of them is in memory until it is read."""
    peaks: Mapping[str, Array]
    """Of each array the largest magnitude in every block of `BLOCK` values, float64."""

    @property
    def site(self) -> str:
        """Whose it is."""
        return self.report.site

    def let_go(self, dtype: str, part: slice) -> None:
        """Give back the memory of these values, which stay on the disk; `part` begins and ends at whole blocks."""
        array = self.arrays[dtype]
        mapped = _mapping(array)
        if mapped is None:
            return
        start = array.ctypes.data - np.frombuffer(mapped, np.uint8, 1).ctypes.data + part.start * array.itemsize
        stop = start + (min(part.stop, array.size) - part.start) * array.itemsize
        # Reading a page maps those around it too, as far as a huge page goes, and so some that were given back before.
        first = max(0, start - _HUGE) // mmap.PAGESIZE * mmap.PAGESIZE
        if stop > first:
            mapped.madvise(mmap.MADV_DONTNEED, first, stop - first)


class Spool:
    """What the sites have sent in one round, in a folder of its own: checked updates, masked words, or reports alone.

    Args:
        folder: Where they lie; made with the first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, report: Report, arrays: Mapping[str, Array], late: int = 0) -> None:
        """Keep a site's update; it is on the disk when this returns. What the site sent before is replaced.

        Raises:
            NotFiniteError: a value is NaN or infinite; nothing is kept.
            OutputError: the disk refuses; nothing is kept.
        """
        peaks = {dtype: block_peaks(flat) for dtype, flat in arrays.items() if flat.dtype.kind == "f"}
        bad = sum(int(np.count_nonzero(~np.isfinite(peak))) for peak in peaks.values())
        if bad:
            raise NotFiniteError(f"values in {bad} blocks of the update are NaN or infinite")
        held = {**arrays, **{_PEAKS + dtype: peak for dtype, peak in peaks.items()}}
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_tensors(self._path(report.site), held, {"report": to_json(report), "late": str(late)})
        except OSError as error:
            raise disk_error(self.folder, error) from error

    def sites(self) -> list[str]:
        """Whose updates are there, sorted."""
        return sorted(path.name.removesuffix(_SUFFIX) for path in self.folder.glob(f"*{_SUFFIX}"))

    def reports(self) -> dict[str, Report]:
        """The reports by site, in the order of their names.

        Raises:
            OutputError: a file is damaged.
        """
        return {update.site: update.report for update in self.updates()}

    def updates(self, sites: Iterable[str] | None = None) -> list[Update]:
        """The updates of these sites, or of all, in the order of their names.

        Raises:
            OutputError: a file is damaged.
        """
        wanted = self.sites() if sites is None else sorted(sites)
        return [self._read(self._path(site)) for site in wanted]

    def drop(self, site: str) -> None:
        """Forget a site's update."""
        self._path(site).unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, site: str) -> Path:
        return self.folder / f"{site}{_SUFFIX}"

    def _read(self, path: Path) -> Update:
        try:
            found, facts = map_tensors(path)
            report, late = from_json(facts["report"]), int(facts["late"])
            if not isinstance(report, Report):
                raise ValueError("no report")
            arrays = {name: array for name, array in found.items() if not name.startswith(_PEAKS)}
            peaks = {name: np.array(found[_PEAKS + name]) for name in arrays if _PEAKS + name in found}
        except (OSError, ValueError, KeyError) as error:
            raise OutputError(
                f"{path} cannot be read ({error}); delete its round's folder, and sites are asked anew"
            ) from error
        return Update(report=report, late=late, arrays=arrays, peaks=peaks)


def _mapping(array: Array) -> mmap.mmap | None:
    """The map that an array is a view of; None where it lies in memory of its own."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    # numpy keeps the buffer of a map, not the map.
    owner = owner.obj if isinstance(owner, memoryview) else owner
    return owner if isinstance(owner, mmap.mmap) else None


def block_peaks(flat: Array) -> Array:
    """The largest magnitude in each block of `BLOCK` values, float64; NaN or infinite where a value of it is."""
    # Both ends of a block in turn, so that it is read from memory once; NaN goes through minimum and maximum.
    ends = [(part.max(), part.min()) for part in (flat[start : start + BLOCK] for start in range(0, flat.size, BLOCK))]
    peaks: Array = np.abs(np.array(ends, np.float64).reshape(-1, 2)).max(axis=1)
    return peaks


def spans(size: int, blocks: int) -> Sequence[slice]:
    """Consecutive slices of so many whole blocks that cover `size` values."""
    step = blocks * BLOCK
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]
