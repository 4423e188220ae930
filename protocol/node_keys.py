"""The P-384 keys by which Flower knows a node, in the formats that its programs load."""

import hashlib
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
    load_ssh_private_key,
)

from protocol.errors import SignatureError, SigningError
from protocol.signing import signed_bytes

NodeKey = ec.EllipticCurvePrivateKey


def new_node_key() -> NodeKey:
    """A fresh private key, from the operating system's entropy."""
    return ec.generate_private_key(ec.SECP384R1())


def private_bytes(key: NodeKey) -> bytes:
    """What `flower-supernode --auth-supernode-private-key` loads: an OpenSSH file, not PKCS#8."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def read_node_key(content: bytes) -> NodeKey:
    """The key that `private_bytes` wrote.

    Raises:
        SigningError: this is not a P-384 key in OpenSSH's format.
    """
    try:
        key = load_ssh_private_key(content, None)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise SigningError("the key for node authentication is not a P-384 key in OpenSSH's format; make a new one")
    return key


def public_pem(key: NodeKey) -> str:
    """The public half as Flower's SuperLink keeps it."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def to_openssh(public: str) -> str:
    """The same public key as the line that `flwr supernode register` reads."""
    return _public_key(public).public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii") + "\n"


def node_fingerprint(public: str) -> str:
    """Eight groups of four digits, to compare by telephone.

    Raises:
        SigningError: this is not a P-384 public key in PEM.
    """
    content = _public_key(public).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    text = hashlib.sha256(content).hexdigest()[:32]
    return " ".join(text[start : start + 4] for start in range(0, 32, 4))


def prove(key: NodeKey, context: str, payload: Mapping[str, Any]) -> str:
    """The signature in hex, over the same bytes as `protocol.signing.sign`."""
    return key.sign(signed_bytes(context, payload), ec.ECDSA(SHA384())).hex()


def check_proof(public: str, context: str, payload: Mapping[str, Any], proof: str) -> None:
    """Return only if the proof is this key's, over this payload, in this context.

    Raises:
        SignatureError: it is not.
        SigningError: the public key is none, or the payload is not JSON.
    """
    content = signed_bytes(context, payload)
    try:
        _public_key(public).verify(bytes.fromhex(proof), content, ec.ECDSA(SHA384()))
    except (InvalidSignature, ValueError):
        raise SignatureError(
            f"the proof in this {context} is not of the key {node_fingerprint(public)}; it was changed, or whoever "
            "made it does not hold that key"
        ) from None


def _public_key(public: str) -> ec.EllipticCurvePublicKey:
    try:
        key = load_pem_public_key(public.encode("ascii"))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise SigningError("a key for node authentication is a P-384 public key in PEM; this is none")
    if key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii") != public:
        raise SigningError("the public key for node authentication is spelled in another way than usual; send it anew")
    return key
