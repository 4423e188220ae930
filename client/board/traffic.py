"""What taking part has moved and used, from the site's own log: rounds, bytes, hours and energy."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from client.board.facts import Effort, NotMeasured
from client.board.prices import Prices
from client.log_check import check_site_log, log_at
from protocol.errors import LogError, SigningError
from protocol.hashchain import Entry

J_PER_KWH = 3.6e6


def effort_of(root: Path, prices: Prices) -> Effort:
    """What the verified log of the site in the folder tells; nothing is taken from a log that is not whole."""
    try:
        found = check_site_log(root)
    except (LogError, SigningError):
        return unknown_effort("this site has no log of a federation that it is in")
    if not found.whole:
        return unknown_effort("the site's log does not verify (mumc-site log verify says where)")
    return effort_from(log_at(root).entries(), prices)


def effort_from(entries: Sequence[Entry], prices: Prices) -> Effort:
    """The same from the lines of a log. An order without a reply has moved what came, and its time is not known."""
    orders = {entry["nonce"]: entry for entry in entries if entry["kind"] == "order"}
    replies = [entry for entry in entries if entry["kind"] == "reply" and entry["nonce"] in orders]
    rounds = {
        (entry["run"], entry["round"])
        for entry in replies
        if entry["stage"] == "train.pretrain" and entry["answer"] == "report"
    }
    hours = sum(_seconds(orders[entry["nonce"]], entry) for entry in replies) / 3600
    kwh, counted = _energy(replies, hours, prices.watts)
    return Effort(
        rounds=len(rounds),
        bytes_up=sum(entry["bytes"] + entry["message_bytes"] for entry in replies),
        bytes_down=sum(entry["bytes"] for entry in orders.values()),
        hours=hours,
        kwh=kwh,
        counted=counted,
    )


def unknown_effort(why: str) -> Effort:
    """Nothing is known of what was moved and used."""
    names = ("rounds taken part in", "bytes sent", "bytes received", "hours of the machine", "energy used")
    rounds, up, down, hours, kwh = (NotMeasured(name, why) for name in names)
    return Effort(rounds=rounds, bytes_up=up, bytes_down=down, hours=hours, kwh=kwh)


def energy_at(hours: float, watts: float | None) -> tuple[float | NotMeasured, str]:
    """Energy in kWh by the site's own figure of what its machine draws."""
    if watts is None:
        return NotMeasured("energy used", "no counter was read; not entered: watts"), ""
    return hours * watts / 1000, f"hours x {watts:g} W, the site's own figure"


def _energy(replies: Sequence[Entry], hours: float, watts: float | None) -> tuple[float | NotMeasured, str]:
    """What counters say, if they were read for every reply; else by the site's own figure."""
    metered = [entry["energy"] for entry in replies if entry.get("energy")]
    if not metered or len(metered) < len(replies):
        return energy_at(hours, watts)
    counters = {name for energy in metered for name in energy["counters"]}
    kinds = [
        kind
        for kind, inside in (
            ("processors", any(not name.startswith("gpu:") for name in counters)),
            ("GPUs", any(name.startswith("gpu:") for name in counters)),
        )
        if inside
    ]
    return sum(energy["joules"] for energy in metered) / J_PER_KWH, f"counters of {' and '.join(kinds)} alone"


def _seconds(order: Entry, reply: Entry) -> float:
    start, end = (datetime.fromisoformat(entry["time"]) for entry in (order, reply))
    return max(0.0, (end - start).total_seconds())
