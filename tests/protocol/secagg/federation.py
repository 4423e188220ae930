"""A federation in memory for the tests: every message goes through JSON, as it will on the wire."""

import hashlib
import json
from collections.abc import Mapping
from functools import partial

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.secagg import site as stages
from protocol.secagg.fixed_point import choose
from protocol.secagg.packed import encode_packed
from protocol.secagg.server import Aggregator
from protocol.secagg.session import Session, threshold_for
from protocol.signing import public_hex

NAMES = ("ash", "birch", "cedar", "elm", "fir", "hazel")
VALUES = 100
STAGES = ("advertise", "share", "mask", "agree", "unmask")


def identity(name: str) -> Ed25519PrivateKey:
    """The site's key, the same in every test."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


ASH = {"site": "ash", "key": identity("ash")}


def advertise(terms: Session, **changes):
    """What the site ash answers to the first stage."""
    return stages.advertise(terms, **ASH | {"pinned": terms.keys} | changes)


def session(sites: int = 5, colluding: int = 0, values: int = VALUES, **changes) -> Session:
    names = NAMES[:sites]
    weights = {name: 100 + 37 * place for place, name in enumerate(names)}
    threshold = threshold_for(sites, colluding)
    terms = {
        "run_id": "run-1",
        "round": 2,
        "attempt": 1,
        "keys": {name: public_hex(identity(name)) for name in names},
        "weights": weights,
        "colluding": colluding,
        "threshold": threshold,
        "schema_digest": "a" * 64,
        "base_digest": "b" * 64,
        "values": values,
        "fixed_point": choose(clip=1.0, tolerance=1e-6, weights=weights.values(), threshold=threshold),
    }
    return Session(**terms | changes)


def updates(terms: Session, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    generator = np.random.default_rng(seed)
    return {s: {"float32": generator.normal(0, 0.1, terms.values).astype(np.float32)} for s in terms.sites}


def integer_sum(terms: Session, update: Mapping[str, Mapping[str, np.ndarray]], sites) -> list[int]:
    """The sum of the sites' encoded updates, in Python's integers, which cannot wrap."""
    words = [encode_packed(update[s], terms.values, terms.fixed_point, terms.share(s))[0] for s in sites]
    signed = [w.view(f"<i{w.dtype.itemsize}").tolist() for w in words]
    return [sum(column) for column in zip(*signed, strict=True)]


def as_integers(words: np.ndarray) -> list[int]:
    return words.view(f"<i{words.dtype.itemsize}").tolist()


def wire(content):
    """What arrives of something that was sent."""
    return type(content).from_dict(json.loads(json.dumps(content.to_dict())))


class Round:
    """One session: an honest server, and sites that drop out when a test says so."""

    def __init__(self, terms: Session) -> None:
        self.session = terms
        self.server = Aggregator(terms)
        self.states: dict[str, dict] = {}
        self.vectors: dict[str, np.ndarray] = {}

    def advertise(self, sites=None) -> None:
        for name in self.session.sites if sites is None else sites:
            given = {"key": identity(name), "pinned": self.session.keys}
            self._keep(name, stages.advertise(wire(self.session), site=name, **given))

    def share(self, sites=None) -> None:
        roster = wire(self.server.roster())
        for name in self._still(sites):
            self._keep(name, stages.share(self.states[name], roster, key=identity(name)))

    def mask(self, update, sites=None) -> None:
        for name in self._still(sites):
            inbox = wire(self.server.inbox(name))
            self._keep(
                name,
                stages.mask(self.states[name], inbox, key=identity(name), update=partial(update.__getitem__, name)),
            )

    def agree(self, sites=None) -> None:
        survivors = wire(self.server.survivors())
        for name in self._still(sites):
            self._keep(name, stages.agree(self.states[name], survivors, key=identity(name)))

    def unmask(self, sites=None) -> None:
        accord = wire(self.server.accord())
        for name in self._still(sites):
            self._keep(name, stages.unmask(self.states[name], accord, key=identity(name)))

    def until_masked(self, update) -> "Round":
        self.advertise()
        self.share()
        self.mask(update)
        return self

    def until_agreed(self, update) -> "Round":
        self.until_masked(update).agree()
        return self

    def _still(self, sites):
        return list(self.states) if sites is None else list(sites)

    def _keep(self, name: str, step) -> None:
        self.states[name] = json.loads(json.dumps(step.state))
        if step.vector is not None:
            self.vectors[name] = step.vector
        assert self.server.receive(wire(step.message), step.vector)


def answer(stage, round_, content, update=None):
    """What ash answers to a stage's input."""
    given = {"key": identity("ash")} | ({"update": lambda: update["ash"]} if stage == "mask" else {})
    return getattr(stages, stage)(round_.states["ash"], content, **given)


def prepared(stage, terms, update):
    """A round in which it is ash's turn to do `stage`, and the input of it."""
    round_ = Round(terms)
    for name in STAGES[: STAGES.index(stage)]:
        getattr(round_, name)(*((update,) if name == "mask" else ()))
    server = round_.server
    forward = {"share": server.roster, "agree": server.survivors, "unmask": server.accord}
    return round_, (server.inbox("ash") if stage == "mask" else forward[stage]())
