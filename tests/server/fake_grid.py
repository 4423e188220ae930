"""A grid in this process whose nodes are functions of numpy arrays. Every message passes through Flower's own bytes."""

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np
from flwr.app import Error, Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from protocol.messages import Order, Report
from protocol.records import order_from_record, to_record

Packed = dict[str, np.ndarray]
Node = Callable[[Order, Packed], RecordDict | Error | None]
"""What a node answers; None never answers."""


class FakeGrid(Grid):
    def __init__(self, nodes: Mapping[int, Node], arrival: Iterable[int] = (), refused: Iterable[int] = ()) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self.nodes = dict(nodes)
        self.orders: list[tuple[int, Order]] = []
        self.bytes_sent = 0
        self.most_replies_alive = 0
        self._arrival, self._refused = list(arrival), set(refused)
        self._replies: dict[str, tuple[int, bytes]] = {}
        self._given: list[bytes] = []

    run = property(lambda self: Run.create_empty(1))

    def set_run(self, run):
        raise NotImplementedError

    def create_message(self, *args, **kwargs):
        raise NotImplementedError

    def send_and_receive(self, messages, *, timeout=None):
        raise AssertionError("it holds all replies in memory at once")

    def get_node_ids(self):
        return list(self.nodes)

    def push_messages(self, messages):
        ids = []
        for message in messages:
            node = message.metadata.dst_node_id
            if node in self._refused:
                ids.append("")
                continue
            message_id = f"{message.metadata.group_id}-{node}"
            message.metadata.__dict__["_message_id"] = message_id
            ids.append(message_id)
            self._answer(through_bytes(message)[0])
        return ids

    def pull_messages(self, message_ids):
        (message_id,) = message_ids
        self.most_replies_alive = max(self.most_replies_alive, sum(_is_held(data) for data in self._given))
        waiting = {node: key for key, (node, _) in self._replies.items()}
        earlier = next((node for node in self._arrival if node in waiting), None)
        if message_id not in self._replies or (earlier is not None and waiting[earlier] != message_id):
            return []
        message = from_bytes(self._replies.pop(message_id)[1])
        if message.has_content() and "arrays" in message.content:
            self._given += [array.data for array in message.content["arrays"].values()]
        return [message]

    def _answer(self, message: Message) -> None:
        order, base = order_from_record(message.content)
        node = message.metadata.dst_node_id
        self.orders.append((node, order))
        answer = self.nodes[node](order, base)
        if answer is not None:
            reply = Message(answer, reply_to=message)
            self._replies[message.metadata.message_id] = (node, through_bytes(reply)[1])


def _is_held(data: bytes) -> bool:
    """Whether anyone but the list above, its loop, this function and getrefcount refers to a reply's bytes."""
    return sys.getrefcount(data) > 4


def through_bytes(message: Message) -> tuple[Message, bytes]:
    content = message_to_proto(message).SerializeToString()
    return from_bytes(content), content


def from_bytes(content: bytes) -> Message:
    from flwr.proto.message_pb2 import Message as MessageProto

    return message_from_proto(MessageProto.FromString(content))


def report(order: Order, **changes) -> Report:
    honest = Report(
        run_id=order.run_id,
        round=order.round,
        attempt=order.attempt,
        site="",
        examples=10,
        metrics={"total": 2.0},
        base_digest=order.base_digest,
    )
    return replace(honest, **changes)


def site(name: str, shift: float, examples: int = 10, loss: float = 2.0) -> Node:
    """An honest site: its weights end `shift` times its own noise away from the base."""

    def answer(order: Order, base: Packed) -> RecordDict:
        told = report(order, site=name, examples=examples, metrics={"total": loss})
        if order.action != "train.pretrain":
            return to_record(replace(told, metrics={"overall.accuracy": shift / 10}))
        return to_record(told, difference(order, base, shift))

    return answer


def difference(order: Order, base: Packed, shift: float) -> Packed:
    rng = np.random.default_rng([order.seed, int(shift * 1000)])
    return {name: (shift * rng.normal(size=flat.shape)).astype(flat.dtype) for name, flat in base.items()}
