"""The site's task runner: asks the site's own SuperNode for orders and starts a process for each, one at a time."""

import logging
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from multiprocessing.context import ForkServerProcess as Process
from pathlib import Path

import httpx
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient

from client.task import GIVEN_UP, run_task
from protocol.flower import environment

_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
_log = logging.getLogger("fedmumc.runner")


class TaskRunner:
    """Claims tasks of a SuperNode that runs with process isolation.

    Args:
        root: The site's folder.
        address: Of the SuperNode's Runtime API.
        secret: Shared with that SuperNode, so that no one else on this machine can claim a task.
        installed: Digest of the code that is installed here.
        memory_gib: Most memory for one task; 0 for no limit.
        rehearsal: Whether only orders to rehearse are followed.
        say: Where lines for a person go.
    """

    def __init__(
        self,
        root: Path,
        address: str,
        secret: bytes,
        installed: str,
        memory_gib: float = 0.0,
        *,
        rehearsal: bool = False,
        say: Callable[[str], None] = print,
    ) -> None:
        self._root, self._address, self._installed = str(root), address, installed
        self._memory_gib, self._rehearsal, self._say = memory_gib, rehearsal, say
        self._context = warm_context()
        self._task: Process | None = None
        self._warm = False
        self._client = RuntimeHttpClient.from_server_address(
            server_address=address,
            insecure=True,
            root_certificates=None,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperExec"),
                SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=frozenset({_ACQUIRE})),
            ],
        )

    def step(self) -> None:
        """Start the next task if none is at work; a SuperNode that does not answer is asked again later."""
        if self._task is None and not self._warm:
            # A task that was claimed waits half a minute, and the first process of all may take longer.
            self._start(warm)
            self._warm = True
        if self._task is not None and self._task.is_alive():
            return
        if self._task is not None and self._task.exitcode:
            self._say(_words(self._task.exitcode))
        self._task = None
        try:
            claimed = self._client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP]))
        except httpx.HTTPError as error:
            _log.debug("the SuperNode does not answer: %s", type(error).__name__)
            return
        if not (claimed.HasField("task") and claimed.token):
            return
        # The token travels through a pipe: an argument would be seen by every process of this machine.
        self._start(
            run_task, self._address, claimed.token, self._root, self._installed, self._memory_gib, self._rehearsal
        )

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        self._task = self._context.Process(target=target, args=arguments, daemon=True)
        self._task.start()

    def close(self) -> None:
        """End the task that is at work."""
        if self._task is not None and self._task.is_alive():
            self._task.terminate()
            self._task.join(10)
        self._client.close()


def warm_context() -> ForkServerContext:
    """Where tasks come from: a process that has imported everything, so that each starts in a moment.

    What keeps libraries quiet, and the SuperNode's address from a proxy, is set before; it holds for this process too.
    """
    os.environ.update(environment())
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["client.task", "client.pretrain", "client.finetune"])
    return context


def warm() -> None:
    """What the first process does: nothing, but it starts only when everything is imported."""


def _words(code: int) -> str:
    if code == GIVEN_UP:
        return "a task was given up: its run has ended, or the SuperNode was started again"
    return f"a task ended with exit code {code}; state/site.log may have the reason"
