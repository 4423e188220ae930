"""Whether the server's log is whole and fits what it remembers of the sites' logs, and what it says in sum."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from protocol.hashchain import Entry, Head, head_of
from protocol.logcheck import Break, head_text, read_log
from protocol.signing import public_hex
from server.datacards import held, strayed
from server.home import Home
from server.log import Known, read_heads, server_log

REMEDY = (
    "put the newest unchanged copy of the file back before the next run: every site refuses a server whose log has "
    "become shorter or another"
)
HEADS_REMEDY = "put the newest state/heads.json back, or the newest copy of the whole folder"
CARD_REMEDY = "take the site's newest public.json in again: mumc-server datacard add DIR FILE"
_PLACE = ("site", "run", "stage", "round", "attempt")


@dataclass(frozen=True, kw_only=True)
class SiteTraffic:
    """What the log says of one site."""

    asked: int = 0
    accepted: int = 0
    refused: int = 0
    """Refusals of the site, and replies that the server did not take."""
    bytes_came: int = 0
    head: str = ""
    """COUNT:HASH of the site's own log, as its last reply told it: for `mumc-site log verify --head`."""


@dataclass(frozen=True, kw_only=True)
class ServerLogSummary:
    """What `mumc-server log verify` shows."""

    file: str
    lines: int
    head: str
    first: str
    last: str
    orders: int
    unanswered: int
    """Orders without a reply: the site did not answer in time, or is still at work."""
    runs: tuple[str, ...]
    rounds: int
    bytes_came: int
    sites: Mapping[str, SiteTraffic]
    breaks: tuple[Break, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.breaks

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"whole": self.whole, **asdict(self)}


def check_server_log(home: Home, anchors: Sequence[Head] = ()) -> ServerLogSummary:
    """What the log says, and every break; anchors are heads of it that sites remember.

    Raises:
        LogError: there is no log, or it cannot be read.
    """
    log = server_log(home)
    entries, breaks = read_log(log, public_hex(home.signer()), anchors, REMEDY)
    if not breaks:
        breaks = tuple(Break(line=n, cause=cause, remedy=REMEDY) for n, cause in misfits(entries))
        breaks += tuple(
            Break(line=n, cause=cause, remedy=HEADS_REMEDY) for n, cause in forgotten(entries, read_heads(home))
        )
        breaks += tuple(Break(line=n, cause=cause, remedy=CARD_REMEDY) for n, cause in strayed(entries, held(home)))
    return summary(log.path, entries, breaks)


def summary(path: Path, entries: Sequence[Entry], breaks: tuple[Break, ...]) -> ServerLogSummary:
    """The figures of entries that were verified."""
    orders = [entry for entry in entries if entry["kind"] == "order"]
    replies = [entry for entry in entries if entry["kind"] == "reply"]
    return ServerLogSummary(
        file=str(path),
        lines=len(entries),
        head=head_text(head_of(entries[-1]) if entries else Head()),
        first=entries[0]["time"] if entries else "",
        last=entries[-1]["time"] if entries else "",
        orders=len(orders),
        unanswered=len({entry["nonce"] for entry in orders} - {entry["nonce"] for entry in replies}),
        runs=tuple(sorted({entry["run"] for entry in orders})),
        rounds=len({(entry["run"], entry["round"]) for entry in orders}),
        bytes_came=sum(entry["bytes"] for entry in replies),
        sites={name: _traffic(name, orders, replies) for name in sorted({entry["site"] for entry in orders})},
        breaks=breaks,
    )


def misfits(entries: Sequence[Entry]) -> Iterator[tuple[int, str]]:
    """The line of each reply that answers no order, or with which a site's own log went back, and why."""
    asked: dict[str, Entry] = {}
    known: dict[str, int] = {}
    for entry in entries:
        if entry["kind"] == "order":
            asked[entry["nonce"]] = entry
        elif entry["kind"] == "revoked":
            known.pop(entry["site"], None)
        elif entry["kind"] == "reply":
            order = asked.pop(entry["nonce"], None)
            if order is None or any(order[name] != entry[name] for name in _PLACE):
                yield entry["index"] + 1, "the reply answers no order before it, or one that has its reply"
            if entry["heads"]:
                site, count = entry["site"], entry["heads"]["log"]["count"]
                if count < known.get(site, 0):
                    yield entry["index"] + 1, f"the log of {site} went from {known[site]} lines to {count}"
                known[site] = count


def forgotten(entries: Sequence[Entry], heads: Mapping[str, Known]) -> Iterator[tuple[int, str]]:
    """The line of each site's head that the log has and `state/heads.json` has lost, and what is there instead."""
    last: dict[str, Entry] = {}
    for entry in entries:
        if entry["kind"] == "reply" and entry["heads"]:
            last[entry["site"]] = entry
        elif entry["kind"] == "revoked":
            last.pop(entry["site"], None)
    for site, entry in sorted(last.items()):
        told, kept = Head(**entry["heads"]["log"]), heads.get(site, Known()).log
        if kept.count < told.count or (kept.count == told.count and kept != told):
            yield (
                entry["index"] + 1,
                f"the log of {site} had {told.count} lines, and heads.json remembers {kept.count} or others",
            )


def _traffic(name: str, orders: Sequence[Entry], replies: Sequence[Entry]) -> SiteTraffic:
    own = [entry for entry in replies if entry["site"] == name]
    heads = [entry["heads"]["log"] for entry in own if entry["heads"]]
    return SiteTraffic(
        asked=sum(entry["site"] == name for entry in orders),
        accepted=sum(entry["what"] == "accepted" for entry in own),
        refused=sum(entry["what"] != "accepted" for entry in own),
        bytes_came=sum(entry["bytes"] for entry in own),
        head=head_text(Head(**heads[-1])) if heads else head_text(Head()),
    )
