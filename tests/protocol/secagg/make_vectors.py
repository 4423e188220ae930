"""A round of three sites, of which one drops out after sharing, with nothing left to chance.

    python -m tests.protocol.secagg.make_vectors > tests/vectors/secagg.json

writes the known answers anew; only a new version of the protocol is a reason to.
"""

import hashlib
import json
from functools import partial
from unittest.mock import patch

import numpy as np

from protocol.secagg import site as stages
from protocol.secagg.fixed_point import FixedPoint
from protocol.secagg.server import Aggregator
from protocol.secagg.session import Session
from protocol.signing import public_hex
from tests.protocol.secagg.federation import as_integers, identity
from tests.protocol.secagg.field import values_at

SITES = ("ash", "birch", "cedar")
FORMATS = {32: 30, 64: 49}
UPDATES = {
    "ash": [0.5, -0.25, 1.0, -3.0, 1e-9],
    "birch": [0.125, 0.1, -1.0, 0.0, 0.3333333432674408],
    "cedar": [0.0, 0.0, 0.0, 0.0, 0.0],
}


def entropy_of(site):
    """Bytes that follow from the site's name and how often it has asked."""
    count = iter(range(1000))
    return lambda size: hashlib.sha512(f"{site} {next(count)}".encode()).digest()[:size]


def split(secret, threshold, sites):
    """`shares.split` with coefficients that follow from the secret."""
    halves = []
    for place in (0, 16):
        drawn = [hashlib.sha256(secret + bytes([place, k])).digest()[:16] for k in range(1, threshold)]
        coefficients = [int.from_bytes(part, "big") for part in (secret[place : place + 16], *drawn)]
        halves.append([value.to_bytes(16, "big") for value in values_at(coefficients, sites)])
    return tuple(first + second for first, second in zip(*halves, strict=True))


def terms(word_bits):
    """The session; the keys of the sites are in `federation.identity`."""
    return Session(
        run_id="known-answer",
        round=3,
        attempt=1,
        keys={name: public_hex(identity(name)) for name in SITES},
        weights={"ash": 100, "birch": 250, "cedar": 50},
        colluding=0,
        threshold=2,
        schema_digest=hashlib.sha256(b"schema").hexdigest(),
        base_digest=hashlib.sha256(b"base").hexdigest(),
        values=5,
        fixed_point=FixedPoint(clip=1.0, fraction_bits=FORMATS[word_bits], word_bits=word_bits, rounding="nearest"),
    )


def vector(word_bits):
    """All that is sent and kept in the round, and what comes out."""
    session, sent, states, vectors = terms(word_bits), [], {}, {}
    server, entropy = Aggregator(session), {name: entropy_of(name) for name in SITES}

    def keep(name, step):
        states[name] = step.state
        sent.append(step.message.to_dict())
        if step.vector is not None:
            vectors[name] = step.vector
        server.receive(step.message, step.vector)

    for name in SITES:
        given = {"key": identity(name), "pinned": session.keys, "entropy": entropy[name]}
        keep(name, stages.advertise(session, site=name, **given))
    with patch.object(stages, "split", split):
        for name in SITES:
            keep(name, stages.share(states[name], server.roster(), key=identity(name), entropy=entropy[name]))
    secrets = {name: states[name]["secrets"] for name in SITES}
    for name in SITES[:2]:
        update = partial(dict, float32=np.array(UPDATES[name], np.float32))
        keep(name, stages.mask(states[name], server.inbox(name), key=identity(name), update=update))
    for name in SITES[:2]:
        keep(name, stages.agree(states[name], server.survivors(), key=identity(name)))
    for name in SITES[:2]:
        keep(name, stages.unmask(states[name], server.accord(), key=identity(name)))
    return {
        "session": session.to_dict(),
        "digest": session.digest,
        "updates": UPDATES,
        "secrets": secrets,
        "sent": sent,
        "masked": {name: words.tobytes().hex() for name, words in vectors.items()},
        "sum": as_integers(server.open_sum()),
        "mean": server.merged().mean.tolist(),
        "error_bound": server.merged().error_bound,
    }


if __name__ == "__main__":
    print(json.dumps({"version": 1, "rounds": [vector(bits) for bits in FORMATS]}, indent=1, sort_keys=True))
