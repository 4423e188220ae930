"""Orders to nodes and their replies one at a time, over Flower's grid, until a deadline."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import httpx
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from protocol.messages import Order
from server.errors import FederationError

NO_ANSWER, NOT_SENT, UNREADABLE = "no_answer", "not_sent", "unreadable"
WORDS = {
    NO_ANSWER: "nothing came in time",
    NOT_SENT: "the SuperLink did not take the order",
    UNREADABLE: "what came is no message",
    "flower_3": "the order expired before the site fetched it",
    "flower_4": "the reply expired before it was fetched",
    "flower_5": "the connection to the site was lost",
    "flower_8": "the site's task crashed",
}
"""What the codes say that come in place of a reply; Flower's own are `flower_` and its number."""
AGAIN = (NOT_SENT, UNREADABLE, "flower_2", "flower_4", "flower_8")
"""Codes of answers that were lost though the site is there: the order or the reply was, or its task has crashed."""
GONE = "flower_5"
"""The code of a site that went away while it had an order; it may have come back since."""
_log = logging.getLogger("fedmumc.server")

LIVES = 3
"""A message whose reply may be late outlives its deadline so many times."""
_POLL_S = (0.02, 0.25)
_GRACE_S = 60.0
_SILENT_S = 5.0
"""After this long a wait for sites is told."""
_BROKEN = (ValueError, TypeError, KeyError, IndexError, AttributeError)
"""What Flower raises while it reads a malformed reply; a failing network raises others."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What one node answered: content, or the code of what came instead."""

    node: int
    order: Order
    """That it answers."""
    content: RecordDict | None = None
    fault: str = ""
    words: str = ""
    """What is known of the fault, where that is more than `WORDS` has."""


Late = dict[str, tuple[int, Order]]
"""Node and order of messages whose round is over, by their ids."""
Waiting = dict[str, tuple[int, float]]
"""Node and deadline of messages of this round that are not answered yet, by their ids."""


def wait_for_nodes(
    grid: Grid,
    *,
    wanted: int,
    least: int,
    wait_s: float,
    rejoin_s: float | None = None,
    enrolled: Callable[[Sequence[int]], list[int]] = list,
) -> list[int]:
    """Node ids online, sorted, as soon as `wanted` are there.

    Args:
        grid: Flower's grid.
        wanted: So many end the wait at once.
        least: So many are enough when the time is up.
        wait_s: How long to wait in all.
        rejoin_s: How long to wait when `least` are there; by default as long.
        enrolled: Keeps those that may take part.

    Raises:
        FederationError: fewer than `least` came in time.
    """
    start, pauses, told = time.monotonic(), _pauses(), False
    while len(nodes := sorted(enrolled(list(grid.get_node_ids())))) < wanted:
        if not told and time.monotonic() >= start + _SILENT_S:
            _log.warning("sites %d/%d online; waiting for the others, at most %g s", len(nodes), wanted, wait_s)
            told = True
        enough = rejoin_s is not None and len(nodes) >= least
        if time.monotonic() >= start + (min(wait_s, rejoin_s) if enough and rejoin_s is not None else wait_s):
            break
        time.sleep(next(pauses))
    if len(nodes) < least:
        raise FederationError(
            f"{len(nodes)} sites came online within {wait_s:g} s, but at least {least} are needed; start more sites, "
            "wait longer (federation.wait_s) or lower federation.min_sites"
        )
    if len(nodes) < wanted:
        _log.warning("sites %d/%d online after %.0f s; going on", len(nodes), wanted, time.monotonic() - start)
    return nodes


