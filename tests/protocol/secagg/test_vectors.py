"""Known answers: this version's, and the same numbers worked out from the primitives alone.

Of the oracle nothing is ours: HKDF out of HMAC, ChaCha20 out of RFC 8439, Shamir's field written out, JSON spelled
here.
"""

import hashlib
import hmac
import json
import struct
from fractions import Fraction
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.protocol.secagg.field import at_zero
from tests.protocol.secagg.make_vectors import FORMATS, vector

KNOWN = json.loads((Path(__file__).parents[2] / "vectors" / "secagg.json").read_text(encoding="utf-8"))
ROUNDS = pytest.mark.parametrize(
    "known", KNOWN["rounds"], ids=lambda k: f"{k['session']['fixed_point']['word_bits']} bits"
)


@pytest.mark.parametrize(("place", "word_bits"), list(enumerate(FORMATS)))
def test_this_version_gives_the_known_answers(place, word_bits):
    assert KNOWN["version"] == 1
    assert json.loads(json.dumps(vector(word_bits))) == KNOWN["rounds"][place]


# The oracle.


def spelled(context, values):
    """What is signed, hashed and given to HKDF as its info."""
    return f"fedmumc/1/{context}\n".encode() + json.dumps(values, sort_keys=True, separators=(",", ":")).encode()


def hkdf(salt, secret, info):
    """One block of HKDF-SHA256: RFC 5869."""
    extracted = hmac.new(salt, secret, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


def chacha20(key, size):
    """RFC 8439, section 2.3, with a nonce and a first counter of zero."""
    stream = b""
    for counter in range(-(-size // 64)):
        state = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *struct.unpack("<8I", key), counter, 0, 0, 0]
        working = list(state)
        for _ in range(10):
            for a, b, c, d in (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15):
                quarter(working, a, b, c, d)
            for a, b, c, d in (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14):
                quarter(working, a, b, c, d)
        stream += struct.pack("<16I", *((x + y) % 2**32 for x, y in zip(working, state, strict=True)))
    return stream[:size]


def quarter(s, a, b, c, d):
    for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        s[x] = (s[x] + s[y]) % 2**32
        turned = s[z] ^ s[x]
        s[z] = (turned << turn | turned >> (32 - turn)) % 2**32


def messages(known, kind):
    return {m["site"]: m for m in known["sent"] if m["kind"] == kind}


def exchanged(private, public):
    key = X25519PrivateKey.from_private_bytes(bytes.fromhex(private))
    return key.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(public)))


def derived(known, purpose, secret, about):
    return hkdf(bytes.fromhex(known["digest"]), secret, spelled(f"secagg/{purpose}", about))


def pair_key(known, one, other):
    keys = messages(known, "secagg_keys")
    secret = exchanged(known["secrets"][one]["masking"], keys[other]["masking"])
    return derived(known, "pair-mask", secret, {"keys": {site: keys[site]["masking"] for site in (one, other)}})


