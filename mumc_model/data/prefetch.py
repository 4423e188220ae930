"""The next batches are made while the model learns from this one, and the wait for them is known."""

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import fields, replace
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import torch

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Batch = TypeVar("Batch", bound="DataclassInstance")
"""A dataclass whose fields are all tensors."""
AHEAD = 2
"""Batches that wait ready."""


class Prefetcher(Iterator[Batch]):
    """Batches in their order, made in a thread of their own where an accelerator does the learning.

    On a CPU both would want the same cores, so a batch is made when it is asked for. `waited` is the seconds that the
    caller has spent waiting for batches, in either case.
    """

    def __init__(self, batches: Iterable[Batch], device: torch.device) -> None:
        """Ahead of an accelerator, batches lie in pinned memory, from where they are copied without a wait."""
        self.waited = 0.0
        self._batches = iter(batches)
        self._ready: queue.Queue[Batch | BaseException] = queue.Queue(AHEAD)
        self._ended = threading.Event()
        self._device, self._pins = device, device.type == "cuda"
        self._thread: threading.Thread | None = None
        if device.type != "cpu":
            self._thread = threading.Thread(target=self._make, name="prefetch", daemon=True)

    def __enter__(self) -> Self:
        """Begin to make batches."""
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop making them; the thread has ended when this returns."""
        self._ended.set()
        if self._thread is not None:
            with suppress(queue.Empty):
                while True:
                    self._ready.get_nowait()
            self._thread.join()

    def __next__(self) -> Batch:
        """The next batch, on the CPU; what its making raised is raised here."""
        started = time.perf_counter()
        batch = next(self._batches) if self._thread is None else self._ready.get()
        self.waited += time.perf_counter() - started
        if isinstance(batch, BaseException):
            raise batch
        return batch

    def _make(self) -> None:
        try:
            if self._pins and self._device.index is not None:
                # Or memory would be pinned through the first GPU, which another process may be training on.
                torch.cuda.set_device(self._device)
            for batch in self._batches:
                if not self._put(_pinned(batch) if self._pins else batch):
                    return
            self._put(StopIteration())
        except BaseException as error:
            self._put(error)

    def _put(self, made: Batch | BaseException) -> bool:
        """Whether there was room before the end."""
        while not self._ended.is_set():
            with suppress(queue.Full):
                self._ready.put(made, timeout=0.1)
                return True
        return False


def _pinned(batch: Batch) -> Batch:
    tensors = {field.name: getattr(batch, field.name) for field in fields(batch)}
    on_cpu = {name: tensor.pin_memory() for name, tensor in tensors.items() if tensor.device.type == "cpu"}
    return replace(batch, **on_cpu)
