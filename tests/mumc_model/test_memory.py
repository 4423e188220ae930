"""Memory that is freed and asked for again, counted by the page faults that the system reports."""

import resource
import sys

import pytest
import torch

from mumc_model.memory import reused_memory

PAGE = resource.getpagesize()
BYTES = 64 << 20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the setting is glibc's")


def least_faults(beside=0):
    """The fewest page faults that filling as much memory as was freed a moment ago costs in 24 tries.

    The fewest, for a small block may take its place in what was freed, until all small ones have found theirs.
    `beside` so many other blocks are held: where a small block lies above a large hole in the heap, the hole stays
    the process's own and serves whoever fits, whatever is set.
    """
    held = [torch.ones(BYTES, dtype=torch.uint8) for _ in range(beside)]
    faults = []
    for _ in range(24):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(BYTES, dtype=torch.uint8)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    del held
    return min(faults)


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE


def test_what_was_freed_is_used_again_without_the_system():
    with reused_memory():
        faults = least_faults()
    assert faults < BYTES / PAGE / 100


def test_outside_the_system_is_asked_every_time_before_and_after():
    for _ in range(2):
        assert least_faults(beside=8) > 0.9 * BYTES / PAGE
        with reused_memory():
            pass


def test_at_the_end_the_memory_is_given_back_also_after_an_error():
    held = [torch.ones(BYTES, dtype=torch.uint8) for _ in range(8)]  # In whatever hole the heap has.
    before, within = resident(), 0

    def fail():
        with reused_memory():
            torch.ones(BYTES, dtype=torch.uint8)
            nonlocal within
            within = resident()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert within - before > 0.9 * BYTES
    assert resident() - before < 0.2 * BYTES
    del held


def test_of_blocks_within_one_another_the_outermost_counts():
    with reused_memory():
        with reused_memory():
            torch.ones(BYTES, dtype=torch.uint8)
        assert least_faults() < BYTES / PAGE / 100
    assert least_faults(beside=8) > 0.9 * BYTES / PAGE
