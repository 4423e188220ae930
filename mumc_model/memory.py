"""Memory that one step frees is the next one's, without a way through the system."""

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""Names of glibc's settings in malloc.h."""
_GLIBC_TRIM, _GLIBC_THRESHOLD, _GLIBC_MMAPS = 64 << 20, 32 << 20, 65_536
"""What glibc's own come to, once a process has used large blocks; it no longer adjusts what was set."""
_NEVER = (1 << 31) - 1


_lock = threading.Lock()
_blocks = 0
"""At work in this process, in all threads."""


@contextmanager
def reused_memory() -> Iterator[None]:
    """Keep freed memory in the process until the end of the block, and give it back then.

    A step frees all its large tensors, and C's library hands those of some megabytes back to the system at once. The
    next step gets them anew page by page, zeroed by the kernel, which at a vocabulary's size takes longer than the
    arithmetic. Where the library is not glibc nothing happens. Settings of the environment (`MALLOC_...`) hold until
    the first block. Of blocks within one another the outermost counts.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not all(hasattr(library, name) for name in ("mallopt", "malloc_trim")):
        yield
        return
    _enter(library)
    try:
        yield
    finally:
        _leave(library)


def _enter(library: ctypes.CDLL) -> None:
    global _blocks
    with _lock:
        _blocks += 1
        if _blocks == 1:
            library.mallopt(_MMAP_MAX, 0)
            library.mallopt(_TRIM_THRESHOLD, _NEVER)


def _leave(library: ctypes.CDLL) -> None:
    global _blocks
    with _lock:
        _blocks -= 1
        if _blocks == 0:
            library.mallopt(_MMAP_MAX, _GLIBC_MMAPS)
            library.mallopt(_MMAP_THRESHOLD, _GLIBC_THRESHOLD)
            library.mallopt(_TRIM_THRESHOLD, _GLIBC_TRIM)
            library.malloc_trim(0)
