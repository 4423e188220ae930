"""Two sites that have joined a federation, and their server, with real keys, folders and logs."""

import dataclasses
import shutil
from pathlib import Path

import yaml
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.app import app
from client.joining import check_answer, prepare
from configs.compose import compose
from configs.loader import load
from protocol.enrolment import Join
from protocol.envelope import payload_digest
from protocol.papers import read_paper
from protocol.records import to_record
from server.config import RunConfig
from server.federation import FederationResult, run
from server.home import FederationFile, Home
from server.joining import admit, create, publish
from server.roster import SiteRegister
from server.seal import Post, write_nodes
from simulations.engine import EngineConfig, open_engine
from simulations.grid import LocalGrid
from tests.client.conftest import TINY

NODES = {"north": 101, "south": 102}
CODE = "c" * 64
LIMITS = {"secure_aggregation": "allowed", "min_records": 1}


@dataclasses.dataclass
class Federation:
    """The server's folder, the sites' by name, and the orders of one run."""

    home: Home
    sites: dict
    run: object

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
        post.check(NODES[site], reply)
        return reply

    def limit(self, site="north", **limits):
        """Set the limits of a site."""
        path = self.sites[site] / "site.yaml"
        settings = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump(settings | {"policy": {"runs": LIMITS | limits}}))

    def play(self, output: Path, *overrides: str, grid=LocalGrid) -> FederationResult:
        """A whole run of all sites."""
        config = load(RunConfig, compose("run", [*TINY, f"output_dir={output}", *overrides]))
        engine = open_engine(EngineConfig(workers=1), output.with_suffix(".log"))
        try:
            return run(grid({NODES[n]: root for n, root in self.sites.items()}, engine), config, post=self.post())
        finally:
            engine.close()


def join_federation(place: Path, folder: Path, orders: object) -> Federation:
    """Make it: every site a copy of the folder."""
    home = create(place / "hub", FederationFile(name="lung", address="localhost:9092"), 30)
    register, sites = SiteRegister.read(home), {}
    for name in NODES:
        sites[name] = place / name
        shutil.copytree(folder, sites[name])
        (sites[name] / "site.yaml").write_text(f"name: {name}\ndevice: cpu\n")
        _, enrolment = prepare(sites[name], name, 10)
        register = admit(home, enrolment)
        publish(home, register)
    for name, root in sites.items():
        check_answer(root, read_paper(Join, home.join_file(name)), replace=False).take_in()
    write_nodes(home, NODES)
    found = Federation(home, sites, orders)
    for name in NODES:
        found.limit(name)
    return found
