"""Where the clients of a simulated federation run: in this process, in workers beside it, or on Ray.

Every engine answers one message at a time with the unmodified ClientApp; `simulations.grid` hands them the messages.
"""

import gc
import os
import queue
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal, Protocol

from flwr.app import Context, Message
from flwr.app.typing import ConfigRecordValues
from flwr.clientapp import ClientApp

from mumc_model.memory import reused_memory
from simulations.worker import decode_message, encode


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Which engine runs the clients, and what each client gets."""

    name: Literal["local", "ray"] = "local"
    workers: int = 0
    """Clients that run side by side; 0 takes the number of cores. `local` with 1 stays in this process."""
    threads: int = 1
    """Torch threads (local) or CPUs (ray) of each client."""
    gpus_per_client: float = 0.0
    """Share of a GPU that Ray reserves for each client."""


class WorkerError(RuntimeError):
    """A worker process ended while it held a message."""


class Engine(Protocol):
    """Runs clients; `submit` returns at once."""

    def submit(self, message: Message, context: Context) -> Future[Message]:
        """The reply to come."""

    def close(self) -> None:
        """End every worker once nothing is asked of it any more."""

    def abandon(self) -> None:
        """Take no more messages and end what can be ended now; whoever waits for a reply gets an error."""


def open_engine(config: EngineConfig, log: Path) -> Engine:
    """The engine that the configuration names; what its workers print goes to the file `log`."""
    workers = config.workers or len(os.sched_getaffinity(0))
    if config.name == "ray":
        return RayEngine(config)
    return InProcess(config.threads) if workers == 1 else Workers(workers, config.threads, log)


def load_client_app() -> ClientApp:
    """The ClientApp as every engine loads it."""
    from client.app import app

    return app


class InProcess:
    """One client at a time, in a thread of this process."""

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        load_client_app()
        # What was imported stays, and need not be looked through for cycles in every round.
        gc.freeze()
        # Each order takes about the memory that the one before it has freed.
        self._memory = ExitStack()
        self._memory.enter_context(reused_memory())
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="client")

    def submit(self, message: Message, context: Context) -> Future[Message]:
        """The reply to come."""
        return self._pool.submit(lambda: load_client_app()(message, context))

    def close(self) -> None:
        """Wait for the client at work."""
        self._pool.shutdown(cancel_futures=True)
        self._memory.close()
        gc.unfreeze()

    def abandon(self) -> None:
        """Start no further client; the one at work cannot be stopped."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._memory.close()


class Workers:
    """Several worker processes; a free one takes the next message, whichever site it is for."""

    def __init__(self, workers: int, threads: int, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log.open("ab")
        self._threads = threads
        self._abandoned = False
        self._processes: list[subprocess.Popen[bytes]] = []
        self._idle: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        for _ in range(workers):
            self._idle.put(self._start())
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="worker")

    def submit(self, message: Message, context: Context) -> Future[Message]:
        """The reply to come."""
        return self._pool.submit(self._ask, message, context)

    def close(self) -> None:
        """Close the pipes, so that the workers return, and wait for them."""
        self._pool.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get().close()
        for process in self._processes:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin:
                process.stdin.close()
        self._log.close()

    def abandon(self) -> None:
        """Kill the workers."""
        self._abandoned = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.kill()

    def _start(self) -> Connection:
        ours, theirs = Pipe()
        command = [sys.executable, "-m", "simulations.worker", str(theirs.fileno()), str(self._threads)]
        environment = os.environ | {"OMP_NUM_THREADS": str(self._threads)}
        process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C is for the parent, which knows how to end a run
        )
        self._processes.append(process)
        theirs.close()
        return ours

    def _ask(self, message: Message, context: Context) -> Message:
        pipe = self._idle.get()
        try:
            for frame in encode(message, context):
                pipe.send_bytes(frame)
            reply = decode_message(pipe.recv_bytes())
        except (EOFError, OSError) as error:
            pipe.close()
            if not self._abandoned:
                self._idle.put(self._start())
            raise WorkerError(f"a worker process ended at work; its last words are in {self._log.name}") from error
        except BaseException:
            self._idle.put(pipe)
            raise
        self._idle.put(pipe)
        return reply


class RayEngine:
    """Flower's own Ray backend: actors with their share of CPUs and GPUs, on this machine or a cluster."""

    def __init__(self, config: EngineConfig) -> None:
        from flwr.server.superlink.fleet.vce.backend.raybackend import RayBackend

        init: dict[str, ConfigRecordValues] = {"log_to_driver": False, "configure_logging": False}
        if config.workers and "RAY_ADDRESS" not in os.environ:
            init["num_cpus"] = config.workers * config.threads
        resources: dict[str, ConfigRecordValues] = {
            "num_cpus": config.threads,
            "num_gpus": config.gpus_per_client,
        }
        self._backend = RayBackend({"init_args": init, "client_resources": resources})
        self._backend.build(load_client_app)
        self._pool = ThreadPoolExecutor(max(1, self._backend.num_workers), thread_name_prefix="ray")

    def submit(self, message: Message, context: Context) -> Future[Message]:
        """The reply to come."""
        return self._pool.submit(lambda: self._backend.process_message(message, context)[0])

    def close(self) -> None:
        """End the actors and leave the cluster."""
        self._pool.shutdown(cancel_futures=True)
        self._backend.terminate()

    def abandon(self) -> None:
        """Start no further client; `close` ends the actors."""
        self._pool.shutdown(wait=False, cancel_futures=True)