def words(known, key):
    bits = known["session"]["fixed_point"]["word_bits"]
    count = known["session"]["values"]
    return struct.unpack(f"<{count}{'I' if bits == 32 else 'Q'}", chacha20(key, count * bits // 8))


def encoded(known, site):
    session = known["session"]
    share = Fraction(session["weights"][site], sum(session["weights"].values()))
    return [round(value * share * 2 ** session["fixed_point"]["fraction_bits"]) for value in clipped(known, site)]


def clipped(known, site):
    """The update's float32 values, cut to the range of -1 to 1, as exact numbers."""
    single = (struct.unpack("f", struct.pack("f", value))[0] for value in known["updates"][site])
    return [max(Fraction(-1), min(Fraction(1), Fraction(value))) for value in single]


@ROUNDS
def test_the_session_s_digest_is_a_hash_of_its_canonical_json(known):
    assert known["digest"] == hashlib.sha256(spelled("secagg/session", known["session"])).hexdigest()


@ROUNDS
def test_every_message_is_signed_over_its_other_fields(known):
    assert len(known["sent"]) == 3 + 3 + 2 + 2 + 2
    for message in known["sent"]:
        bare = {name: value for name, value in message.items() if name != "signature"}
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(known["session"]["keys"][message["site"]]))
        public.verify(bytes.fromhex(message["signature"]), spelled(f"secagg/{message['kind']}", bare))


@ROUNDS
def test_public_keys_and_commitments_follow_from_the_secrets(known):
    for site, secret in known["secrets"].items():
        for name in ("sealing", "masking"):
            private = X25519PrivateKey.from_private_bytes(bytes.fromhex(secret[name]))
            assert messages(known, "secagg_keys")[site][name] == private.public_key().public_bytes_raw().hex()
        committed = derived(known, "commitment", bytes.fromhex(secret["seed"]), {"site": site})
        assert messages(known, "secagg_shares")[site]["commitment"] == committed.hex()


@ROUNDS
def test_sealed_shares_open_and_lie_on_polynomials_through_the_secrets(known):
    keys = messages(known, "secagg_keys")
    for sender, message in messages(known, "secagg_shares").items():
        held = {sender: bytes.fromhex(known["secrets"][sender]["shares"][sender])}
        for receiver, sealed in message["sealed"].items():
            secret = exchanged(known["secrets"][receiver]["sealing"], keys[sender]["sealing"])
            ends = {"from": sender, "to": receiver}
            about = ends | {"keys": {site: keys[site]["sealing"] for site in (sender, receiver)}}
            content, bound = bytes.fromhex(sealed), spelled("secagg/shares", ends | {"session": known["digest"]})
            held[receiver] = AESGCM(derived(known, "seal", secret, about)).decrypt(content[:12], content[12:], bound)
        own = known["secrets"][sender]
        whole = bytes.fromhex(own["masking"] + own["seed"])
        sites = sorted(known["session"]["keys"])
        for start in range(0, 64, 16):
            points = [(sites.index(s) + 1, int.from_bytes(b[start : start + 16], "big")) for s, b in held.items()]
            for pair in (points[:2], points[1:]):
                assert at_zero(pair).to_bytes(16, "big") == whole[start : start + 16]


@ROUNDS
def test_masked_vectors_are_encoded_updates_and_masks(known):
    modulus = 2 ** known["session"]["fixed_point"]["word_bits"]
    code = "I" if modulus == 2**32 else "Q"
    for site in ("ash", "birch"):
        total = encoded(known, site)
        seed = bytes.fromhex(known["secrets"][site]["seed"])
        masks = [(1, words(known, derived(known, "self-mask", seed, {"site": site})))]
        masks += [
            (1 if site > peer else -1, words(known, pair_key(known, site, peer)))
            for peer in known["session"]["keys"]
            if peer != site
        ]
        for sign, mask in masks:
            total = [(t + sign * m) % modulus for t, m in zip(total, mask, strict=True)]
        packed = struct.pack(f"<5{code}", *total)
        assert known["masked"][site] == packed.hex()
        named = hashlib.sha256(f"<u{len(packed) // 5}:5|".encode() + packed).hexdigest()
        assert messages(known, "secagg_masked")[site]["vector"] == named


@ROUNDS
def test_a_reveal_holds_the_self_seeds_of_survivors_and_the_mask_key_of_the_missing(known):
    for site, reveal in messages(known, "secagg_reveal").items():
        assert reveal["self_seeds"].keys() == {"ash", "birch"}
        assert reveal["mask_keys"].keys() == {"cedar"}
        assert reveal["self_seeds"][site] == known["secrets"][site]["shares"][site][64:]
    for name, secret, place in (("self_seeds", "seed", "ash"), ("mask_keys", "masking", "cedar")):
        shares = {s: m[name][place] for s, m in messages(known, "secagg_reveal").items()}
        points = [(index, bytes.fromhex(shares[s])) for index, s in ((1, "ash"), (2, "birch"))]
        halves = [at_zero([(x, int.from_bytes(y[p : p + 16], "big")) for x, y in points]) for p in (0, 16)]
        assert b"".join(h.to_bytes(16, "big") for h in halves).hex() == known["secrets"][place][secret]


@ROUNDS
def test_sum_and_mean_are_those_of_the_survivors(known):
    total = [a + b for a, b in zip(encoded(known, "ash"), encoded(known, "birch"), strict=True)]
    assert known["sum"] == total
    step, share = Fraction(1, 2 ** known["session"]["fixed_point"]["fraction_bits"]), Fraction(350, 400)
    for found, word, a, b in zip(known["mean"], total, clipped(known, "ash"), clipped(known, "birch"), strict=True):
        assert found == pytest.approx(float(word * step / share), rel=1e-15, abs=0)
        assert abs(Fraction(found) - (100 * a + 250 * b) / 350) <= known["error_bound"]
