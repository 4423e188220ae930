"""The server's side of sealed messages: each order signed for one site, each reply checked against that very order.

Both are lines of the server's log, `state/log.jsonl`, chained and signed. What each site's log and ledger had come to
is remembered in `state/heads.json` and told to that site with the next order, so that neither can be taken back.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from flwr.app import RecordDict

from mumc_model.data.files import write_atomically
from protocol import envelope
from protocol.envelope import Seal, Statement
from protocol.errors import ChainError, EnvelopeError, IdentityError, MessageError, UpdateError
from protocol.hashchain import Head
from protocol.messages import Order, Refusal, Report, one_line
from protocol.records import payload_bytes, reply_from_record, seal_from_record
from protocol.signing import public_hex
from server.errors import FolderError
from server.home import Home
from server.log import Known, read_heads, remember, server_log
from server.roster import EnrolledSite, SiteRegister

Arrays = Mapping[str, np.ndarray[Any, Any]]


class Post:
    """Signs and checks the messages of a federation that has a folder.

    Args:
        home: The federation's folder. Which node is which site stands in `state/nodes.json`, written by
            `mumc-server start` when it registers the enrolled keys with the SuperLink.
        only: Names of the sites that are asked; empty for all.

    Raises:
        FolderError: `only` names a site that is not enrolled.
    """

    def __init__(self, home: Home, only: Sequence[str] = ()) -> None:
        self._key, self._log = home.signer(), server_log(home)
        self._federation = public_hex(self._key)
        self._sites = {site.name: site for site in SiteRegister.read(home).active}
        if strangers := sorted(set(only) - self._sites.keys()):
            raise FolderError(
                f"federation.only names {', '.join(strangers)}, not enrolled; enrolled are "
                f"{', '.join(self._sites) or 'none'}"
            )
        self._asked_sites = frozenset(only) or frozenset(self._sites)
        self.secagg = home.config().secagg
        self._names = {int(node): name for name, node in read_nodes(home).items() if name in self._sites}
        self._home = home
        self._asked: dict[tuple[int, str, int, int], Statement] = {}

    @property
    def members(self) -> dict[str, EnrolledSite]:
        """The enrolled sites that are to be asked, by name."""
        return {name: site for name, site in self._sites.items() if name in self._asked_sites}

    @property
    def names(self) -> tuple[str, ...]:
        """The sites that are asked."""
        return tuple(sorted(self._asked_sites))

    def enrolled(self, nodes: Sequence[int]) -> list[int]:
        """Those of the nodes that are enrolled sites, not revoked, and that are to be asked."""
        return [node for node in nodes if self._names.get(node) in self._asked_sites]

    def site(self, node: int) -> str:
        """The enrolled name of a node's site.

        Raises:
            IdentityError: it is none.
        """
        if node not in self._names:
            raise IdentityError(f"node {node:016x} is no enrolled site")
        return self._names[node]

    def units(self, node: int) -> int:
        """The public number of units with which a node's site is enrolled.

        Raises:
            IdentityError: it is no enrolled site.
        """
        return self._sites[self.site(node)].units

    def seal(self, order: Order, node: int, payload: str) -> Seal:
        """The seal of an order to one node, noted in the log before it leaves; `payload` is its digest."""
        site, nonce = self.site(node), envelope.new_nonce()
        place = _place(order, site, nonce)
        entry = self._log.append(self._key, {"kind": "order", **place, "payload": payload})
        known = read_heads(self._home).get(site, Known())
        said = Statement(
            direction="order",
            federation=self._federation,
            site=site,
            run_id=order.run_id,
            stage=order.action,
            round=order.round,
            attempt=order.attempt,
            nonce=nonce,
            base_digest=order.base_digest,
            payload=payload,
            head=Head(count=entry["index"] + 1, hash=entry["hash"]),
            seen=known.log,
            ledger=known.ledger,
        )
        self._asked[_exchange(node, order)] = said
        return envelope.seal(said, self._key)

    def check(self, node: int, record: RecordDict, order: Order) -> None:
        """Return only if the enrolled site of this node signed this reply to the order as it was last sent.

        Raises:
            EnvelopeError: it did not, or the reply is for another order.
            ChainError: its log has lost lines that it once told of.
            MessageError, UpdateError: it is no reply at all.
        """
        asked = self._asked[_exchange(node, order)]
        try:
            message, arrays = reply_from_record(record)
            payload = self._check(node, record, asked, message, arrays)
        except (EnvelopeError, ChainError, MessageError, UpdateError) as error:
            self._note(asked, "refused", record, code=error.code, reason=one_line(str(error)))
            raise
        if isinstance(message, Refusal):
            self._note(asked, "refusal", record, code=message.code, reason=message.text)
        else:
            self._note(asked, "accepted", record, payload=payload)

    def _check(self, node: int, record: RecordDict, asked: Statement, message: Report | Refusal, arrays: Arrays) -> str:
        """The digest of what the reply says, once it was checked; empty where it is an unsigned refusal."""
        found = seal_from_record(record)
        if found is None:
            if isinstance(message, Refusal):
                return ""
            raise EnvelopeError("the reply is not signed; this federation takes none that is not")
        site = self.site(node)
        envelope.check_signature(found, self._sites[site].signing_key)
        same = ("federation", "site", "run_id", "stage", "round", "attempt", "nonce", "base_digest")
        expected = {"direction": "reply", "seen": asked.head} | {name: getattr(asked, name) for name in same}
        envelope.check_binds(found.statement, message, arrays, expected)
        if isinstance(message, Report) and message.site != site:
            raise EnvelopeError(f"the report calls its site {message.site[:64]!r}, and {site} is enrolled")
        said = found.statement
        remember(self._home, site, Known(log=said.head, ledger=said.ledger), asked.seen)
        return found.statement.payload

    def _note(
        self, asked: Statement, what: str, record: RecordDict, *, code: str = "", reason: str = "", payload: str = ""
    ) -> None:
        place = {"site": asked.site, "run": asked.run_id, "round": asked.round, "attempt": asked.attempt}
        known = read_heads(self._home).get(asked.site)
        heads = asdict(known) if known else {}
        body = {"kind": "reply", **place, "stage": asked.stage, "nonce": asked.nonce, "what": what, "code": code}
        told = {"reason": reason, "payload": payload, "bytes": payload_bytes(record)}
        self._log.append(self._key, body | told | {"heads": heads})


def read_nodes(home: Home) -> dict[str, int]:
    """The node id of each site that is registered with the SuperLink, by name."""
    path = home.state / "nodes.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def write_nodes(home: Home, nodes: Mapping[str, int]) -> None:
    """Keep the node id of each registered site."""
    write_atomically(home.state / "nodes.json", json.dumps(dict(sorted(nodes.items())), indent=1).encode())


def _exchange(node: int, order: Order) -> tuple[int, str, int, int]:
    return node, order.action, order.round, order.attempt


def _place(order: Order, site: str, nonce: str) -> dict[str, Any]:
    return {
        "site": site,
        "run": order.run_id,
        "stage": order.action,
        "round": order.round,
        "attempt": order.attempt,
        "nonce": nonce,
        "base_digest": order.base_digest,
    }
