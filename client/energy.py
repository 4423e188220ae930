"""Energy that this machine's own counters tell: of its processors (RAPL) and of NVIDIA's GPUs (NVML).

The counters count everything on the machine, and nothing of its memory, disks, fans and losses. Where they cannot be
read, could have gone round more than once, went back (a driver was loaded anew), or tell of more power than there can
be (a processor's counter was set back, which looks like one that went round), there is no number.
"""

import ctypes
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")
MOST_WATTS = 500.0
"""Of one processor; so it is known within what time its counter cannot go round twice."""
MOST_GPU_WATTS = 2000.0
SLACK_S = 1.0
"""A reading may be so old; in so much more time than was measured, what it tells must have been possible."""

Counters = dict[str, tuple[float, float]]
"""Joules that a counter shows, and after how many it begins again."""


class EnergyMeter:
    """Joules from its making on.

    Args:
        counters: Reads all counters.
        clock: Seconds, from anywhere.
    """

    def __init__(
        self,
        counters: Callable[[], Counters] = lambda: processor_counters() | gpu_counters(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counters, self._clock = counters, clock
        self._start, self._before = clock(), counters()

    def used(self) -> dict[str, Any]:
        """`joules` used since, and the `counters` that say so; empty where none is there or one cannot be believed."""
        after, seconds = self._counters(), self._clock() - self._start
        if not after or after.keys() != self._before.keys():
            return {}
        steps = [_step(self._before[name][0], now, limit, seconds) for name, (now, limit) in after.items()]
        if not all(map(math.isfinite, steps)):
            return {}
        return {"joules": round(math.fsum(steps), 3), "counters": sorted(after)}


def _step(before: float, now: float, limit: float, seconds: float) -> float:
    """Joules between two readings of one counter that begins again after `limit`; not finite where nobody can tell."""
    never_begins_again = math.isinf(limit)
    most = MOST_GPU_WATTS if never_begins_again else MOST_WATTS
    if limit < seconds * most or (never_begins_again and now < before):
        return math.nan
    joules = (now - before) % limit
    return joules if joules <= (seconds + SLACK_S) * most else math.nan


def processor_counters(root: Path = POWERCAP) -> Counters:
    """The counters of the machine's processors; none where they are absent or closed to this user."""
    found = {}
    try:
        for zone in sorted(root.glob("intel-rapl:*")):
            if (zone / "name").read_text().startswith("package"):
                found[zone.name] = (_joules(zone / "energy_uj"), _joules(zone / "max_energy_range_uj"))
    except (OSError, ValueError):
        return {}
    return found


def gpu_counters(library: Callable[[], Any] = lambda: ctypes.CDLL("libnvidia-ml.so.1")) -> Counters:
    """The counters of the machine's NVIDIA GPUs, which never go round; none where there is no driver."""
    try:
        nvml = library()
    except OSError:
        return {}
    if nvml.nvmlInit_v2() != 0:
        return {}
    try:
        return _read_gpus(nvml)
    finally:
        nvml.nvmlShutdown()


def _read_gpus(nvml: Any) -> Counters:
    count, found = ctypes.c_uint(), {}
    if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
        return {}
    for number in range(count.value):
        device, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
        if nvml.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(device)) == 0 and (
            nvml.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(millijoules)) == 0
        ):
            found[f"gpu:{number}"] = (millijoules.value / 1e3, float("inf"))
    return found


def _joules(path: Path) -> float:
    return int(path.read_text()) / 1e6
