"""Flower's Grid for one machine: what the ServerApp pushes goes to an engine, what the clients answer comes back."""

import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from simulations.engine import Engine

_RUN_ID = 1
_SERVER_NODE_ID = 1
_message_ids = itertools.count(1)


class LocalGrid(Grid):
    """The nodes of one simulated federation.

    Args:
        sites: The site folder of each node, by node id.
        engine: Where clients run; several grids may share one.
        on_reply: Called once for each reply that the server takes, for progress.
    """

    def __init__(self, sites: Mapping[int, Path], engine: Engine, on_reply: Callable[[], None] = lambda: None) -> None:
        # Flower stamps these on every message; its own engines set them when they start a process.
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = _RUN_ID, _SERVER_NODE_ID, 1
        self._run = Run.create_empty(_RUN_ID)
        self._engine = engine
        self._on_reply = on_reply
        self._asked: dict[str, tuple[Message, Future[Message]]] = {}
        self._contexts = {
            node: Context(
                run_id=_RUN_ID,
                node_id=node,
                node_config={"site": str(path), "trial": True, "partition-id": index, "num-partitions": len(sites)},
                state=RecordDict(),
                run_config={},
            )
            for index, (node, path) in enumerate(sites.items())
        }

    def set_run(self, run: Run) -> None:
        """Adopt Flower's description of the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """Flower's description of the run."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """An unsent message to one node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Every node; all of them are always online."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Give each message to the engine and return the ids to ask for the replies."""
        ids = []
        for message in messages:
            message_id = f"message-{next(_message_ids)}"
            message.metadata.__dict__["_message_id"] = message_id
            context = self._contexts[message.metadata.dst_node_id]
            self._asked[message_id] = (message, self._engine.submit(message, context))
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that have come; each is handed out once."""
        replies = []
        for message_id in message_ids:
            if message_id in self._asked and self._asked[message_id][1].done():
                message, future = self._asked.pop(message_id)
                replies.append(_reply(message, future))
                self._on_reply()
        return replies

    def wait_for_any(self, message_ids: Iterable[str], seconds: float) -> None:
        """Return when one of these messages has its reply, or `seconds` later."""
        futures = [self._asked[message_id][1] for message_id in message_ids if message_id in self._asked]
        if futures:
            wait(futures, seconds, FIRST_COMPLETED)
        else:
            time.sleep(seconds)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Push, then pull until every reply is there or `timeout` seconds have passed."""
        waiting = set(self.push_messages(messages))
        replies: list[Message] = []
        deadline = time.monotonic() + (timeout if timeout is not None else float("inf"))
        while waiting and time.monotonic() < deadline:
            for reply in self.pull_messages(waiting):
                waiting.discard(reply.metadata.reply_to_message_id)
                replies.append(reply)
            self.wait_for_any(waiting, 0.01)
        return replies


def _reply(message: Message, future: Future[Message]) -> Message:
    """What the client said; a client that raised or died answers with Flower's own error, as in a deployment."""
    try:
        return future.result()
    except Exception as error:
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, type(error).__name__), reply_to=message)
