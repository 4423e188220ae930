"""Secrets of 32 bytes shared among sites, and shares under encryption.

pycryptodome shares 16 bytes at a time (over GF(2**128)), so a secret is shared in two halves with one abscissa.
Source: Bonawitz et al., CCS 2017, section 4 (secret sharing, authenticated encryption); Shamir, CACM 22, 1979.
"""

from collections.abc import Mapping

from Crypto.Protocol.SecretSharing import Shamir
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocol.secagg.errors import ShareError
from protocol.secagg.keys import SECRET_BYTES, Entropy
from protocol.secagg.session import Session
from protocol.signing import signed_bytes

HALF = SECRET_BYTES // 2
NONCE_BYTES, TAG_BYTES = 12, 16
SEALED_BYTES = NONCE_BYTES + 2 * SECRET_BYTES + TAG_BYTES
"""Of a share of the mask's private key and a share of the self-mask's seed, sealed together."""


def split(secret: bytes, threshold: int, sites: int) -> tuple[bytes, ...]:
    """A share (32 bytes) for each site, that of abscissa 1 first; any `threshold` of them give the secret."""
    assert len(secret) == SECRET_BYTES, "two halves of 16 bytes"
    first, second = (Shamir.split(threshold, sites, half, ssss=False) for half in (secret[:HALF], secret[HALF:]))
    return tuple(one + other for (_, one), (_, other) in zip(first, second, strict=True))


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret out of shares by abscissa; from wrong shares another comes out, which the caller must notice.

    Raises:
        ShareError: there are fewer than the threshold.
    """
    if len(shares) < threshold:
        raise ShareError(f"{len(shares)} shares are there, and {threshold} are needed")
    used = sorted(shares.items())[:threshold]
    halves = (Shamir.combine([(index, share[part]) for index, share in used], ssss=False) for part in _HALVES)
    return b"".join(halves)


def seal(session: Session, key: bytes, content: bytes, sender: str, receiver: str, entropy: Entropy) -> str:
    """Nonce and ciphertext in hex, under AES-256-GCM."""
    nonce = entropy(NONCE_BYTES)
    return (nonce + AESGCM(key).encrypt(nonce, content, _about(session, sender, receiver))).hex()


def open_sealed(session: Session, key: bytes, sealed: str, sender: str, receiver: str) -> bytes:
    """What was sealed.

    Raises:
        ShareError: it was changed, or sealed for another session or pair of sites.
    """
    content = bytes.fromhex(sealed)
    nonce, rest = content[:NONCE_BYTES], content[NONCE_BYTES:]
    try:
        return AESGCM(key).decrypt(nonce, rest, _about(session, sender, receiver))
    except InvalidTag:
        raise ShareError(
            f"the shares from {sender} to {receiver} were changed on their way, or {sender} sealed them wrongly; "
            "repeat the round, without that site if it happens again"
        ) from None


_HALVES = (slice(None, HALF), slice(HALF, None))


def _about(session: Session, sender: str, receiver: str) -> bytes:
    return signed_bytes("secagg/shares", {"session": session.digest, "from": sender, "to": receiver})
