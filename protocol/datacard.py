"""What a site tells the server of its data: a signed paper of counts, and the check of who signed it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.errors import MessageError, VersionError
from protocol.papers import KEY, NAME, SIGNATURE, is_day
from protocol.public_facts import check_facts
from protocol.signing import payload_hash, public_hex, sign, verify

KIND, VERSION, CONTEXT = "public-data-card", 2, "public-data-card"
MAX_CHARS = 1 << 18
UNCHANGED = "send the site's public.json itself, unchanged"


@dataclass(frozen=True, kw_only=True)
class PublicCard:
    """The paper, every value checked but the signature."""

    site: str
    server_key: str
    """Public signing key of the federation that the site had joined when it was approved; empty before."""
    made: str
    """The day on which the data was counted."""
    approved: str
    """The moment at which a person let it leave, with its time zone: the later one counts."""
    key: str
    """The site's public signing key."""
    card: Mapping[str, Any]
    """What leaves; see `protocol/public_facts.py`."""
    signature: str

    def __post_init__(self) -> None:
        """Refuse what no site signs."""
        for name, pattern in (("site", NAME), ("key", KEY), ("signature", SIGNATURE)):
            _require(_matches(pattern, getattr(self, name)), name)
        _require(self.server_key == "" or _matches(KEY, self.server_key), "server_key")
        _require(is_day(self.made), "made")
        _require(_is_moment(self.approved), "approved")
        check_facts(self.card)

    @classmethod
    def sealed(
        cls, card: Mapping[str, Any], site: str, made: str, approved: str, server_key: str, key: Ed25519PrivateKey
    ) -> Self:
        """The paper that the site signs.

        Raises:
            MessageError: the card says what must not leave.
        """
        said = {"site": site, "server_key": server_key, "made": made, "approved": approved, "key": public_hex(key)}
        signature = sign(key, CONTEXT, {"kind": KIND, "version": VERSION, **said, "card": dict(card)})
        return cls(**said, card=card, signature=signature)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The paper in the text of a file; who signed it is another matter.

        Raises:
            MessageError: it is no such paper, or says what none says.
            VersionError: it is of another version.
        """
        if len(text) > MAX_CHARS:
            raise MessageError(f"the data card has {len(text):,} characters, over the limit of {MAX_CHARS:,}")
        try:
            said = json.loads(text, object_pairs_hook=_once, parse_constant=_refuse, parse_float=_refuse)
        except (ValueError, RecursionError):
            raise MessageError(f"this is no data card: it is not JSON of ours; {UNCHANGED}") from None
        if not isinstance(said, dict) or said.pop("kind", None) != KIND:
            raise MessageError(f"this is no data card for a server; {UNCHANGED}")
        if type(version := said.pop("version", None)) is not int or version != VERSION:
            raise VersionError(
                f"the data card is not of version {VERSION}; install the same fedmumc at both ends, and make and "
                "approve it anew: mumc-site card"
            )
        if said.keys() != cls.__dataclass_fields__.keys():
            raise MessageError(f"the data card has other fields than a data card has; {UNCHANGED}")
        return cls(**said)

    def text(self) -> str:
        """The file."""
        return json.dumps({"kind": KIND, "version": VERSION, **asdict(self)}, indent=1, sort_keys=True) + "\n"

    def digest(self) -> str:
        """SHA-256 in hex of everything in it, the signature too: what names it in a log."""
        return payload_hash(asdict(self))

    def verify(self, key: str) -> None:
        """Return only if this key signed it.

        Raises:
            MessageError: it names another key.
            SignatureError: the key did not sign it.
        """
        if self.key != key:
            raise MessageError(f"the data card of {self.site} was signed by another key; {UNCHANGED}")
        said = asdict(self)
        signature = said.pop("signature")
        verify(key, CONTEXT, {"kind": KIND, "version": VERSION, **said}, signature)


def read(path: Path) -> PublicCard:
    """The paper in a file that somebody sent.

    Raises:
        MessageError: the file cannot be read, or see `PublicCard.parse`.
    """
    try:
        with path.open("rb") as file:
            return PublicCard.parse(file.read(MAX_CHARS + 1).decode("utf-8"))
    except OSError as error:
        raise MessageError(f"{path} cannot be read: {error.strerror}; give the site's public.json") from None
    except UnicodeDecodeError:
        raise MessageError(f"{path} is no data card: it is not text; {UNCHANGED}") from None


def opened(text: str, site: str, key: str) -> dict[str, Any]:
    """What the site of that name says, once it is certain that this key signed it.

    Raises:
        MessageError: it is no such paper, or another site's.
        VersionError: it is of another version.
        SignatureError: the key did not sign it.
    """
    paper = PublicCard.parse(text)
    if paper.site != site:
        raise MessageError("the data card is another site's; send this site's own")
    paper.verify(key)
    return dict(paper.card)


def _require(condition: bool, field: str) -> None:
    if not condition:
        raise MessageError(f"the data card's field {field!r} is not of its form; {UNCHANGED}")


def _matches(pattern: Any, value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_moment(value: Any) -> bool:
    """In the one spelling, so that a moment has no second one."""
    try:
        moment = datetime.fromisoformat(value)
        return moment.utcoffset() is not None and moment.year >= 2000 and bool(moment.isoformat() == value)
    except (TypeError, ValueError):
        return False


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name stands twice")
    return values


def _refuse(value: str) -> NoReturn:
    raise ValueError("not a whole number")
