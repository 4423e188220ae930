"""The three joined sites with approved data cards, and the statistics that a server sums over them."""

import dataclasses
from pathlib import Path

from client.config import RunLimits
from client.datacard.card import build
from client.datacard.publish import publish
from client.datacard.write import write_card
from client.statistics import own_card, own_numbers
from protocol.messages import STATISTICS
from protocol.statistics import folded
from server.home import Home
from server.seal import Post
from server.statistics import overrides_for
from server.statistics_run import run_statistics
from simulations.engine import InProcess
from tests.client.masked import NODES, config, limit
from tests.client.masked_runs import LossyGrid

ACTIONS = [*RunLimits().actions, STATISTICS]


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


def prepare(folder: Path) -> None:
    """Each site with counts of its own, approved, and the consent to sum them."""
    for number, site in enumerate(NODES):
        shorten(folder / site, 3 * number)
        approve(folder / site)
        consent(folder / site)


def plain_sum(folder: Path, sites=tuple(NODES)):
    """The tables of these sites, added up in the clear."""
    numbers = [own_numbers(own_card(folder / site)) for site in sites]
    return folded([sum(column) for column in zip(*numbers, strict=True)])


class Counted:
    """A run of statistics that came to its end, or to an error."""

    def __init__(self, folder, *overrides, run_id="counts", sites=tuple(NODES), resume=False, grid=LossyGrid, **faults):
        settings = config(*overrides_for(sites), f"run_id={run_id}", *overrides)
        self.folder = folder / "runs" / run_id
        self.settings = dataclasses.replace(settings, output_dir=str(self.folder))
        engine, self.lines = InProcess(1), []
        self.grid = grid({node: folder / name for name, node in NODES.items()}, engine, **faults)
        post = Post(Home.open(folder / "hub"), self.settings.federation.only)
        self.published = self.error = None
        try:
            self.published = run_statistics(self.grid, self.settings, self.lines.append, post, resume=resume)
        except Exception as error:
            self.error = error
        finally:
            engine.close()
