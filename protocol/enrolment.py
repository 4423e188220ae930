"""How a site joins: what it sends, what the server answers, and the note with which it leaves.

All three hold public keys only. An enrolment proves that its sender holds the private halves, by a signature of each;
that the sender is the hospital it says it is, two people establish by comparing fingerprints on the telephone.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.errors import EnrolmentError, ProofError, SignatureError, SigningError, StaleJoinError, StrangerError
from protocol.node_keys import NodeKey, check_proof, node_fingerprint, prove, public_pem
from protocol.papers import KEY, NAME, PROOF, SIGNATURE, payload, require, require_matching, require_time
from protocol.signing import fingerprint, public_hex, sign, verify

MAX_UNITS = 10**9
MAX_PEM_CHARS = 1 << 13


@dataclass(frozen=True, kw_only=True)
class Enrolment:
    """What a site sends to join, or to go on under new keys."""

    kind: ClassVar[str] = "enrolment"

    site: str
    """The pseudonym under which the federation will know the site."""
    auth_key: str
    """P-384 public key in PEM, for Flower's node authentication."""
    signing_key: str
    """Ed25519 public key in hex, for everything that the site says."""
    units: int
    """Public, rounded number of patients (or images) that the site states; it later weighs the site's updates."""
    created: str
    previous: str = ""
    """On rotation the signing key until now; else empty."""
    auth_proof: str = ""
    """Signature by the key for authentication."""
    signing_proof: str = ""
    """Signature by the signing key."""
    previous_proof: str = ""
    """On rotation the signature by the signing key until now."""

    def __post_init__(self) -> None:
        """Refuse fields that no site writes."""
        require_matching(NAME, "enrolment.site", self.site)
        _require_keys("enrolment", self.auth_key, self.signing_key)
        check_units("enrolment.units", self.units)
        require_time("enrolment.created", self.created)
        if self.previous:
            require_matching(KEY, "enrolment.previous", self.previous)
            require(self.previous != self.signing_key, "the enrolment's previous key is its new one; make a new key")

    def signed(
        self, auth: NodeKey, signing: Ed25519PrivateKey, previous: Ed25519PrivateKey | None = None
    ) -> "Enrolment":
        """The same with its proofs."""
        content = payload(self, *_ENROLMENT_PROOFS)
        return replace(
            self,
            auth_proof=prove(auth, "enrolment", content),
            signing_proof=sign(signing, "enrolment", content),
            previous_proof=sign(previous, "enrolment of new keys", content) if previous else "",
        )

    def verify(self) -> None:
        """Return only if whoever wrote this holds every key that it names.

        Raises:
            ProofError: a proof is missing or wrong.
        """
        content = payload(self, *_ENROLMENT_PROOFS)
        _check_form(PROOF, "auth_proof", self.auth_proof)
        _check_form(SIGNATURE, "signing_proof", self.signing_proof)
        _check(lambda: check_proof(self.auth_key, "enrolment", content, self.auth_proof))
        _check(lambda: verify(self.signing_key, "enrolment", content, self.signing_proof))
        if self.previous:
            _check_form(SIGNATURE, "previous_proof", self.previous_proof)
            _check(lambda: verify(self.previous, "enrolment of new keys", content, self.previous_proof))
        elif self.previous_proof:
            raise ProofError("the enrolment proves a previous key that it does not name; make it anew")


@dataclass(frozen=True, kw_only=True)
class Join:
    """What the server answers to one site: where to dial, whom to believe, and who else takes part."""

    kind: ClassVar[str] = "join"

    federation: str
    address: str
    """HOST:PORT that the site dials."""
    ca: str
    """Certificate of the federation's CA, in PEM."""
    server_key: str
    """The server's Ed25519 public key in hex; it signs this file and every order."""
    site: str
    auth_key: str
    signing_key: str
    units: int
    """As enrolled; the site checks that all four are its own."""
    peers: Mapping[str, str]
    """The other sites' names and Ed25519 public keys."""
    serial: int
    """Grows with every answer of this federation, so that an older one is known as such."""
    issued: str
    signature: str = ""
    """By `server_key`."""

    def __post_init__(self) -> None:
        """Refuse fields that no server writes."""
        require_matching(NAME, "join.federation", self.federation)
        require(is_address(self.address), f"join.address is {self.address[:80]!r}, not HOST:PORT")
        require(len(self.ca) <= MAX_PEM_CHARS, f"join.ca has over {MAX_PEM_CHARS} characters, so is no certificate")
        require_matching(NAME, "join.site", self.site)
        _require_keys("join", self.auth_key, self.signing_key, self.server_key, *self.peers.values())
        check_units("join.units", self.units)
        for name in self.peers:
            require_matching(NAME, "a name in join.peers", name)
        require(self.site not in self.peers, f"join.peers names {self.site} itself")
        require(1 <= self.serial < 2**63, f"join.serial is {self.serial}, not a count from 1")
        require_time("join.issued", self.issued)

    def signed(self, server: Ed25519PrivateKey) -> "Join":
        """The same with its signature."""
        return replace(self, signature=sign(server, "join", payload(self, "signature")))

    def verify(self) -> None:
        """Return only if the server's key that this names signed all of it. Who holds that key it cannot say.

        Raises:
            ProofError: the signature is missing or wrong.
        """
        _check_form(SIGNATURE, "signature", self.signature)
        _check(lambda: verify(self.server_key, "join", payload(self, "signature"), self.signature))


