"""What travels in the five stages, as frozen values and as JSON. Masked vectors travel beside, as arrays.

Every message of a site names its session by digest, and is signed with the site's Ed25519 key; peers and the server
check it against the key in the session. What the server forwards carries no signature of its own: nobody
trusts the server.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.errors import StaleError
from protocol.secagg.content import Content, require_hex, require_name, require_names
from protocol.secagg.errors import SessionError
from protocol.secagg.keys import SECRET_BYTES
from protocol.secagg.session import Session
from protocol.secagg.shares import SEALED_BYTES
from protocol.signing import sign, verify

STAGES = ("advertise", "share", "mask", "agree", "unmask")


@dataclass(frozen=True, kw_only=True)
class FromServer(Content):
    """Base of what the server forwards."""

    session: str
    """Digest of the session."""

    def __post_init__(self) -> None:
        """Refuse what is no digest."""
        require_hex(f"{self.kind}.session", self.session, 32)


@dataclass(frozen=True, kw_only=True)
class FromSite(Content):
    """Base of what a site sends."""

    session: str
    """Digest of the session."""
    site: str
    signature: str
    """Over all other fields, in hex."""

    def __post_init__(self) -> None:
        """Refuse names and digests that are none."""
        require_hex(f"{self.kind}.session", self.session, 32)
        require_name(f"{self.kind}.site", self.site)
        require_hex(f"{self.kind}.signature", self.signature, 64)


SiteMessage = TypeVar("SiteMessage", bound=FromSite)


@dataclass(frozen=True, kw_only=True)
class Keys(FromSite):
    """Stage 1, `advertise`: a site's X25519 public keys of this session."""

    kind: ClassVar[str] = "secagg_keys"
    sealing: str
    """For the encryption of shares."""
    masking: str
    """For the masks of pairs."""

    def __post_init__(self) -> None:
        """Refuse what are no keys."""
        super().__post_init__()
        require_hex(f"{self.kind}.sealing", self.sealing, SECRET_BYTES)
        require_hex(f"{self.kind}.masking", self.masking, SECRET_BYTES)


@dataclass(frozen=True, kw_only=True)
class Roster(FromServer):
    """Before stage 2, to each site of it: the keys of all sites that advertised."""

    kind: ClassVar[str] = "secagg_roster"
    keys: tuple[Keys, ...]


@dataclass(frozen=True, kw_only=True)
class Shares(FromSite):
    """Stage 2, `share`: shares of the site's two secrets, sealed for each peer of the roster."""

    kind: ClassVar[str] = "secagg_shares"
    sealed: Mapping[str, str]
    """By receiver."""
    commitment: str
    """To the seed of the self-mask (`keys.commitment`)."""

    def __post_init__(self) -> None:
        """Refuse what has not the size of sealed shares."""
        super().__post_init__()
        _require_by_site(f"{self.kind}.sealed", self.sealed, SEALED_BYTES)
        require_hex(f"{self.kind}.commitment", self.commitment, SECRET_BYTES)


@dataclass(frozen=True, kw_only=True)
class Inbox(FromServer):
    """Before stage 3, to one site: what each peer that shared has sealed for it. These peers' masks it adds."""

    kind: ClassVar[str] = "secagg_inbox"
    sealed: Mapping[str, str]
    """By sender."""

    def __post_init__(self) -> None:
        """Refuse what has not the size of sealed shares."""
        super().__post_init__()
        _require_by_site(f"{self.kind}.sealed", self.sealed, SEALED_BYTES)


@dataclass(frozen=True, kw_only=True)
class Masked(FromSite):
    """Stage 3, `mask`: says which vector of words travels beside."""

    kind: ClassVar[str] = "secagg_masked"
    vector: str
    """`masks.vector_digest` of it."""

    def __post_init__(self) -> None:
        """Refuse what is no digest."""
        super().__post_init__()
        require_hex(f"{self.kind}.vector", self.vector, 32)


@dataclass(frozen=True, kw_only=True)
class Survivors(FromServer):
    """Before stage 4, to each site of it: whose masked vectors are in the sum."""

    kind: ClassVar[str] = "secagg_survivors"
    sites: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse what are no names in order."""
        super().__post_init__()
        require_names(f"{self.kind}.sites", self.sites)


@dataclass(frozen=True, kw_only=True)
class Agreement(FromSite):
    """Stage 4, `agree`: a site's word on who takes part; it gives one only."""

    kind: ClassVar[str] = "secagg_agreement"
    sharers: tuple[str, ...]
    """Those whose masks the site has added, and itself."""
    survivors: tuple[str, ...]
    """Those whose vectors are in the sum, as the server says."""

    def __post_init__(self) -> None:
        """Refuse what are no names in order."""
        super().__post_init__()
        require_names(f"{self.kind}.sharers", self.sharers)
        require_names(f"{self.kind}.survivors", self.survivors)


@dataclass(frozen=True, kw_only=True)
class Accord(FromServer):
    """Before stage 5, to each survivor: at least `threshold` agreements, all on the same."""

    kind: ClassVar[str] = "secagg_accord"
    agreements: tuple[Agreement, ...]


@dataclass(frozen=True, kw_only=True)
class Reveal(FromSite):
    """Stage 5, `unmask`: for each site of the round a share of exactly one of its two secrets."""

    kind: ClassVar[str] = "secagg_reveal"
    self_seeds: Mapping[str, str]
    """Of the survivors."""
    mask_keys: Mapping[str, str]
    """Of those that shared and whose vectors are missing."""

    def __post_init__(self) -> None:
        """Refuse both secrets of one site, and what has not the size of a share."""
        super().__post_init__()
        _require_by_site(f"{self.kind}.self_seeds", self.self_seeds, SECRET_BYTES)
        _require_by_site(f"{self.kind}.mask_keys", self.mask_keys, SECRET_BYTES)
        if both := sorted(self.self_seeds.keys() & self.mask_keys.keys()):
            raise SessionError(f"both secrets of {both[0]} are named, which would open its update; never reveal both")


def signed(cls: type[SiteMessage], session: Session, site: str, key: Ed25519PrivateKey, **fields: Any) -> SiteMessage:
    """The site's message with its signature."""
    bare = cls(session=session.digest, site=site, signature="0" * 128, **fields)
    return dataclasses.replace(bare, signature=sign(key, _context(bare), _payload(bare)))


def verify_message(message: FromSite, session: Session) -> None:
    """Return only if the message is of this session and signed by the site that it names.

    Raises:
        StaleError: it is of another run, round or attempt, or of other terms.
        SessionError: the site is not of this session.
        SignatureError: another key signed it, or it was changed.
    """
    check_session(message, session)
    if message.site not in session.keys:
        raise SessionError(f"{message.site} is not a site of this session; enrol it before the round")
    verify(session.keys[message.site], _context(message), _payload(message), message.signature)


def check_session(content: FromServer | FromSite, session: Session) -> None:
    """Return only if this belongs to the session.

    Raises:
        StaleError: it does not.
    """
    if content.session != session.digest:
        raise StaleError(
            f"{content.kind} is of the session {content.session[:12]}, this is {session.digest[:12]} (run "
            f"{session.run_id}, round {session.round}, attempt {session.attempt}); start the round anew"
        )


def _context(message: FromSite) -> str:
    return f"secagg/{message.kind}"


def _payload(message: FromSite) -> dict[str, Any]:
    values = message.to_dict()
    del values["signature"]
    return values


def _require_by_site(where: str, values: Mapping[str, str], size: int) -> None:
    for site, text in values.items():
        require_name(where, site)
        require_hex(f"{where}.{site}", text, size)
