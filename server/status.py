"""What the operator sees at a glance: the sites, who is missing and since when, and the runs with their last round."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table
from rich.text import Text

from server.control import Control, FlowerRun, Node
from server.datacards import Held, held
from server.errors import OutputError
from server.history import History
from server.history import losses as told_losses
from server.home import Home
from server.journal import RoundRecord, name_lost, read_journal
from server.output import JOURNAL
from server.roster import SiteRegister
from server.seal import read_nodes

NEWEST = 5
COMPLETED, WITH_LOSSES = "finished:completed", "finished:with losses"
"""Flower's state of a run that came to its end, and ours of one that did so without some of its sites."""


@dataclass(frozen=True, kw_only=True)
class SiteStatus:
    """One enrolled site."""

    name: str
    state: str
    """`online`, `missing` or `never seen`."""
    since: str
    """ISO time of that state; of the enrolment, where it was never seen."""
    card: str
    """The day on which its data was counted, `none`, or `damaged`; see `server/datacards.py`."""


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """One run."""

    name: str
    state: str
    started: str
    rounds: int
    """That it is to have, of pre-training; 0 where that is not known."""
    round: int
    """Last that ended."""
    sites: str
    """Merged and expected in that round."""
    lost: str
    """Which sites that were asked in that round are not in it, and why."""
    details: str


@dataclass(frozen=True, kw_only=True)
class Status:
    """Everything."""

    federation: str
    sites: tuple[SiteStatus, ...]
    runs: tuple[RunStatus, ...]


def look(home: Home, link: Control) -> Status:
    """The state of a federation now.

    Raises:
        ControlError: its SuperLink does not answer.
    """
    by_id = {node.node_id: node for node in link.nodes()}
    nodes = {name: by_id.get(node_id) for name, node_id in read_nodes(home).items()}
    cards = {one.site: _card(one) for one in held(home)}
    sites = [
        _site(site.name, site.enrolled, nodes.get(site.name), cards[site.name])
        for site in SiteRegister.read(home).active
    ]
    runs = [_run(run) for run in link.runs()[:NEWEST]]
    return Status(federation=home.config().name, sites=tuple(sites), runs=tuple(runs))


def tables(status: Status) -> list[Table]:
    """The same for a terminal."""
    sites = Table("site", "state", "since", "data card", box=None, pad_edge=False)
    for site in status.sites:
        style = "green" if site.state == "online" else "red"
        sites.add_row(site.name, Text(site.state, style), _ago(site.since), site.card)
    if not status.runs:
        return [sites]
    runs = Table("run", "state", "round", "sites", box=None, pad_edge=False)
    for run in status.runs:
        runs.add_row(Text(run.name, no_wrap=True), run.state, f"{run.round}/{run.rounds}", run.sites)
    why = Table("run", "lost in its last round, or why it ended", box=None, pad_edge=False)
    for run in status.runs:
        if run.details or run.lost:
            why.add_row(Text(run.name, no_wrap=True), Text(run.details or run.lost))
    return [sites, runs, why] if why.row_count else [sites, runs]


def _site(name: str, enrolled: str, node: Node | None, card: str) -> SiteStatus:
    if node is None or not node.since:
        return SiteStatus(name=name, state="never seen", since=enrolled, card=card)
    state = "online" if node.status == "online" else "missing"
    return SiteStatus(name=name, state=state, since=node.since, card=card)


def _card(one: Held) -> str:
    return one.card.made if one.card else "damaged" if one.fault else "none"


def losses(folder: Path) -> str:
    """What a finished run did without, in sentences; empty where every site was in all of it."""
    try:
        return " ".join(told_losses(History.read(folder)))
    except OutputError as error:
        return f"What it did without is not known: {error}"


def _run(run: FlowerRun) -> RunStatus:
    folder = Path(run.output_dir) if run.output_dir else None
    records = _records(folder) if folder else []
    last = records[-1] if records else None
    whole = run.status != COMPLETED or folder is None or not losses(folder)
    return RunStatus(
        name=run.name,
        state=run.status if whole else WITH_LOSSES,
        started=run.started,
        rounds=max(run.rounds, last.round if last else 0),
        round=last.round if last else 0,
        sites=f"{last.sites_merged}/{last.sites_expected}" if last else "",
        lost=name_lost(last.refused, last.reasons) if last else "",
        details=run.details or ("" if whole or folder is None else losses(folder)),
    )


def _records(folder: Path) -> list[RoundRecord]:
    try:
        return read_journal(folder / JOURNAL)
    except OutputError:
        return []


def _ago(moment: str) -> str:
    """`2026-11-25 18:03 UTC (4 min ago)`."""
    try:
        then = datetime.fromisoformat(moment).astimezone(UTC)
    except ValueError:
        return moment
    seconds = max(0.0, (datetime.now(UTC) - then).total_seconds())
    for size, word in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size or (size == 60 and seconds >= size):
            return f"{then:%Y-%m-%d %H:%M} UTC ({seconds // size:.0f} {word} ago)"
    return f"{then:%Y-%m-%d %H:%M} UTC ({seconds:.0f} s ago)"
