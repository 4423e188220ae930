"""Whether a site's log is whole and its receipts add up, and what it says in sum: how much left, and what."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from client.keys import SiteKeys
from client.log import LOG_CONTEXT, site_log_file
from protocol.chainfile import ChainFile
from protocol.compression import Codec
from protocol.errors import SigningError
from protocol.hashchain import Entry, Head, head_of
from protocol.logcheck import Break, head_text, read_log
from protocol.messages import STATISTICS_ACTIONS
from protocol.schema import WeightSchema
from protocol.statistics import VALUES

REMEDY = (
    "put the newest unchanged copy of the file back; until then the site follows no order. If there is none, tell the "
    "privacy officer and the operator: what left after the line before cannot be shown any more"
)
MISCOUNT = "the site's own program wrote this; keep the file and report the fault"
_PLACE = ("federation", "run", "stage", "round", "attempt", "base_digest")


@dataclass(frozen=True, kw_only=True)
class SiteLogSummary:
    """What `mumc-site log verify` shows."""

    file: str
    lines: int
    """Lines that were verified; 0 where the log is broken."""
    head: str
    """COUNT:HASH, for the operator to keep or compare."""
    first: str
    last: str
    orders: int
    replies: int
    updates: int
    """Replies with weights."""
    refusals: int
    turned_away: int
    """Orders that were not the server's, or not new."""
    questions: int
    """Questions that were asked at the site itself; nothing of them left."""
    unanswered: int
    """Orders without a reply: the last is at work, or a crash ended it."""
    runs: tuple[str, ...]
    rounds: int
    bytes_of_weights: int
    bytes_of_messages: int
    metrics: tuple[str, ...]
    withheld: tuple[str, ...]
    epsilon_spent: float | None
    """As the last report had it that had any."""
    server: str
    """COUNT:HASH of the server's log, as the last order told it."""
    breaks: tuple[Break, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.breaks

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"whole": self.whole, **asdict(self)}


def check_site_log(place: Path, anchors: Sequence[Head] = (), key: str = "") -> SiteLogSummary:
    """What a log says, and every break.

    Args:
        place: The site's folder, or a log file.
        anchors: Heads of this log that the server remembers.
        key: The public signing key, where the folder has none any more.

    Raises:
        LogError: there is no log, or it cannot be read.
        SigningError: the folder has no keys and none was given.
    """
    log = log_at(place)
    public = key or _own_key(log.path.parent)
    entries, breaks = read_log(log, public, anchors, REMEDY)
    faults = (Break(line=entry["index"] + 1, cause=cause, remedy=MISCOUNT) for entry, cause in miscounts(entries))
    return summary(log.path, entries, breaks + tuple(faults))


def log_at(place: Path) -> ChainFile:
    """The log in a site's folder, or the log that is this file."""
    return ChainFile(place, LOG_CONTEXT) if place.is_file() else site_log_file(place)


def _own_key(state: Path) -> str:
    """The signing key of the site that a log's folder belongs to."""
    keys, closed = SiteKeys(state.parent), sorted(state.glob("log-until-*.jsonl"))
    if closed and not keys.exists:
        raise SigningError(
            f"this site has left its federation, and its keys are destroyed; verify {closed[-1]} with --key, the "
            f"signing key in {state.parent / 'leave-NAME.json'}"
        )
    return SiteKeys.open(state.parent).public[1]


