"""Four joined sites with approved data cards, the statistics that a server sums over them, and a server that lies."""

import dataclasses
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.app import app
from client.config import RunLimits
from client.datacard.card import build
from client.datacard.publish import publish
from client.datacard.write import write_card
from client.log import site_log_file
from client.statistics import own_card, own_numbers
from protocol.envelope import payload_digest
from protocol.messages import STATISTICS, STATISTICS_ACTIONS, Order
from protocol.records import reply_from_record, to_record
from protocol.secagg.session import Session
from protocol.statistics import DIGEST, folded
from server.home import Home, SecaggFile
from server.seal import Post
from server.statistics import overrides_for
from server.statistics_run import counting_session, counting_terms, run_statistics
from simulations.engine import InProcess
from tests.client.masked import config, limit
from tests.client.masked_runs import LossyGrid
from tests.federation import join

NODES = {"ash": 101, "birch": 102, "cedar": 103, "dogwood": 104}
ALL = tuple(NODES)
ACTIONS = [*RunLimits().actions, STATISTICS]


def join_four(place: Path, data: Path) -> None:
    """The federation's folder and those of its sites, each with counts of its own that a person has approved."""
    join(place, data, NODES, dict.fromkeys(NODES, 10), secagg=SecaggFile(colluding=0))
    for number, site in enumerate(NODES):
        shorten(place / site, 3 * number)
        approve(place / site)
        consent(place / site)


def consent(root: Path, **limits) -> None:
    """The site's engineer lets the counts of its approved card go into sums."""
    limit(root, **{"actions": ACTIONS, "secure_aggregation": "required"} | limits)


def approve(root: Path) -> None:
    """The card of the data as it is, approved by a person."""
    card = build(root)
    write_card(root, card)
    publish(root, card, "dr-ash")


def shorten(root: Path, rows: int) -> None:
    """The site without its last questions."""
    lines = (root / "vqa.jsonl").read_text().splitlines(keepends=True)
    (root / "vqa.jsonl").write_text("".join(lines[: len(lines) - rows]))


def plain_sum(folder: Path, sites=ALL):
    """The tables of these sites, added up in the clear."""
    numbers = [own_numbers(own_card(folder / site)) for site in sites]
    return folded([sum(column) for column in zip(*numbers, strict=True)])


def lines(root: Path, kind="statistics"):
    """The lines of a kind in the site's log."""
    return [entry for entry in site_log_file(root).entries() if entry["kind"] == kind]


def steps(root: Path):
    """What the site's log says of sums: run and step."""
    return [(line["run"], line["step"]) for line in lines(root)]


class Counted:
    """A run of statistics that came to its end, or to an error."""

    def __init__(self, folder, run_id="counts", sites=ALL, attempts=3, resume=False, **faults):
        usual = config(*overrides_for(sites))
        self.folder = folder / "runs" / run_id
        federation = dataclasses.replace(usual.federation, attempts=attempts)
        self.settings = dataclasses.replace(usual, run_id=run_id, output_dir=str(self.folder), federation=federation)
        engine, self.records = InProcess(1), []
        self.grid = LossyGrid({node: folder / name for name, node in NODES.items()}, engine, **faults)
        post = Post(Home.open(folder / "hub"), self.settings.federation.only)
        self.published = self.error = None
        try:
            self.published = run_statistics(self.grid, self.settings, self.records.append, post, resume=resume)
        except Exception as error:
            self.error = error
        finally:
            engine.close()


class Liar:
    """A server that asks one site what it likes, rightly signed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.post = folder, Post(Home.open(folder / "hub"))
        self.terms = counting_terms(config(*overrides_for(ALL)), self.post)

    def order(self, action=STATISTICS_ACTIONS["advertise"], masking=None, **changes) -> Order:
        plain = {"run_id": "lie", "round": 1, "attempt": 1, "recipe": {}, "vocabulary": (), "first_step": 0}
        plain |= {"steps": 0, "total_steps": 0, "seed": 0, "base_digest": DIGEST}
        return Order(**plain | {"action": action, "masking": masking or {"stage": "advertise"}} | changes)

    def session(self, **changes) -> Session:
        session = counting_session(self.terms, self.order())
        return dataclasses.replace(session, **changes)

    def advertise(self, site="ash", **changes):
        """What the site answers to a session that is changed so."""
        return self.ask(site, self.order(masking=self.session(**changes).to_dict()))

    def ask(self, site: str, order: Order, base=None):
        """The site's answer, through all layers of its client."""
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        base = base or {}
        record = to_record(order, base, self.post.seal(order, NODES[site], payload_digest(order, base)))
        message = Message(record, NODES[site], order.action)
        message.metadata.__dict__["_message_id"] = "message-1"
        node = {"site": str(self.folder / site), "trial": True}
        context = Context(run_id=1, node_id=NODES[site], node_config=node, state=RecordDict(), run_config={})
        return reply_from_record(app(message, context).content)[0]
