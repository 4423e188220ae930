"""Safetensors files written as the arrays lie, without a copy in memory, and read through a map.

The library's own `save` makes the whole file in memory first, which for a model is one model more; what is written here
it reads like any other.
"""

import json
import math
import mmap
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mumc_model.data.files import replacing

Array = np.ndarray[Any, Any]

_CODES = {
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    "int8": "I8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
}
_CODES_OF = {kind: code for name, code in _CODES.items() for kind in (np.dtype(name), np.dtype(name).newbyteorder())}
"""By type, in either order of bytes."""
_TYPES = {code: np.dtype(name).newbyteorder("<") for name, code in _CODES.items()}
_METADATA = "__metadata__"
_BLOCK = 1 << 20
_CHECKSUM = "crc32"
"""In the metadata: of the data, so that a file whose length reached the disk and whose data did not is found out."""
MOST_HEADER = 1 << 27


def write_tensors(
    path: Path,
    arrays: Mapping[str, Array],
    metadata: Mapping[str, str],
    *,
    durable: bool = True,
    ready: Callable[[], object] | None = None,
) -> None:
    """Replace the file at once: it holds the arrays under their names, and is on the disk when this returns.

    Equal arrays and metadata are equal files. Without `durable` the disk is not waited for: after a loss of power the
    file may be cut off, or hold zeros, which `check_data` finds out by a checksum that such a file has. `ready` is
    called before the file takes its place (`mumc_model.data.files.replacing`).

    Raises:
        OSError: the disk refuses; the file is as it was.
    """
    # The widest types first, so that every array lies at a multiple of its size.
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    header: dict[str, Any] = {_METADATA: {}}
    contents: list[memoryview] = []
    offset = checksum = 0
    for name, array in ordered:
        content = _bytes(array)
        span = [offset, offset + len(content)]
        header[name] = {"dtype": _CODES_OF[array.dtype], "shape": list(array.shape), "data_offsets": span}
        offset = span[1]
        contents.append(content)
        checksum = checksum if durable else zlib.crc32(content, checksum)
    told = {} if durable else {_CHECKSUM: f"{checksum:08x}"}
    header[_METADATA] = dict(sorted({**metadata, **told}.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path, durable=durable, ready=ready) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        file.writelines(contents)


def _bytes(array: Array) -> memoryview:
    """As they lie in the file."""
    little = array if array.dtype.str[0] in "<|" else array.astype(array.dtype.newbyteorder("<"))
    return np.ascontiguousarray(little).reshape(-1).view(np.uint8).data


def check_data(path: Path) -> None:
    """Return only if the data is what was written; a file without a checksum passes: the disk was waited for.

    The whole file is read once.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is damaged.
    """
    _, metadata, start = read_header(path)
    if _CHECKSUM not in metadata:
        return
    found, held = 0, memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while length := file.readinto(held):
            found = zlib.crc32(held[:length], found)
    if f"{found:08x}" != metadata[_CHECKSUM]:
        raise ValueError("its data is not what was written")


def read_header(path: Path) -> tuple[dict[str, Any], dict[str, str], int]:
    """The entries of a file, its metadata, and where its data begins.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is damaged.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MOST_HEADER:
            raise ValueError(f"a header of {length} bytes")
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("no header")
    return header, header.pop(_METADATA, {}), 8 + length


def map_tensors(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays of a file by name, read-only and mapped, and its metadata; nothing is in memory until it is read.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is damaged.
    """
    header, metadata, start = read_header(path)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        return {name: _view(mapped, start, entry) for name, entry in header.items()}, metadata
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"a broken header ({type(error).__name__})") from error


def _view(mapped: mmap.mmap, start: int, entry: Mapping[str, Any]) -> Array:
    dtype = _TYPES[entry["dtype"]]
    shape = [int(size) for size in entry["shape"]]
    first, last = entry["data_offsets"]
    count = math.prod(shape)
    if last - first != count * dtype.itemsize or not 0 <= first <= last <= len(mapped) - start:
        raise ValueError("an array is cut off")
    return np.frombuffer(mapped, dtype, count, start + first).reshape(shape)