@dataclass(frozen=True, kw_only=True)
class Leave:
    """With what a site takes its leave; the server then revokes it."""

    kind: ClassVar[str] = "leave"

    server_key: str
    """Of the federation that is left."""
    site: str
    signing_key: str
    reason: str
    left: str
    signature: str = ""
    """By `signing_key`."""

    def __post_init__(self) -> None:
        """Refuse fields that no site writes."""
        require_matching(NAME, "leave.site", self.site)
        _require_keys("leave", "", self.server_key, self.signing_key)
        require(
            self.reason.isprintable() and len(self.reason) <= 200,
            "leave.reason must be one line of up to 200 characters",
        )
        require_time("leave.left", self.left)

    def signed(self, signing: Ed25519PrivateKey) -> "Leave":
        """The same with its signature."""
        return replace(self, signature=sign(signing, "leave", payload(self, "signature")))

    def verify(self, server_key: str, signing_key: str) -> None:
        """Return only if the site with this key says that it leaves this server's federation.

        Raises:
            ProofError: the note is of another key, for another federation, or its signature is wrong.
        """
        if self.server_key != server_key:
            raise ProofError("the note takes leave of another federation; its server's signing key is not this one's")
        if self.signing_key != signing_key:
            raise ProofError(f"the note is not signed by the key with which {self.site} is enrolled; revoke it by name")
        _check_form(SIGNATURE, "signature", self.signature)
        _check(lambda: verify(self.signing_key, "leave", payload(self, "signature"), self.signature))


def check_follows(join: Join, pinned: Join) -> None:
    """Return only if a join file may take the place of the pinned one: the same federation, and newer.

    Raises:
        StrangerError: another federation, CA or server key.
        StaleJoinError: it is older, or another of the same number.
    """
    for name, words in (("server_key", "server's signing key"), ("federation", "federation"), ("ca", "CA")):
        if getattr(join, name) != getattr(pinned, name):
            raise StrangerError(
                f"this join file has another {words} than the one pinned on {pinned.issued[:10]}; if the operator "
                "confirms it by telephone, join again with --replace"
            )
    check_is_newer(join, pinned)


def check_is_newer(join: Join, pinned: Join) -> None:
    """Return only if a join file of the pinned one's server is newer than it, or the same.

    Raises:
        StaleJoinError: it is older, or another of the same number.
    """
    if join.serial < pinned.serial or (join.serial == pinned.serial and join != pinned):
        raise StaleJoinError(
            f"this join file has serial {join.serial} of {join.issued[:10]}, and serial {pinned.serial} of "
            f"{pinned.issued[:10]} is pinned; ask the operator for the newest"
        )


def check_is_for(join: Join, site: str, auth_key: str, signing_key: str) -> None:
    """Return only if a join file names this site and its keys.

    Raises:
        StrangerError: it is for another site, or for other keys.
    """
    if join.site != site:
        raise StrangerError(f"this join file is for the site {join.site}, and this folder's is {site}; take your own")
    for words, named, own in (("signing", join.signing_key, signing_key), ("authentication", join.auth_key, auth_key)):
        if named != own:
            raise StrangerError(
                f"this join file names another {words} key for {site} than the one in this folder; somebody else may "
                "have enrolled under your name: telephone the operator"
            )


def enrolment_of(
    site: str,
    auth: NodeKey,
    signing: Ed25519PrivateKey,
    *,
    units: int,
    created: str,
    previous: Ed25519PrivateKey | None = None,
) -> Enrolment:
    """The enrolment of these keys, with its proofs; `previous` is the signing key until now."""
    bare = Enrolment(
        site=site,
        auth_key=public_pem(auth),
        signing_key=public_hex(signing),
        units=units,
        created=created,
        previous=public_hex(previous) if previous else "",
    )
    return bare.signed(auth, signing, previous)


def check_units(where: str, units: int) -> None:
    """Return only if this can be a site's public weight.

    Raises:
        EnrolmentError: it cannot.
    """
    require(1 <= units <= MAX_UNITS, f"{where} is {units}; choose it from 1 to {MAX_UNITS:,}")


def is_address(text: str) -> bool:
    """Whether this is HOST:PORT; the host a DNS name, an IPv4 address, or an IPv6 address in brackets."""
    found = _ADDRESS.fullmatch(text)
    return found is not None and 1 <= int(found["port"]) <= 65535


def split_address(text: str) -> tuple[str, int]:
    """Host, without brackets, and port of an address."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?):(?P<port>[0-9]{1,5})")
_ENROLMENT_PROOFS = ("auth_proof", "signing_proof", "previous_proof")


def _require_keys(kind: str, auth: str, *signing: str) -> None:
    try:
        if auth:
            node_fingerprint(auth)
        for key in signing:
            fingerprint(key)
    except SigningError as error:
        raise EnrolmentError(f"a key in the {kind} file is none: {error}") from None


def _check_form(form: re.Pattern[str], name: str, value: str) -> None:
    if form.fullmatch(value) is None:
        raise ProofError(f"the {name} is missing or no signature; the file was changed, or is half of one")


def _check(step: Callable[[], None]) -> None:
    try:
        step()
    except SignatureError as error:
        raise ProofError(str(error)) from None
