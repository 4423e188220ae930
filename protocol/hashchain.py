"""A chain of signed JSON entries, each naming the hash of the one before: what was written cannot be changed unseen."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.errors import ChainError, SignatureError, SigningError
from protocol.signing import canonical, sign, signed_bytes, verify

LINKS = ("index", "previous", "hash", "signature")
"""The keys of an entry that are the chain's own; everything else is the body."""

Entry = dict[str, Any]


@dataclass(frozen=True)
class Head:
    """How far a chain goes: the number of its entries, and the hash of the last."""

    count: int = 0
    hash: str = "0" * 64


def append(head: Head, body: Mapping[str, Any], key: Ed25519PrivateKey, context: str) -> Entry:
    """The entry that follows `head`. The context names the kind of chain, and is signed.

    Raises:
        ChainError: the body uses a key of the chain's own.
        SigningError: the body is not JSON.
    """
    if taken := sorted(set(body) & set(LINKS)):
        raise ChainError(f"an entry's body cannot use {', '.join(taken)}: the chain itself does; name them otherwise")
    content = {**body, "index": head.count, "previous": head.hash}
    return {**content, "hash": _hash(context, content), "signature": sign(key, context, content)}


def head_of(entry: Mapping[str, Any]) -> Head:
    """The head of a chain that ends with this entry."""
    return Head(count=entry["index"] + 1, hash=entry["hash"])


def verify_chain(entries: Sequence[Mapping[str, Any]], public: str, context: str, start: Head | None = None) -> Head:
    """The head of the chain, once every entry has been checked; `start` is where an earlier check had ended.

    Raises:
        ChainError: an entry is out of order, changed, or not signed by this key; it names the first.
    """
    head = start or Head()
    for entry in entries:
        _verify_entry(entry, head, public, context)
        head = head_of(entry)
    return head


def check_contains(entries: Sequence[Mapping[str, Any]], earlier: Head) -> None:
    """Return only if the chain goes on from an earlier head of it; the entries are all of it, and verified.

    Raises:
        ChainError: it is shorter, or another chain: this is an older copy, or was written anew.
    """
    if earlier.count > len(entries):
        raise ChainError(
            f"the chain has {len(entries)} entries and had {earlier.count} before: an older copy was put in its "
            "place, or its end was cut off; put the newest copy back",
            len(entries),
        )
    if earlier.count and entries[earlier.count - 1]["hash"] != earlier.hash:
        raise ChainError(
            f"entry {earlier.count - 1} is not the one that was there before: the chain was written anew; "
            "put the original back",
            earlier.count - 1,
        )


def to_line(entry: Mapping[str, Any]) -> bytes:
    """The entry as one line of a file."""
    return canonical(entry) + b"\n"


def from_line(line: bytes, number: int) -> Entry:
    """The entry of a line; `number` counts lines from 0, for the message.

    Raises:
        ChainError: the line is not exactly what `to_line` writes.
    """
    try:
        entry = json.loads(line)
        if isinstance(entry, dict) and to_line(entry) == line:
            return entry
    except (ValueError, RecursionError, SigningError):
        pass
    raise ChainError(f"line {number} is not an entry as it was written; put an unchanged copy of the file back", number)


def _verify_entry(entry: Mapping[str, Any], head: Head, public: str, context: str) -> None:
    where = f"entry {head.count}"
    content = {name: value for name, value in entry.items() if name not in ("hash", "signature")}
    if entry.get("index") != head.count or entry.get("previous") != head.hash:
        raise ChainError(f"{where} does not follow the one before it: entries are missing or out of order", head.count)
    try:
        if entry.get("hash") != _hash(context, content):
            raise ChainError(
                f"{where} was changed after it was written: its hash is not that of its content", head.count
            )
        verify(public, context, content, str(entry.get("signature")))
    except (SignatureError, SigningError) as error:
        raise ChainError(f"{where} is not signed by the key of this chain: {error}", head.count) from None


def _hash(context: str, content: Mapping[str, Any]) -> str:
    return hashlib.sha256(signed_bytes(context, content)).hexdigest()
