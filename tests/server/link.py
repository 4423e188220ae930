"""A SuperLink that only remembers what it was asked."""

import json
from dataclasses import dataclass, field

from server.control import FlowerRun, Node
from server.errors import ControlError


@dataclass
class Link:
    """Answers as `server.control.Control` does."""

    away: bool = False
    known: list = field(default_factory=list)
    submitted: list = field(default_factory=list)
    resumed: list = field(default_factory=list)
    ended: list = field(default_factory=list)
    stopped: list = field(default_factory=list)
    asked: int = 0

    def nodes(self):
        self.asked += 1
        if self.away:
            raise ControlError("the SuperLink does not answer")
        return list(self.known)

    def register(self, public_pem, name):
        self.known.append(Node(node_id=100 + len(self.known), public_key=public_pem, status="registered", since=""))
        return self.known[-1].node_id

    def unregister(self, node_id):
        self.set(node_id, "unregistered")

    def set(self, node_id, status, since="2026-11-25T12:00:00+00:00"):
        self.known = [
            Node(node_id=node.node_id, public_key=node.public_key, status=status, since=since)
            if node.node_id == node_id
            else node
            for node in self.known
        ]

    def submit(self, bundle, config, *, resume=False):
        run = json.loads(config["run-json"])
        self.resumed += [run["run_id"]] * resume
        self.submitted.append(run)
        return len(self.submitted)

    def runs(self):
        return [
            FlowerRun(
                flower_id=number,
                name=run["run_id"],
                rounds=run["federation"]["rounds"],
                output_dir=run["output_dir"],
                status="finished:completed" if number in self.ended else "running",
                started=f"2026-11-25T12:0{number}:00+00:00",
                details="",
            )
            for number, run in enumerate(self.submitted, start=1)
        ]

    def stop(self, flower_id):
        self.stopped.append(flower_id)

    def logs(self, flower_id):
        yield "round   1 | sites 2/2\n"
        self.ended.append(flower_id)
