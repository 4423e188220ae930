"""The last layer at a site's door: no order is followed that the server did not sign, and nothing leaves unsigned.

Each order and each reply is a line of the site's log (`client/log.py`), which is chained, signed and only grows. With
every message the two ends tell each other how far their logs go, so that neither can take lines of its own back.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message

from client.config import read_site_config
from client.energy import EnergyMeter
from client.errors import GateError
from client.faults import CallNext, answer_faults
from client.gate import released
from client.keys import SiteKeys
from client.log import order_line, order_schema, place, receipt, schema_line, site_log_file, turned_away_line
from client.privacy.ledger import Ledger
from client.site import is_trial, site_log, site_root
from protocol import envelope
from protocol.compression import Codec
from protocol.enrolment import Join
from protocol.envelope import Statement
from protocol.errors import EnvelopeError, ProtocolError, StaleError, UnexpectedWeightsError
from protocol.hashchain import Entry, Head
from protocol.messages import EPSILON, Order, Refusal, Report, one_line
from protocol.records import WORDS, order_from_record, reply_from_record, seal_from_record, to_record
from protocol.signing import public_hex
from protocol.statistics import VALUES

NOT_JOINED = "this site has joined no federation, so no order is followed; run mumc-site join"

Arrays = Mapping[str, np.ndarray[Any, Any]]


def seal_replies(message: Message, context: Context, call_next: CallNext) -> Message:
    """A Flower mod: orders are verified before they go in, replies are filtered, noted and signed as they go out."""
    root = site_root(context)
    join = SiteKeys(root).pinned()
    if join is None:
        if is_trial(context):
            return call_next(message, context)
        raise GateError("not_joined", NOT_JOINED)
    door = Door(root, join)

    def inside(message: Message, context: Context) -> Message:
        door.open(message)
        return door.release(message, call_next(message, context))

    reply = answer_faults(message, context, inside)
    if door.accepted:
        return door.send(message, reply)
    try:
        door.turn_away(message, reply)
    except ProtocolError as error:
        site_log(context).error("the log of this site cannot take the line of a refusal", exc_info=error)
    return reply


class Door:
    """One order and its reply at the site in the folder `root`, which has joined the federation of `join`."""

    def __init__(self, root: Path, join: Join) -> None:
        self._root, self._join = root, join
        self._key = SiteKeys(root).signing()
        self._log = site_log_file(root)
        self._accepted: Statement | None = None
        self._forms: set[str] = set()
        self._held: dict[str, Any] = {"withheld": []}
        self._why = ""
        self._meter = EnergyMeter()

    @property
    def accepted(self) -> bool:
        """Whether the order is the server's, for this site, and new."""
        return self._accepted is not None

    def open(self, message: Message) -> None:
        """Return only if the order was accepted; why it was not is kept for the log."""
        try:
            self.accept(message)
        except ProtocolError as error:
            self._why = one_line(str(error))
            raise

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
        self._log.append(self._key, order_line(said, order, arrays))
        self._forms = {entry["digest"] for entry in entries if entry["kind"] == "schema"}
        self._accepted = said

    def release(self, message: Message, reply: Message) -> Message:
        """What may leave of a reply: without the metrics that stay here.

        Raises:
            UnexpectedWeightsError: what lies beside it is not of the form of the weights that came.
        """
        answer, arrays = reply_from_record(reply.content)
        check_leaves(answer, arrays, *order_from_record(message.content))
        if isinstance(answer, Refusal):
            return reply
        leaving, withheld = released(read_site_config(self._root), answer)
        self._held = {"withheld": withheld, "epsilon_spent": answer.metrics.get(EPSILON)}
        return Message(to_record(replace(answer, metrics=leaving), arrays or None), reply_to=message)

    def turn_away(self, message: Message, reply: Message) -> None:
        """Note an order that was not accepted. Its reply is a bare refusal, and leaves unsigned."""
        answer, _ = reply_from_record(reply.content)
        assert isinstance(answer, Refusal)
        self._log.append(self._key, turned_away_line(message.metadata.message_type, answer, self._why))

    def send(self, message: Message, reply: Message) -> Message:
        """The reply as it leaves: with its receipt in the log, signed."""
        said, (answer, arrays) = self._accepted, reply_from_record(reply.content)
        assert said is not None
        assert not arrays or isinstance(answer, Report)
        order, _ = order_from_record(message.content)
        # Counts have no tensors to name.
        schema = order_schema(order) if arrays and not order.statistics else None
        codec = Codec.of(order.codec)
        if schema and schema.digest not in self._forms:
            self._log.append(self._key, schema_line(schema))
        payload = envelope.payload_digest(answer, arrays)
        held = self._held if isinstance(answer, Report) else {"withheld": []}
        body = {"kind": "reply", **place(said), "payload": payload, **receipt(answer, arrays, schema, codec), **held}
        if energy := self._meter.used():
            body["energy"] = energy
        entry = self._log.append(self._key, body)
        statement = replace(
            said,
            direction="reply",
            payload=payload,
            head=Head(count=entry["index"] + 1, hash=entry["hash"]),
            seen=said.head,
            ledger=Ledger.open(self._root).head.hash,
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


def check_new(said: Statement, entries: list[Entry]) -> None:
    """Return only if this order was not here before, and comes after those of its run and of the server that were.

    Raises:
        EnvelopeError: its nonce was used, or the server's log is shorter than it was.
        StaleError: a later round or attempt of the run was here.
    """
    before = [entry for entry in entries if entry["kind"] == "order" and entry["federation"] == said.federation]
    if any(entry["nonce"] == said.nonce for entry in before):
        raise EnvelopeError("the order was here before, under the same nonce: it was replayed")
    if before and said.head.count < before[-1]["server"]["count"]:
        raise EnvelopeError(
            f"the server's log has {said.head.count} lines and had {before[-1]['server']['count']}: an older copy was "
            "put in its place; its operator must put the newest back"
        )
    # A site's model is evaluated again long after the rounds of its run, in a run of no rounds under the same name.
    again = said.stage == "evaluate.vqa"
    same = [e for e in before if e["run"] == said.run_id and (e["stage"] == "evaluate.vqa") == again]
    latest = max(((e["round"], e["attempt"]) for e in same), default=(0, 0))
    if (said.round, said.attempt) < latest:
        raise StaleError(
            f"the order is for round {said.round}, attempt {said.attempt}, and {latest[0]}, {latest[1]} of the same "
            "run was here already"
        )


def check_leaves(answer: Report | Refusal, arrays: Arrays, order: Order, base: Arrays) -> None:
    """Return only if what leaves beside an answer has the form of the weights that came, or is nothing.

    Under a codec it is the form that this writes for them. In a session of secure aggregation it is one vector of
    words, as long as all these weights, and never the weights; in one of statistics it is as long as the fixed labels
    make it.

    Raises:
        UnexpectedWeightsError: it is larger, or another.
    """
    form = {name: (flat.dtype.name, flat.shape) for name, flat in arrays.items()}
    sizes, codec = {name: flat.size for name, flat in base.items()}, Codec.of(order.codec)
    written = codec.form(codec.sent(order_schema(order)).flat_sizes if arrays and codec.adapters else sizes)
    forms = [{name: (dtype, (size,)) for name, (dtype, size) in written.items()}]
    if order.statistics:
        forms = [{words: (words, (VALUES,))} for words in WORDS if order.stage == "mask"]
    elif order.masking:
        forms = [{words: (words, (sum(sizes.values()),))} for words in WORDS]
    if arrays and (isinstance(answer, Refusal) or form not in forms):
        raise UnexpectedWeightsError("what would leave has another form than the weights that came, so nothing does")
