"""Processes that take files; one that dies in a decoder costs the file that killed it, and no other."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Self

from client.intake.archive import Source
from client.intake.outcome import Outcome
from client.intake.taking import Taking

CRASHED = "its decoder crashed"
_IN_FLIGHT = 4
"""Files a process that wait for their turn, so that none is idle and few are lost together."""

Job = tuple[Source, str]
"""A file, and the digest that it is remembered by."""

_taking: Taking | None = None


class Workers:
    """So many processes as the configuration says."""

    def __init__(self, taking: Taking) -> None:
        """They start with the first file."""
        self._taking, self._count = taking, taking.config.workers or os.cpu_count() or 1
        self._pool = self._start(self._count)

    def __enter__(self) -> Self:
        """The workers themselves."""
        return self

    def __exit__(self, *_: object) -> None:
        """End them; what they had not begun is not done."""
        self._pool.shutdown(cancel_futures=True)

    def map(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """What came out of each file, as they get done. Files are asked for no faster than they are taken."""
        flying: dict[Future[Outcome], Job] = {}
        for job in jobs:
            flying[self._pool.submit(_take, *job)] = job
            if len(flying) >= self._count * _IN_FLIGHT:
                yield from self._landed(flying)
        while flying:
            yield from self._landed(flying)

    def _landed(self, flying: dict[Future[Outcome], Job]) -> Iterator[Outcome]:
        done, _ = wait(flying, return_when=FIRST_COMPLETED)
        for future in done:
            job = flying.pop(future)
            try:
                yield future.result()
            except BrokenProcessPool:
                # Nobody knows which of the files in flight it was, so each gets a process of its own.
                lost = [job, *flying.values()]
                flying.clear()
                self._pool.shutdown(wait=False)
                self._pool = self._start(self._count)
                yield from map(self._alone, lost)
                return

    def _alone(self, job: Job) -> Outcome:
        source, digest = job
        with self._start(1) as pool:
            try:
                return pool.submit(_take, source, digest).result()
            except BrokenProcessPool:
                return Outcome(source=digest, stamp=source.stamp, left=CRASHED)

    def _start(self, count: int) -> ProcessPoolExecutor:
        context = get_context("forkserver")
        # What takes long to load is loaded once, and is there in every process that begins.
        context.set_forkserver_preload(["client.intake.taking", "onnxruntime", "rapidocr"])
        return ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=(self._taking,))


def _begin(taking: Taking) -> None:
    global _taking
    os.umask(0o077)
    _taking = taking


def _take(source: Source, digest: str) -> Outcome:
    assert _taking is not None
    return _taking.take(source, digest)
