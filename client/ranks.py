"""A site that trains on several devices: a process each, started for a round, joined with this one, ended with it.

This process is rank 0: it alone speaks with the server and keeps anything. The others (`client/rank_process.py`) read
the site's folder themselves and take their weights from rank 0. They meet through a file in the site's `state/`, and
what they say to one another stays on the loopback or between the devices.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import torch

from client.site import Site
from mumc_model.device import choose_devices
from mumc_model.errors import MumcError, RanksError
from mumc_model.ranks import ALONE, TIMEOUT_S, Ranks, join
from protocol.messages import Order

FOLDERS = "ranks-"
READY, LOG, MEETING = "ready-{}", "rank-{}.log", "meeting"
"""Names of files in the folder where the ranks meet."""
START_S = 600.0
"""The longest that a process may take to read the site's captions and decode its images."""
END_S = 30.0
POLL_S = 0.05
DYING_S = 2.0
"""So long after a fault of this process another one may still be on its way out."""
SHOWN_CHARS = 2000


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a round of pre-training is to the other ranks; plain values, which reach them as one line of JSON."""

    recipe: Mapping[str, Any]
    vocabulary: tuple[str, ...]
    captions: str
    """Digest of the captions that rank 0 trains on."""
    first_step: int
    steps: int
    total_steps: int
    seed: int

    @staticmethod
    def of(order: Order, captions: str, seed: int) -> "Job":
        """The job of an order, on those captions, with the site's own seed."""
        return Job(
            recipe=order.recipe,
            vocabulary=order.vocabulary,
            captions=captions,
            first_step=order.first_step,
            steps=order.steps,
            total_steps=order.total_steps,
            seed=seed,
        )


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one of the other ranks trains."""

    rank: int
    size: int
    device: str
    precision: str
    root: str
    """The site's folder."""
    folder: str
    """Where the ranks meet."""
    timeout_s: float = TIMEOUT_S


