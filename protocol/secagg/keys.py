"""X25519 key pairs of one session, and the keys that two sites derive from them.

Source: Bonawitz et al., CCS 2017, section 4 (key agreement); RFC 7748; RFC 5869.
"""

from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from protocol.secagg.errors import AgreementKeyError
from protocol.secagg.session import Session
from protocol.signing import signed_bytes

Entropy = Callable[[int], bytes]
"""That many random bytes: `os.urandom`, except in tests."""
SECRET_BYTES = 32
_ANYBODY = bytes([1] * SECRET_BYTES)
"""A private key of nobody: with a key of low order it leads to zero, as every other does."""


def public_of(private: bytes) -> str:
    """The public half in hex."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw().hex()


def check_public(public: str) -> None:
    """Return only if secrets can be agreed with this public key.

    Raises:
        AgreementKeyError: it is of low order: the secret would be the same for everybody.
    """
    _agree(_ANYBODY, public)


def pair_mask_key(session: Session, private: bytes, own: str, public: str, peer: str) -> bytes:
    """The ChaCha20 key (32 bytes) of the mask that two sites share; the same from both sides.

    Raises:
        AgreementKeyError: the peer's key is unusable.
    """
    sites = {own: public_of(private), peer: public}
    return _derive(session, "pair-mask", _agree(private, public), {"keys": sites})


def sealing_key(session: Session, secret: bytes, public: str, *, sender: str, receiver: str, own: str) -> bytes:
    """The AES-256 key for shares from the sender to the receiver, of whom `own` holds the private key `secret`.

    Raises:
        AgreementKeyError: the peer's key is unusable.
    """
    peer = receiver if own == sender else sender
    keys = {own: public_of(secret), peer: public}
    return _derive(session, "seal", _agree(secret, public), {"keys": keys, "from": sender, "to": receiver})


def self_mask_key(session: Session, seed: bytes, site: str) -> bytes:
    """The ChaCha20 key of a site's own mask."""
    return _derive(session, "self-mask", seed, {"site": site})


def commitment(session: Session, seed: bytes, site: str) -> str:
    """What tells, in hex, whether shares of a site's own mask were put together rightly; nothing follows from it."""
    return _derive(session, "commitment", seed, {"site": site}).hex()


def _agree(private: bytes, public: str) -> bytes:
    try:
        peer = X25519PublicKey.from_public_bytes(bytes.fromhex(public))
        return X25519PrivateKey.from_private_bytes(private).exchange(peer)
    except ValueError:
        raise AgreementKeyError(
            "a peer's X25519 key leads to a secret that anybody knows; the peer's program is not this one"
        ) from None


def _derive(session: Session, purpose: str, secret: bytes, about: dict[str, object]) -> bytes:
    """32 bytes by HKDF-SHA256, bound to the session, the purpose and the parties."""
    info = signed_bytes(f"secagg/{purpose}", about)
    return HKDF(algorithm=SHA256(), length=32, salt=bytes.fromhex(session.digest), info=info).derive(secret)
