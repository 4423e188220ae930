"""Energy is what counters say, and nothing where they cannot be believed."""
# ruff: noqa: N802 - the names are NVIDIA's

import ctypes
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.energy import MOST_WATTS, EnergyMeter, gpu_counters, processor_counters


def zone(root, number, name, joules, most=262_143.328):
    folder = root / f"intel-rapl:{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{int(joules * 1e6)}\n")
    (folder / "max_energy_range_uj").write_text(f"{int(most * 1e6)}\n")


class Nvml:
    """As much of NVIDIA's library as is asked for."""

    def __init__(self, millijoules, ready=0):
        self._millijoules, self._ready = millijoules, ready
        self.closed = False

    def nvmlInit_v2(self):
        return self._ready

    def nvmlShutdown(self):
        self.closed = True

    def nvmlDeviceGetCount_v2(self, count):
        count._obj.value = len(self._millijoules)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, number, device):
        device._obj.value = number + 1
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, device, millijoules):
        found = self._millijoules[device.value - 1]
        millijoules._obj.value = found or 0
        return 0 if found is not None else 3


def metered(before, after, seconds):
    readings, clock = iter([before, after]), iter([100.0, 100.0 + seconds])
    return EnergyMeter(lambda: next(readings), lambda: next(clock)).used()


def test_processors_are_counted_whole_and_never_twice(tmp_path):
    zone(tmp_path, 0, "package-0", 12.5)
    zone(tmp_path, 1, "package-1", 3.0)
    zone(tmp_path, "0:0", "core", 9.0)
    zone(tmp_path, 2, "psys", 50.0)
    assert processor_counters(tmp_path) == {
        "intel-rapl:0": (12.5, 262_143.328),
        "intel-rapl:1": (3.0, 262_143.328),
    }


def test_counters_that_are_closed_or_absent_count_nothing(tmp_path):
    assert processor_counters(tmp_path / "none") == {}
    zone(tmp_path, 0, "package-0", 12.5)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert processor_counters(tmp_path) == {}


def test_gpus_that_count_are_read_and_the_library_is_closed():
    nvml = Nvml([5000, None, 7500])
    assert gpu_counters(lambda: nvml) == {"gpu:0": (5.0, math.inf), "gpu:2": (7.5, math.inf)}
    assert nvml.closed
    assert gpu_counters(lambda: Nvml([5000], ready=9)) == {}


def test_without_the_driver_no_gpu_is_counted():
    def absent():
        return ctypes.CDLL("libnone-of-this-name.so")

    assert gpu_counters(absent) == {}


def test_what_was_used_is_the_difference_also_of_a_counter_that_went_round_once():
    before = {"intel-rapl:0": (260_000.0, 262_000.0), "gpu:0": (10.0, math.inf)}
    after = {"intel-rapl:0": (1_000.0, 262_000.0), "gpu:0": (25.5, math.inf)}
    assert metered(before, after, 60) == {"joules": 3015.5, "counters": ["gpu:0", "intel-rapl:0"]}


@given(
    start=st.floats(0, 262_000, exclude_max=True),
    watts=st.floats(0, MOST_WATTS),
    seconds=st.floats(0, 262_000 / MOST_WATTS),
)
@settings(deadline=None)
def test_whatever_a_processor_can_draw_is_found_wherever_its_counter_begins(start, watts, seconds):
    used = min(watts * seconds, 261_999.0)
    before, after = {"intel-rapl:0": (start, 262_000.0)}, {"intel-rapl:0": ((start + used) % 262_000, 262_000.0)}
    assert metered(before, after, seconds)["joules"] == pytest.approx(used, abs=1e-2)


@pytest.mark.parametrize(
    ("before", "after", "seconds"),
    [
        ({}, {}, 60),
        ({"intel-rapl:0": (1.0, 262_000.0)}, {}, 60),
        ({"gpu:0": (1.0, math.inf)}, {"gpu:1": (2.0, math.inf)}, 60),
        ({"intel-rapl:0": (1.0, 262_000.0)}, {"intel-rapl:0": (2.0, 262_000.0)}, 525),
        ({"gpu:0": (900.0, math.inf)}, {"gpu:0": (3.0, math.inf)}, 60),
        ({"intel-rapl:0": (90_000.0, 262_000.0)}, {"intel-rapl:0": (3.0, 262_000.0)}, 60),
        ({"intel-rapl:0": (90_000.0, 262_000.0)}, {"intel-rapl:0": (125_000.0, 262_000.0)}, 60),
        ({"gpu:0": (900.0, math.inf)}, {"gpu:0": (200_000.0, math.inf)}, 60),
    ],
    ids=[
        "no counter",
        "lost",
        "another",
        "may have gone round twice",
        "went back",
        "set back",
        "too much of a processor",
        "too much of a GPU",
    ],
)
def test_a_number_that_could_be_wrong_is_none(before, after, seconds):
    assert metered(before, after, seconds) == {}