def summary(path: Path, entries: Sequence[Entry], breaks: tuple[Break, ...]) -> SiteLogSummary:
    """The figures of entries that were verified."""
    orders = [entry for entry in entries if entry["kind"] == "order"]
    replies = [entry for entry in entries if entry["kind"] == "reply"]
    reports = [entry for entry in replies if entry["answer"] == "report"]
    sums = [entry for entry in reports if entry["stage"] in STATISTICS_ACTIONS.values()]
    counted = sum(entry["bytes"] for entry in sums)
    spent = [entry["epsilon_spent"] for entry in reports if entry["epsilon_spent"] is not None]
    sent = [entry for entry in entries if "message_bytes" in entry]
    return SiteLogSummary(
        file=str(path),
        lines=len(entries),
        head=head_text(head_of(entries[-1]) if entries else Head()),
        first=entries[0]["time"] if entries else "",
        last=entries[-1]["time"] if entries else "",
        orders=len(orders),
        replies=len(replies),
        updates=sum(entry["bytes"] > 0 for entry in reports) - sum(entry["bytes"] > 0 for entry in sums),
        refusals=len(replies) - len(reports),
        turned_away=sum(entry["kind"] == "turned_away" for entry in entries),
        questions=sum(entry["kind"] == "question" for entry in entries),
        unanswered=len({entry["nonce"] for entry in orders} - {entry["nonce"] for entry in replies}),
        runs=tuple(sorted({entry["run"] for entry in orders})),
        rounds=len({(entry["run"], entry["round"]) for entry in orders}),
        bytes_of_weights=sum(entry["bytes"] for entry in replies) - counted,
        bytes_of_messages=sum(entry["message_bytes"] for entry in sent) + counted,
        metrics=tuple(sorted({name for entry in reports for name in entry["metrics"]})),
        withheld=tuple(sorted({name for entry in reports for name in entry["withheld"]})),
        epsilon_spent=spent[-1] if spent else None,
        server=head_text(Head(**orders[-1]["server"])) if orders else head_text(Head()),
        breaks=breaks,
    )


def miscounts(entries: Sequence[Entry]) -> Iterator[tuple[Entry, str]]:
    """Each receipt that does not add up, or answers no order, and why."""
    open_orders: dict[str, Entry] = {}
    forms: dict[str, WeightSchema] = {}
    for entry in entries:
        if entry["kind"] == "order":
            open_orders[entry["nonce"]] = entry
        elif entry["kind"] == "schema":
            form = WeightSchema(
                names=tuple(name for name, _, _ in entry["tensors"]),
                shapes=tuple(tuple(shape) for _, shape, _ in entry["tensors"]),
                dtypes=tuple(dtype for _, _, dtype in entry["tensors"]),
            )
            forms[form.digest] = form
        elif entry["kind"] == "reply":
            order = open_orders.pop(entry["nonce"], None)
            cause = _unasked(entry, order) or (_miscount(entry, forms) if entry["answer"] == "report" else "")
            if cause:
                yield entry, cause


def _unasked(reply: Entry, order: Entry | None) -> str:
    if order is None:
        return "the reply answers no order before it, or one that has its reply"
    other = [name for name in _PLACE if reply[name] != order[name]]
    return f"the reply has another {other[0]} than its order" if other else ""


def _miscount(receipt: Entry, forms: dict[str, WeightSchema]) -> str:
    arrays, groups = receipt["arrays"], receipt["tensors"]
    sizes = {name: math.prod(array["shape"]) for name, array in arrays.items()}
    if any(array["bytes"] != sizes[name] * np.dtype(array["dtype"]).itemsize for name, array in arrays.items()):
        return "an array's bytes are not those of its shape"
    if receipt["bytes"] != sum(array["bytes"] for array in arrays.values()):
        return f"the arrays come to other bytes than the {receipt['bytes']:,} of the reply"
    if receipt["stage"] in STATISTICS_ACTIONS.values():
        return "" if set(sizes.values()) <= {VALUES} else "what left for a sum of counts has another length than it has"
    if bool(arrays) != bool(groups):
        return "arrays left, and no tensors are named"
    if not groups:
        return ""
    if (form := forms.get(receipt["schema"])) is None:
        return "no line before it names the tensors of this form"
    values = {name: group["values"] for name, group in groups.items()}
    named = dict.fromkeys(values, 0)
    for name, shape, _ in form:
        named[name.split(".")[0]] = named.get(name.split(".")[0], 0) + math.prod(shape)
    codec = Codec.of(receipt["codec"])
    written = codec.form(codec.sent(form).flat_sizes)
    if values != named or sum(size for _, size in written.values()) != sum(sizes.values()):
        return f"the tensors come to {sum(values.values()):,} values, and other arrays left than hold these"
    norms = [group["norm"] for group in groups.values() if group["norm"] is not None]
    if norms and not math.isclose(receipt["norm"], math.hypot(*norms), rel_tol=1e-9):
        return f"the norms of the parts come to {math.hypot(*norms):.6g}, and the reply says {receipt['norm']:.6g}"
    return ""