class SiteRanks:
    """The ranks of a site. With `processes: 1` that is this process, and nothing is started.

    The others load their libraries from when the block is entered, and train from `join` on.
    """

    def __init__(self, site: Site, timeout_s: float = TIMEOUT_S) -> None:
        """Nothing is started yet.

        Raises:
            DeviceError: the site has not so many devices.
        """
        self.devices = choose_devices(site.config.device, site.config.processes)
        self._site, self._timeout_s = site, timeout_s
        self._others: list[subprocess.Popen[str]] = []
        self._folder = Path()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Start the other processes."""
        size = len(self.devices)
        if size == 1:
            return self
        with ExitStack() as stack:
            state = self._site.root / "state"
            state.mkdir(exist_ok=True)
            _clear(state)
            self._folder = Path(stack.enter_context(TemporaryDirectory(prefix=FOLDERS, dir=state))).resolve()
            threads = stack.enter_context(_shared_threads(size))
            stack.enter_context(_environment(OMP_NUM_THREADS=str(threads), **_loopback()))
            stack.callback(self._end)
            for rank in range(1, size):
                self._others.append(self._start(rank))
            self._stack = stack.pop_all()
        return self

    def join(self, job: Job) -> Ranks:
        """The group, once all other ranks are ready for the job.

        Raises:
            RanksError: one of them ended, or did not come.
        """
        size = len(self.devices)
        if size == 1:
            return ALONE
        for rank, process in enumerate(self._others, start=1):
            place = Place(
                rank=rank,
                size=size,
                device=str(self.devices[rank]),
                precision=self._site.config.precision,
                root=str(self._site.root.resolve()),
                folder=str(self._folder),
                timeout_s=self._timeout_s,
            )
            with suppress(BrokenPipeError):
                assert process.stdin is not None
                process.stdin.write(json.dumps({"place": asdict(place), "job": asdict(job)}) + "\n")
                process.stdin.flush()
        self._await_ready()
        meeting = f"file://{self._folder / MEETING}"
        ranks = self._stack.enter_context(
            join(self.devices[0], rank=0, size=size, meeting=meeting, timeout_s=self._timeout_s)
        )
        self._stack.enter_context(self._watch(ranks))
        return ranks

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the group and end the others. A fault of another rank is told in place of what it led to here.

        Raises:
            RanksError: another rank ended, or did not answer in time.
        """
        with self._stack:
            if error is None:
                self._await_end()
                return
            try:
                if isinstance(error, RuntimeError) and not isinstance(error, MumcError | torch.OutOfMemoryError):
                    self._tell_lost(error)
            finally:
                # Leaving a group over NCCL waits for the others, and these may wait for this process.
                self._end()

    def _tell_lost(self, error: RuntimeError) -> None:
        """Raise what is to be said if the fault comes of the loss of another rank."""
        self._tell_ended(within_s=DYING_S, error=error)
        if isinstance(error, torch.distributed.DistError) or "imed out" in str(error):
            raise RanksError(
                f"a process of {len(self.devices)} did not answer the others within {self._timeout_s:g} s; see what "
                "else its device is busy with, or set processes: 1 in site.yaml"
            ) from error

    def _start(self, rank: int) -> "subprocess.Popen[str]":
        with (self._folder / LOG.format(rank)).open("w") as log:
            command = [sys.executable, "-P", "-m", "client.rank_process"]
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True)

    def _await_ready(self) -> None:
        until = time.monotonic() + START_S
        while not all((self._folder / READY.format(rank)).exists() for rank in range(1, len(self.devices))):
            self._tell_ended()
            if time.monotonic() > until:
                raise RanksError(
                    f"a process of {len(self.devices)} was not ready to train after {START_S:g} s; look at what else "
                    "this machine is busy with, or set processes: 1 in site.yaml"
                )
            time.sleep(POLL_S)

    def _tell_ended(self, within_s: float = 0.0, error: BaseException | None = None) -> None:
        """Raise what is to be said if one of the others has ended with a fault, or does so within that time."""
        until = time.monotonic() + within_s
        while True:
            for rank, process in enumerate(self._others, start=1):
                if process.poll():
                    said = (self._folder / LOG.format(rank)).read_text("utf-8", errors="replace")[-SHOWN_CHARS:]
                    raise RanksError(
                        f"process {rank} of 0 to {len(self.devices) - 1}, on {self.devices[rank]}, ended with exit "
                        f"code {process.returncode}; mend what it says, or set processes: 1 in site.yaml: {said}"
                    ) from error
            if time.monotonic() >= until:
                return
            time.sleep(POLL_S)

    @contextmanager
    def _watch(self, ranks: Ranks) -> Iterator[None]:
        """Over NCCL the loss of a rank is not noticed by the others: whoever waits for it is let go."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(10 * POLL_S):
                if any(process.poll() for process in self._others):
                    ranks.abort()
                    return

        watcher = threading.Thread(target=watch, name="ranks", daemon=True)
        if self.devices[0].type == "cuda":
            watcher.start()
        try:
            yield
        finally:
            # Where another process was lost or ended, the watcher is still to let go of what waits for it.
            if not any(process.poll() for process in self._others):
                over.set()
            if watcher.is_alive():
                watcher.join()

    def _await_end(self) -> None:
        until = time.monotonic() + END_S
        for process in self._others:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))

    def _end(self) -> None:
        for process in self._others:
            process.kill()
            process.communicate()


def _clear(state: Path) -> None:
    """Remove where ranks met that were killed, which is small; what is younger than a day may still be in use."""
    for old in state.glob(f"{FOLDERS}*"):
        with suppress(OSError):
            if old.stat().st_mtime < time.time() - 86400:
                shutil.rmtree(old)


def _loopback() -> dict[str, str]:
    """What keeps gloo and NCCL to the interface that no other machine reaches."""
    name = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), "lo")
    return {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name}


@contextmanager
def _shared_threads(size: int) -> Iterator[int]:
    """How many cores each process computes on; this one does so until the end of the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // size))
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
