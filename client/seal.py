"""The last layer at a site's door: no order is followed that the server did not sign, and nothing leaves unsigned.

Each order and each reply is a line of the site's log, `state/log.jsonl`, which is chained, signed and only grows. The
line of a reply is its egress receipt. With every message the two ends tell each other how far their logs go, so that
neither can take lines of its own back.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message

from client.config import read_site_config
from client.errors import GateError
from client.faults import CallNext, answer_faults
from client.gate import released
from client.keys import SiteKeys
from client.privacy.ledger import Ledger
from client.site import is_trial, site_root
from protocol import envelope
from protocol.chainfile import ChainFile
from protocol.enrolment import Join
from protocol.envelope import Statement
from protocol.errors import EnvelopeError, StaleError, UnexpectedWeightsError
from protocol.hashchain import Entry, Head
from protocol.messages import EPSILON, Order, Refusal, Report
from protocol.records import order_from_record, reply_from_record, seal_from_record, to_record
from protocol.signing import public_hex

LOG_CONTEXT = "site-log"
NOT_JOINED = "this site has joined no federation, so no order is followed; run mumc-site join"

Arrays = Mapping[str, np.ndarray[Any, Any]]


def site_log_file(root: Path) -> ChainFile:
    """The site's log of what came and what left."""
    return ChainFile(root / "state" / "log.jsonl", LOG_CONTEXT)


def seal_replies(message: Message, context: Context, call_next: CallNext) -> Message:
    """A Flower mod: orders are verified before they go in, replies are filtered, noted and signed as they go out."""
    root = site_root(context)
    join = SiteKeys(root).pinned()
    if join is None:
        if is_trial(context):
            return call_next(message, context)
        raise GateError("not_joined", NOT_JOINED)
    door = Door(root, join)

    def accepted(message: Message, context: Context) -> Message:
        door.accept(message)
        return call_next(message, context)

    return door.send(message, answer_faults(message, context, accepted))


class Door:
    """One order and its reply at the site in the folder `root`, which has joined the federation of `join`."""

    def __init__(self, root: Path, join: Join) -> None:
        self._root, self._join = root, join
        self._key = SiteKeys(root).signing()
        self._log = site_log_file(root)
        self._accepted: Statement | None = None

    def accept(self, message: Message) -> None:
        """Return only if the server signed exactly this order, for this site, and it is new; it is in the log then.

        Raises:
            EnvelopeError: it is unsigned, changed, for another site, or was here before.
            StaleError: a later round of its run was here already.
            ChainError, LedgerError: the server remembers more of this site's log or ledger than is here.
        """
        seal = seal_from_record(message.content)
        if seal is None:
            raise EnvelopeError("the order is not signed, and this site follows only its federation's server")
        said = seal.statement
        order, arrays = order_from_record(message.content)
        envelope.check_signature(seal, self._join.server_key)
        envelope.check_binds(said, order, arrays, self._expected(order, message))
        entries = self._log.verify(public_hex(self._key), said.seen)
        Ledger.open(self._root).check_anchor(said.ledger)
        check_new(said, entries)
        self._log.append(
            self._key, {"kind": "order", **_place(said), **_told(order, arrays), "server": _plain(said.head)}
        )
        self._accepted = said

    def send(self, message: Message, reply: Message) -> Message:
        """The reply as it leaves: without the metrics that stay here, with its receipt in the log, signed.

        A reply to an order that was not accepted is a bare refusal, and leaves unsigned.
        """
        said, (answer, arrays) = self._accepted, reply_from_record(reply.content)
        if said is None:
            return reply
        answer, withheld = self._released(answer)
        check_leaves(answer, arrays, order_from_record(message.content)[1])
        payload = envelope.payload_digest(answer, arrays)
        body = {"kind": "reply", **_place(said), "payload": payload, "withheld": withheld}
        entry = self._log.append(self._key, body | receipt(answer, arrays))
        statement = replace(
            said,
            direction="reply",
            payload=payload,
            head=Head(count=entry["index"] + 1, hash=entry["hash"]),
            seen=said.head,
            ledger=Ledger.open(self._root).head,
        )
        return Message(to_record(answer, arrays or None, envelope.seal(statement, self._key)), reply_to=message)

    def _expected(self, order: Order, message: Message) -> dict[str, object]:
        return {
            "direction": "order",
            "federation": self._join.server_key,
            "site": self._join.site,
            "run_id": order.run_id,
            "stage": message.metadata.message_type,
            "round": order.round,
            "attempt": order.attempt,
            "base_digest": order.base_digest,
        }

    def _released(self, answer: Report | Refusal) -> tuple[Report | Refusal, list[str]]:
        if isinstance(answer, Refusal):
            return answer, []
        leaving, withheld = released(read_site_config(self._root), answer)
        return replace(answer, metrics=leaving), withheld


