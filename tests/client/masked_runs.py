"""Whole runs of the three sites over a grid on which messages get lost and replies are changed."""

import dataclasses
from pathlib import Path

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from protocol.records import order_from_record
from server.errors import FederationError
from server.federation import run
from server.home import Home
from server.journal import read_journal
from server.seal import Post
from simulations.engine import InProcess
from simulations.grid import LocalGrid
from tests.client.masked import NODES, config


class LossyGrid(LocalGrid):
    """A grid on which chosen orders meet a site that is gone, or whose task crashes once; replies can be changed."""

    def __init__(self, sites, engine, lost=(), crashed=(), change=None):
        super().__init__(sites, engine)
        self._names = {node: path.name for node, path in sites.items()}
        self._lost, self._crashed, self._change = set(lost), set(crashed), change or (lambda order, reply: reply)
        self._dead = {}
        self.asked = []

    def push_messages(self, messages):
        ids = []
        for message in messages:
            order, _ = order_from_record(message.content)
            place = (self._names[message.metadata.dst_node_id], order.round, order.attempt, order.stage or order.action)
            self.asked.append(place)
            if place in self._lost | self._crashed:
                ids.append(f"dead-{len(self.asked)}")
                message.metadata.__dict__["_message_id"] = ids[-1]
                code = ErrorCode.NODE_UNAVAILABLE if place in self._lost else ErrorCode.CLIENT_APP_CRASHED
                self._crashed.discard(place)
                self._dead[ids[-1]] = code, message
            else:
                ids += super().push_messages([message])
        return ids

    def pull_messages(self, message_ids):
        ids = list(message_ids)
        replies = [
            Message(Error(self._dead[i][0], "gone"), reply_to=self._dead.pop(i)[1]) for i in ids if i in self._dead
        ]
        return replies + [self._changed(reply) for reply in super().pull_messages(ids)]

    def _changed(self, reply):
        if reply.has_content():
            reply.content = self._change(reply.metadata.src_node_id, reply.content)
        return reply


class Played:
    """A run that came to its end, or to a FederationError."""

    def __init__(self, folder, *overrides, lost=(), crashed=(), change=None):
        settings = config("federation.final=none", *overrides)
        self.settings = dataclasses.replace(settings, output_dir=str(folder / "out"))
        sites = {node: folder / name for name, node in NODES.items()}
        engine = InProcess(1)
        self.grid = LossyGrid(sites, engine, lost, crashed, change)
        self.error = None
        try:
            self.result = run(self.grid, self.settings, post=Post(Home.open(folder / "hub")))
        except FederationError as error:
            self.error = error
        finally:
            engine.close()

    @property
    def records(self):
        return read_journal(Path(self.settings.output_dir) / "journal.jsonl")
