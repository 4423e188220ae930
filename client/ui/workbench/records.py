"""What the site's own log says, ready to be shown: nothing here is computed anew, and nothing is asked of a server."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from client.cli_log import line_words
from client.log import site_log_file
from protocol.hashchain import Entry
from protocol.score_curve import SHARE_METRICS

LAST = 30
"""So many of the newest lines are shown; `mumc-site log show` prints all."""

Row = tuple[str, ...]


def entries_of(root: Path) -> list[Entry]:
    """Every line of the site's log; none where there is no log.

    Raises:
        ProtocolError: the log cannot be read.
    """
    return site_log_file(root).entries()


def question_rows(entries: Sequence[Entry]) -> list[Row]:
    """The last questions, the newest first: line, and what `mumc-site log show` prints of it."""
    asked = [entry for entry in entries if entry["kind"] == "question"]
    return [(str(entry["index"] + 1), line_words(entry)) for entry in reversed(asked[-LAST:])]


def losses_by_run(entries: Sequence[Entry]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """The losses of pre-training, by run and name over rounds, the newest run first; the last attempt counts."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for entry in _reports(entries, "train.pretrain"):
        run = found.setdefault(entry["run"], {})
        for name, value in entry["metrics"].items():
            run.setdefault(name, {})[entry["round"]] = value
    return {
        run: {name: sorted(points.items()) for name, points in losses.items()}
        for run, losses in reversed(found.items())
        if losses
    }


def tested_rows(entries: Sequence[Entry]) -> list[Row]:
    """What fine-tuning and evaluation in runs have found, the newest first."""
    found = [
        entry for stage in ("train.finetune", "evaluate.vqa") for entry in _reports(entries, stage) if entry["metrics"]
    ]
    return [
        (
            f"{entry['run']}, round {entry['round']}",
            entry["stage"],
            _metrics(entry["metrics"]),
        )
        for entry in sorted(found, key=lambda entry: -entry["index"])
    ]


def run_rows(entries: Sequence[Entry]) -> list[Row]:
    """Each run that this site was asked in: rounds answered, last round, steps, records, and what it is at."""
    runs = dict.fromkeys(entry["run"] for entry in entries if entry["kind"] == "order")
    return [_run_row(run, [entry for entry in entries if entry.get("run") == run]) for run in reversed(runs)]


def round_rows(entries: Sequence[Entry]) -> list[Row]:
    """What the site was asked for and what it answered, the newest first."""
    replies = {entry["nonce"]: entry for entry in entries if entry["kind"] == "reply"}
    orders = [entry for entry in entries if entry["kind"] == "order"]
    return [_round_row(order, replies.get(order["nonce"])) for order in reversed(orders[-LAST:])]


def refusal_rows(entries: Sequence[Entry]) -> list[Row]:
    """Orders that were refused or turned away, with the reason, the newest first."""
    found = [entry for entry in entries if entry["kind"] == "turned_away" or entry.get("answer") == "refusal"]
    return [
        (
            when(entry),
            f"{entry['run']}, round {entry['round']}: {entry['stage']}" if "run" in entry else entry["stage"],
            entry["code"],
            entry.get("why") or entry["text"],
        )
        for entry in reversed(found[-LAST:])
    ]


def open_orders(entries: Sequence[Entry]) -> list[Entry]:
    """Orders without a reply: the last is at work, or a crash ended it."""
    answered = {entry["nonce"] for entry in entries if entry["kind"] == "reply"}
    return [entry for entry in entries if entry["kind"] == "order" and entry["nonce"] not in answered]


def withheld(entries: Sequence[Entry]) -> list[str]:
    """Names of metrics that never left."""
    return sorted({name for entry in entries if entry["kind"] == "reply" for name in entry.get("withheld", ())})


def when(entry: Entry) -> str:
    """The time of a line, to the second, in UTC."""
    return str(entry["time"])[:19].replace("T", " ")


def _metrics(metrics: Mapping[str, float]) -> str:
    """Their numbers; of the curve that short lists are made with, only that it was sent."""
    curve = set(metrics) & set(SHARE_METRICS)
    said = [f"{name} {value:.4g}" for name, value in sorted(metrics.items()) if name not in curve]
    return "; ".join([*said, *([f"and {len(curve)} points of the curve for short lists"] if curve else [])])


def _reports(entries: Sequence[Entry], stage: str) -> list[Entry]:
    return [entry for entry in entries if entry.get("answer") == "report" and entry["stage"] == stage]


def _run_row(run: str, lines: Sequence[Entry]) -> Row:
    orders = [entry for entry in lines if entry["kind"] == "order"]
    rounds = {entry["round"] for entry in _reports(lines, "train.pretrain")}
    steps = sum(entry["steps"] for entry in orders if entry["stage"] == "train.pretrain" and entry["round"] in rounds)
    waiting = open_orders(lines)
    state = f"round {waiting[-1]['round']} has no reply yet" if waiting else "every order has its reply"
    return run, f"{len(rounds):,}", f"{steps:,}", f"{when(orders[0])} to {when(lines[-1])}", state


def _round_row(order: Entry, reply: Entry | None) -> Row:
    place = f"{order['run']}, round {order['round']}.{order['attempt']}"
    asked = (place, order["stage"], when(order), f"{order['bytes']:,}")
    if reply is None:
        return *asked, "no reply yet", "", ""
    if reply["answer"] == "refusal":
        return *asked, when(reply), "refused", str(reply["index"] + 1)
    weights = f"{reply['bytes']:,} bytes of weights" if reply["bytes"] else "no weights"
    left = f"{weights}, {len(reply['metrics'])} metrics"
    return *asked, when(reply), left, str(reply["index"] + 1)