def exchange(
    grid: Grid,
    nodes: Sequence[int],
    content: Callable[[int], RecordDict],
    order: Order,
    *,
    timeout_s: float,
    late: Late | None = None,
    at_once: int = 0,
) -> Iterator[Reply]:
    """One reply a node, each as soon as it is there, so that the caller need not hold two; then those never given.

    Args:
        grid: Flower's grid.
        nodes: Whom to ask.
        content: Makes the content of one node's message; arrays may be shared between them.
        order: What they are asked.
        timeout_s: How long to wait for each reply; what is ready then is still taken.
        late: Messages of earlier rounds whose replies are taken too, if they come; those of this one that nobody has
            answered in time join them.
        at_once: So many nodes hold an order at a time, and the next is asked when one has answered; 0 asks all.
    """
    rest, waiting, pauses = list(nodes), Waiting(), _pauses()
    # A message outlives the deadline a little, so that it is the deadline that decides and not Flower's expiry.
    ttl = (1 if late is None else LIVES) * timeout_s + _GRACE_S
    while rest or waiting:
        if rest and (room := (at_once or len(nodes)) - len(waiting)) > 0:
            asked, rest = rest[:room], rest[room:]
            pushed, lost = _push(grid, [_message(content, node, order, ttl) for node in asked])
            deadline = time.monotonic() + timeout_s
            waiting |= {message_id: (node, deadline) for message_id, node in pushed.items()}
            yield from (Reply(node=node, order=order, fault=NOT_SENT) for node in lost)
        before, now = len(waiting), time.monotonic()
        for message_id, (node, _) in list(waiting.items()):
            reply = _pull(grid, message_id, node, order)
            if reply is not None:
                del waiting[message_id]
                yield reply
                del reply
        yield from _pull_late(grid, late)
        yield from _give_up(grid, order, waiting, late, now, timeout_s)
        if len(waiting) < before:
            pauses = _pauses()
        elif waiting:
            soonest = min(deadline for _, deadline in waiting.values())
            _rest(grid, waiting, min(next(pauses), max(0.0, soonest - time.monotonic())))


def _message(content: Callable[[int], RecordDict], node: int, order: Order, ttl: float) -> Message:
    return Message(content(node), node, order.action, ttl=ttl, group_id=str(order.round))


def _give_up(
    grid: Grid, order: Order, waiting: Waiting, late: Late | None, now: float, timeout_s: float
) -> Iterator[Reply]:
    """Those who were asked so long before `now` that their time is up; they wait no longer."""
    over = {message_id: node for message_id, (node, deadline) in waiting.items() if now >= deadline}
    online = set(grid.get_node_ids()) if over else set()
    for message_id, node in over.items():
        del waiting[message_id]
        yield Reply(node=node, order=order, fault=NO_ANSWER, words=_silence(node in online, timeout_s))
        if late is not None:
            late[message_id] = (node, order)


def _pull_late(grid: Grid, late: Late | None) -> Iterator[Reply]:
    """Replies to earlier orders that have come; an error in the place of one is no news, and ends the wait for it."""
    for message_id, (node, order) in list((late or {}).items()):
        reply = _pull(grid, message_id, node, order)
        if reply is not None:
            del (late or {})[message_id]
            if reply.content is not None:
                yield reply


def _silence(online: bool, timeout_s: float) -> str:
    """What is known of a site that has not answered."""
    if online:
        return f"no answer within {timeout_s:g} s, and its node is online: it is slow, or its task hangs"
    return f"no answer within {timeout_s:g} s, and its node is offline: the machine, its network or its client is down"


def _push(grid: Grid, messages: Sequence[Message]) -> tuple[dict[str, int], list[int]]:
    """Node by message id, and the nodes whose message the grid did not take.

    One grid answers None for such a message and another leaves it out, so ids are matched, not counted.
    """
    taken = {message_id for message_id in grid.push_messages(messages) if message_id}
    waiting = {m.metadata.message_id: m.metadata.dst_node_id for m in messages if m.metadata.message_id in taken}
    lost = [m.metadata.dst_node_id for m in messages if m.metadata.message_id not in taken]
    return waiting, lost


def _pull(grid: Grid, message_id: str, node: int, order: Order) -> Reply | None:
    try:
        replies = list(grid.pull_messages([message_id]))
    except httpx.HTTPStatusError as error:
        if not error.response.is_server_error:
            raise
        # A SuperLink that is busy with other sites' arrays may fail to look; it is asked again.
        status = error.response.status_code
        _log.warning("the SuperLink could not say whether node %016x has answered (status %d)", node, status)
        return None
    except _BROKEN as error:
        _log.warning("the reply of node %016x cannot be read: %s", node, type(error).__name__)
        return Reply(node=node, order=order, fault=UNREADABLE)
    if not replies:
        return None
    if replies[0].has_error():
        return Reply(node=node, order=order, fault=f"flower_{replies[0].error.code}")
    return Reply(node=node, order=order, content=replies[0].content)


def _rest(grid: Grid, message_ids: Iterable[str], seconds: float) -> None:
    """Sleep so long; less where the grid is of this process, and so knows at once that one of the replies is there."""
    wait: Callable[[Iterable[str], float], None] | None = getattr(grid, "wait_for_any", None)
    if wait is None:
        time.sleep(seconds)
    else:
        wait(message_ids, seconds)


def _pauses() -> Iterator[float]:
    """Growing seconds to sleep between looks."""
    pause, longest = _POLL_S
    while True:
        yield pause
        pause = min(1.5 * pause, longest)
