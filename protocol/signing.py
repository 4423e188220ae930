"""Who said what: Ed25519 keys and their files, and signatures over canonical JSON under a named context."""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from protocol.errors import SignatureError, SigningError
from protocol.keyfiles import read_secret, write_secret

VERSION = 1
"""Of the bytes that are signed."""
MAX_DEPTH = 64


def canonical(payload: Any) -> bytes:
    """The one spelling of a JSON value: sorted keys, no spaces, ASCII; equal values give equal bytes.

    Raises:
        SigningError: the value is not JSON: NaN, infinite, a key that is no text, or another type.
    """
    _check_json(payload, MAX_DEPTH)
    return json.dumps(payload, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def new_key() -> Ed25519PrivateKey:
    """A fresh private key, from the operating system's entropy."""
    return Ed25519PrivateKey.generate()


def public_hex(key: Ed25519PrivateKey) -> str:
    """The public half as 64 hexadecimal digits."""
    return key.public_key().public_bytes_raw().hex()


def fingerprint(public: str) -> str:
    """Eight groups of four digits, to compare by telephone.

    Raises:
        SigningError: this is not a public key.
    """
    _public_key(public)
    text = hashlib.sha256(bytes.fromhex(public)).hexdigest()[:32]
    return " ".join(text[start : start + 4] for start in range(0, 32, 4))


def payload_hash(payload: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON, in hex: what names a recipe in a site's limits.

    Raises:
        SigningError: the payload is not JSON.
    """
    return hashlib.sha256(canonical(payload)).hexdigest()


def sign(key: Ed25519PrivateKey, context: str, payload: Mapping[str, Any]) -> str:
    """The signature in hex. The context names what is signed, so that no signature serves for something else."""
    return key.sign(signed_bytes(context, payload)).hex()


def verify(public: str, context: str, payload: Mapping[str, Any], signature: str) -> None:
    """Return only if the signature is this key's, over this payload, in this context.

    Raises:
        SignatureError: it is not.
        SigningError: the public key is none, or the payload is not JSON.
    """
    content = signed_bytes(context, payload)
    try:
        _public_key(public).verify(_from_hex(signature), content)
    except (InvalidSignature, ValueError):
        raise SignatureError(
            f"the signature of this {context} is not of the key {fingerprint(public)}; it was changed after signing, "
            "or another key signed it"
        ) from None


def signed_bytes(context: str, payload: Mapping[str, Any]) -> bytes:
    """What is in truth signed: program, version and context on a line, then the payload.

    Raises:
        SigningError: the context holds a line break, or the payload is not JSON.
    """
    if not context.isascii() or not context.isprintable() or not context:
        raise SigningError(f"the context {context!r} must be printable ASCII on one line")
    return f"fedmumc/{VERSION}/{context}\n".encode("ascii") + canonical(payload)


def write_private_key(path: Path, key: Ed25519PrivateKey, password: bytes | None = None) -> None:
    """Keep a key in a new PEM file that its owner alone can read, encrypted where there is a password.

    Raises:
        SigningError: the file is there already, or the password is empty.
    """
    if password == b"":
        raise SigningError("the password is empty; choose one")
    method: KeySerializationEncryption = BestAvailableEncryption(password) if password else NoEncryption()
    write_secret(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, method))


def read_private_key(path: Path, password: bytes | None = None) -> Ed25519PrivateKey:
    """The key that `write_private_key` wrote.

    Raises:
        SigningError: there is none, others can read it, it is not an Ed25519 key, or the password is wrong.
    """
    return open_private_key(read_secret(path), password, str(path))


def open_private_key(content: bytes, password: bytes | None, name: str) -> Ed25519PrivateKey:
    """The key in the content of such a file; `name` is what an error calls it.

    Raises:
        SigningError: it is not an Ed25519 key, or the password is wrong.
    """
    try:
        key = load_pem_private_key(content, password)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        raise SigningError(f"{name} is not a private key, or the password is not its password") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningError(f"{name} holds a key of another kind; make an Ed25519 key with `mumc-privacy keygen`")
    return key


@lru_cache(maxsize=64)
def _public_key(public: str) -> Ed25519PublicKey:
    try:
        return Ed25519PublicKey.from_public_bytes(_from_hex(public))
    except ValueError:
        raise SigningError(f"a public key is 64 hexadecimal digits, not {public[:80]!r}") from None


def _from_hex(text: str) -> bytes:
    """The bytes of lower-case digits: a second spelling of the same signature is refused."""
    content = bytes.fromhex(text)
    if content.hex() != text:
        raise ValueError("not lower-case hexadecimal")
    return content


def _check_json(value: Any, depth: int) -> None:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        raise SigningError(f"{value} cannot be signed; JSON has finite numbers only")
    if value is None or isinstance(value, (str, int, float)):
        return
    if not depth:
        raise SigningError(f"a value nested more than {MAX_DEPTH} deep cannot be signed")
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        raise SigningError(f"a value of type {type(value).__name__} cannot be signed; give JSON with texts as keys")
    for item in value:
        _check_json(item, depth - 1)
