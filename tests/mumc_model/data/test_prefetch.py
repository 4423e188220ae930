"""Batches made ahead: their order, their errors, their end, and what is known of the wait. `meta` is no CPU."""

import threading
import time

import pytest
import torch

from mumc_model.data.prefetch import AHEAD, Prefetcher

CPU, OTHER = torch.device("cpu"), torch.device("meta")


@pytest.mark.parametrize("device", [CPU, OTHER])
def test_batches_come_in_their_order_and_end_where_they_end(device):
    with Prefetcher(range(20), device) as batches:
        assert list(batches) == list(range(20))


@pytest.mark.parametrize("device", [CPU, OTHER])
def test_an_error_of_the_making_is_the_callers(device):
    def failing():
        yield 1
        raise ZeroDivisionError("the second batch")

    with Prefetcher(failing(), device) as batches:
        assert next(batches) == 1
        with pytest.raises(ZeroDivisionError, match="the second batch"):
            next(batches)


def test_a_few_are_made_ahead_and_no_more():
    made = []

    def counting():
        for number in range(100):
            made.append(number)
            yield number

    with Prefetcher(counting(), OTHER) as batches:
        next(batches)
        deadline = time.monotonic() + 5
        while len(made) < 1 + AHEAD + 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert len(made) == 1 + AHEAD + 1


def test_leaving_early_ends_the_thread():
    before = threading.active_count()
    with Prefetcher(iter(int, 1), OTHER) as batches:
        next(batches)
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_on_a_cpu_nothing_is_made_before_it_is_asked_for():
    made = []
    with Prefetcher((made.append(number) or number for number in range(3)), CPU) as batches:
        assert made == []
        next(batches)
        assert made == [0]


@pytest.mark.parametrize("device", [CPU, OTHER])
def test_the_wait_is_what_the_caller_stood_still(device):
    def slow():
        while True:
            time.sleep(0.05)
            yield 0

    with Prefetcher(slow(), device) as batches:
        started = time.perf_counter()
        next(batches)
        next(batches)
        assert 0.05 < batches.waited <= time.perf_counter() - started


def test_what_was_made_during_the_work_costs_no_wait():
    with Prefetcher(iter(range(3)), OTHER) as batches:
        time.sleep(0.2)
        list(batches)
        assert batches.waited < 0.1
