"""Two sites that have joined a federation, and their server: orders go out and replies come back."""

import dataclasses
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.app import app
from configs.compose import compose
from configs.loader import load
from protocol.envelope import payload_digest
from protocol.records import to_record
from server.config import RunConfig
from server.federation import FederationResult, run
from server.home import Home
from server.seal import Post
from simulations.engine import EngineConfig, open_engine
from simulations.grid import LocalGrid
from tests import federation
from tests.client.conftest import TINY

NODES = {"north": 101, "south": 102}
CODE = "c" * 64


@dataclasses.dataclass
class Federation:
    """The server's folder, the sites' by name, and the orders of one run."""

    home: Home
    sites: dict
    run: object

    @classmethod
    def open(cls, place: Path, run: object) -> "Federation":
        """That of a folder in which `tests.federation.join` made it."""
        return cls(Home.open(place / "hub"), {name: place / name for name in NODES}, run)

    def post(self):
        """The server's side, as a fresh process has it."""
        return Post(self.home)

    def sealed(self, post, order, site="north"):
        """The order as it travels to a site."""
        base = {} if order.action == "evaluate.vqa" else self.run.base
        return to_record(order, base, post.seal(order, NODES[site], payload_digest(order, base)))

    def ask(self, record, site="north", code=CODE, message_type="train.pretrain"):
        """What the site's app replies."""
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        message = Message(record, NODES[site], message_type)
        message.metadata.__dict__["_message_id"] = "message-1"
        node = {"site": str(self.sites[site]), "code": code, "installed": CODE}
        context = Context(run_id=1, node_id=NODES[site], node_config=node, state=RecordDict(), run_config={})
        return app(message, context).content

    def exchange(self, order, site="north"):
        """One order to a site, its reply taken by the server."""
        post = self.post()
        reply = self.ask(self.sealed(post, order, site), site, message_type=order.action)
        post.check(NODES[site], reply, order)
        return reply

    def limit(self, site="north", **limits):
        """Set the limits of a site; those that are not named are as at first."""
        federation.limit(self.sites[site], **federation.LIMITS | limits)

    def play(self, output: Path, *overrides: str, grid=LocalGrid) -> FederationResult:
        """A whole run of all sites."""
        config = load(RunConfig, compose("run", [*TINY, f"output_dir={output}", *overrides]))
        engine = open_engine(EngineConfig(workers=1), output.with_suffix(".log"))
        try:
            return run(grid({NODES[n]: root for n, root in self.sites.items()}, engine), config, post=self.post())
        finally:
            engine.close()


def join_two(place: Path, data: Path) -> None:
    """Make the folders of the federation and of its sites, which are copies of the data."""
    federation.join(place, data, NODES, dict.fromkeys(NODES, 10))
