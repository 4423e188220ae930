"""What a site tells the server of its data: a signed paper of counts, and the check of who signed it."""

import json
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.errors import MessageError, VersionError
from protocol.signing import public_hex, sign, verify

KIND, VERSION, CONTEXT = "public-data-card", 1, "public-data-card"
MAX_CHARS = 1 << 18
FIELDS = {"kind", "version", "site", "made", "key", "card", "signature"}


def seal(card: Mapping[str, Any], site: str, made: str, key: Ed25519PrivateKey) -> str:
    """The text of the file: what leaves, for which site, made on which day, and the site's signature over all of it.

    Raises:
        SigningError: the card is not JSON.
    """
    said = {"kind": KIND, "version": VERSION, "site": site, "made": made, "key": public_hex(key), "card": dict(card)}
    return json.dumps({**said, "signature": sign(key, CONTEXT, said)}, indent=1, sort_keys=True, allow_nan=False) + "\n"


def opened(text: str, site: str, key: str) -> dict[str, Any]:
    """What the site of that name says, once it is certain that this key signed it.

    Raises:
        MessageError: it is no such paper, or another site's.
        VersionError: it is of another version.
        SignatureError: the key did not sign it.
    """
    if len(text) > MAX_CHARS:
        raise MessageError(f"the data card has {len(text):,} characters, over the limit of {MAX_CHARS:,}")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        raise MessageError("this is no data card: it is not JSON; send public.json itself, unchanged") from None
    if not isinstance(said, dict) or said.get("kind") != KIND or not isinstance(said.get("signature"), str):
        raise MessageError("this is no data card for a server; send the site's public.json")
    if said.get("version") != VERSION:
        raise VersionError(f"the data card is not of version {VERSION}; install the same fedmumc at both ends")
    if said.keys() != FIELDS or not isinstance(said["card"], dict):
        raise MessageError("the data card has other fields than a data card has; send public.json unchanged")
    if (said["site"], said["key"]) != (site, key):
        raise MessageError("the data card is another site's, or was signed by another key; send this site's own")
    signature = said.pop("signature")
    verify(key, CONTEXT, said, signature)
    found: dict[str, Any] = said["card"]
    return found