def check_new(said: Statement, entries: list[Entry]) -> None:
    """Return only if this order was not here before, and comes after those of its run and of the server that were.

    Raises:
        EnvelopeError: its nonce was used, or the server's log is shorter than it was.
        StaleError: a later round or attempt of the run was here.
    """
    before = [entry for entry in entries if entry["kind"] == "order"]
    if any(entry["nonce"] == said.nonce for entry in before):
        raise EnvelopeError("the order was here before, under the same nonce: it was replayed")
    if before and said.head.count < before[-1]["server"]["count"]:
        raise EnvelopeError(
            f"the server's log has {said.head.count} lines and had {before[-1]['server']['count']}: an older copy was "
            "put in its place; its operator must put the newest back"
        )
    latest = max(((e["round"], e["attempt"]) for e in before if e["run"] == said.run_id), default=(0, 0))
    if (said.round, said.attempt) < latest:
        raise StaleError(
            f"the order is for round {said.round}, attempt {said.attempt}, and {latest[0]}, {latest[1]} of the same "
            "run was here already"
        )


def check_leaves(answer: Report | Refusal, arrays: Arrays, base: Arrays) -> None:
    """Return only if what leaves beside an answer has the form of the weights that came, or is nothing.

    Raises:
        UnexpectedWeightsError: it is larger, or another.
    """
    form = {name: (flat.dtype.name, flat.shape) for name, flat in arrays.items()}
    if arrays and (isinstance(answer, Refusal) or form != {n: (f.dtype.name, f.shape) for n, f in base.items()}):
        raise UnexpectedWeightsError("what would leave has another form than the weights that came, so nothing does")


def receipt(answer: Report | Refusal, arrays: Arrays) -> dict[str, Any]:
    """What a reply gives away, for the site's own log."""
    if isinstance(answer, Refusal):
        return {"answer": "refusal", "code": answer.code, "text": answer.text}
    squares = math.fsum(float(np.sum(np.square(flat, dtype=np.float64))) for flat in arrays.values())
    return {
        "answer": "report",
        "examples": answer.examples,
        "metrics": {name: value for name, value in answer.metrics.items() if name != EPSILON},
        "epsilon_spent": answer.metrics.get(EPSILON),
        "arrays": {name: {"shape": list(flat.shape), "bytes": flat.nbytes} for name, flat in sorted(arrays.items())},
        "bytes": sum(flat.nbytes for flat in arrays.values()),
        "norm": math.sqrt(squares),
    }


def _place(said: Statement) -> dict[str, Any]:
    return {
        "run": said.run_id,
        "stage": said.stage,
        "round": said.round,
        "attempt": said.attempt,
        "nonce": said.nonce,
        "base_digest": said.base_digest,
    }


def _told(order: Order, arrays: Arrays) -> dict[str, Any]:
    return {"steps": order.steps, "bytes": sum(flat.nbytes for flat in arrays.values())}


def _plain(head: Head) -> dict[str, Any]:
    return {"count": head.count, "hash": head.hash}
