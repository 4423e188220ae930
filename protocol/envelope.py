"""What a signature covers of a message: who says it, where it belongs, and the digest of everything in it.

Both sides sign. A statement binds one message to its federation, site, run, stage, round and attempt, to the server's
nonce of this very exchange, and to the weights that the work starts from; so nothing signed serves in another place.
Each statement also carries the head of the sender's log and the last head of the other side's that the sender saw:
either end anchors the other's log.
"""

import dataclasses
import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.errors import EnvelopeError, SignatureError, SigningError
from protocol.hashchain import Head
from protocol.messages import ACTIONS, Message, to_json
from protocol.signing import canonical, sign, verify

VERSION = 1
Direction = Literal["order", "reply"]
DIRECTIONS: tuple[str, ...] = get_args(Direction)
MAX_CHARS = 1 << 14

NOTHING = Head().hash
"""What stands for the last row of a ledger that has none."""
_HEADS = ("head", "seen")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NONCE = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, kw_only=True)
class Statement:
    """Everything that a signature covers. Equal statements have equal bytes."""

    direction: str
    """`order` is signed by the server, `reply` by a site."""
    federation: str
    """The server's public signing key, in hex: it names the federation."""
    site: str
    """Whom the order is for, or who replies."""
    run_id: str
    stage: str
    """Flower's message type, which names the handler."""
    round: int
    attempt: int
    nonce: str
    """Drawn by the server for this one exchange; the reply repeats it."""
    base_digest: str
    """Of the weights that the work starts from."""
    payload: str
    """`payload_digest` of the message and the arrays beside it."""
    head: Head = field(default_factory=Head)
    """How far the sender's own log goes."""
    seen: Head = field(default_factory=Head)
    """How far the other side's log went when the sender last heard of it; empty for never."""
    ledger: str = NOTHING
    """Hash of the last row of the site's privacy ledger; in an order, the one that the server last heard of. How many
    rows there are is not said, since each withdrawn patient is one."""

    def __post_init__(self) -> None:
        """Refuse what neither side would say."""
        _require(self.direction in DIRECTIONS, "direction", self.direction)
        _require(self.stage in ACTIONS, "stage", self.stage)
        for name in ("federation", "base_digest", "payload", "ledger"):
            _require(_DIGEST.fullmatch(getattr(self, name)) is not None, name, getattr(self, name))
        for name in ("site", "run_id"):
            _require(_NAME.fullmatch(getattr(self, name)) is not None, name, getattr(self, name))
        _require(_NONCE.fullmatch(self.nonce) is not None, "nonce", self.nonce)
        _require(self.round >= 1 and self.attempt >= 1, "round and attempt", (self.round, self.attempt))

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    def place(self) -> tuple[str, int, int]:
        """Run, round and attempt."""
        return self.run_id, self.round, self.attempt


@dataclass(frozen=True, kw_only=True)
class Seal:
    """A statement and its signature, which nobody has checked yet."""

    statement: Statement
    signature: str

    def to_json(self) -> str:
        """As it travels."""
        return canonical(
            {"version": VERSION, "statement": self.statement.to_dict(), "signature": self.signature}
        ).decode()

    @classmethod
    def from_json(cls, text: str) -> "Seal":
        """The seal in a text that came.

        Raises:
            EnvelopeError: it is none.
        """
        try:
            values = json.loads(text) if len(text) <= MAX_CHARS else None
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict) or set(values) != {"version", "statement", "signature"}:
            raise EnvelopeError("the message's seal cannot be read; install the same fedmumc at both ends")
        if values["version"] != VERSION:
            raise EnvelopeError(f"the message's seal has version {values['version']!r:.20}; this side speaks {VERSION}")
        if not isinstance(values["signature"], str):
            raise EnvelopeError("the message's seal has no signature")
        return cls(statement=_statement(values["statement"]), signature=values["signature"])


def new_nonce() -> str:
    """A nonce that no other exchange has, from the operating system's entropy."""
    return secrets.token_hex(16)


def seal(statement: Statement, key: Ed25519PrivateKey) -> Seal:
    """The statement, signed."""
    return Seal(statement=statement, signature=sign(key, statement.direction, statement.to_dict()))


def check_signature(found: Seal, public: str) -> None:
    """Return only if this key signed the statement.

    Raises:
        EnvelopeError: it did not.
    """
    try:
        verify(public, found.statement.direction, found.statement.to_dict(), found.signature)
    except (SignatureError, SigningError) as error:
        raise EnvelopeError(f"the {found.statement.direction} is not signed by whom it names: {error}") from None


def check_binds(
    found: Statement, message: Message, arrays: Mapping[str, np.ndarray[Any, Any]], expected: Mapping[str, object]
) -> None:
    """Return only if the statement is about this message and has these values.

    Raises:
        EnvelopeError: the body was swapped, or it was signed for another site, run, round, exchange or weights.
    """
    if found.payload != payload_digest(message, arrays):
        raise EnvelopeError(
            f"the {found.direction} is not the one that was signed: its body was changed on the way, or swapped"
        )
    for name, value in expected.items():
        if (said := getattr(found, name)) != value:
            raise EnvelopeError(
                f"the {found.direction} was signed for {name} {said!s:.64}, and {value!s:.64} is what it came for; it "
                "was replayed, or belongs to another exchange"
            )


def payload_digest(message: Message, arrays: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """SHA-256, in hex, over the message's text and every array: name, type, size and little-endian bytes."""
    sha = hashlib.sha256(hashlib.sha256(to_json(message).encode()).digest())
    for name in sorted(arrays):
        flat = np.ascontiguousarray(arrays[name])
        sha.update(f"|{name}:{flat.dtype.name}:{flat.size}|".encode())
        sha.update(flat.astype(flat.dtype.newbyteorder("<"), copy=False).view(np.uint8).data)
    return sha.hexdigest()


def _statement(values: Any) -> Statement:
    kinds = {"round": int, "attempt": int} | dict.fromkeys(_HEADS, dict)
    names = {f.name: kinds.get(f.name, str) for f in dataclasses.fields(Statement)}
    if not isinstance(values, dict) or set(values) != set(names):
        raise EnvelopeError("the message's seal has other fields than this side knows; install the same fedmumc")
    for name, kind in names.items():
        if type(values[name]) is not kind:
            raise EnvelopeError(f"the seal's {name} is no {kind.__name__}")
    return Statement(**{**values, **{name: _head(values[name]) for name in _HEADS}})


def _head(values: dict[str, Any]) -> Head:
    count, digest = values.get("count"), values.get("hash")
    if set(values) != {"count", "hash"} or type(count) is not int or count < 0 or not isinstance(digest, str):
        raise EnvelopeError("the seal's head of a log is no count and hash")
    if not _DIGEST.fullmatch(digest):
        raise EnvelopeError("the seal's head of a log has no SHA-256")
    return Head(count=count, hash=digest)


def _require(condition: bool, name: str, value: object) -> None:
    if not condition:
        raise EnvelopeError(f"the seal's {name} is {value!r:.80}, which no message has")
