"""The seal of a model card: one Ed25519 signature over a digest of each section, so that a break names the section."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.errors import SignatureError, SigningError
from protocol.signing import canonical, fingerprint, public_hex, sign, verify
from server.card import KIND, VERSION
from server.checkpoint import WEIGHTS
from server.errors import CardError
from server.output import JOURNAL, RESULT
from server.public_config import sha256_of, weights_digest

CONTEXT = "model-card"
"""No signature of anything else serves for a card."""
SECTIONS = (
    "about",
    "model",
    "digests",
    "configuration",
    "rounds",
    "sites",
    "screens",
    "privacy",
    "evaluation",
    "use",
)
MAX_BYTES = 1 << 24

Values = Mapping[str, Any]


def seal(card: Values, key: Ed25519PrivateKey | None) -> dict[str, Any]:
    """The card with its seal; without a key the seal says that nobody signed it."""
    digests = {name: _digest(name, card[name]) for name in SECTIONS}
    if key is None:
        return {**card, "seal": {"key": "", "sections": digests, "signature": ""}}
    public = public_hex(key)
    signature = sign(key, CONTEXT, _payload(public, digests))
    return {**card, "seal": {"key": public, "sections": digests, "signature": signature}}


def to_json(card: Values) -> str:
    """The text of `card.json`."""
    return json.dumps(card, indent=1, sort_keys=True, allow_nan=False) + "\n"


def read_card(path: Path) -> dict[str, Any]:
    """The card in a file, of which nothing is believed yet.

    Raises:
        CardError: it cannot be read, or is no card of this version.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        card = json.loads(content.decode("utf-8"), object_pairs_hook=_without_repeats, parse_constant=_refuse)
    except OSError as error:
        raise CardError(f"{path} cannot be read: {error.strerror}; give the card.json of a model") from None
    except (ValueError, RecursionError) as error:
        raise CardError(f"{path} is no card: {error}; give card.json as it was written") from None
    if len(content) > MAX_BYTES or not isinstance(card, dict) or card.get("kind") != KIND:
        raise CardError(f"{path} is no card of a model; give card.json as it was written")
    if card.get("version") != VERSION:
        raise CardError(f"the card has version {str(card.get('version'))[:20]}, not {VERSION}; use its fedmumc")
    return card


def check_seal(card: Values, key: str = "") -> None:
    """Return only if every section is as it was signed, by this key where one is given, else by the card's own.

    Raises:
        CardError: a section is missing, unknown or changed, nobody signed it, or another key did.
    """
    found = _seal_of(card)
    expected = {"kind", "version", "seal", *SECTIONS}
    if stray := sorted(card.keys() ^ expected):
        state = "is missing" if stray[0] in expected else "was added: nobody signed it"
        raise CardError(f"the section {stray[0][:40]!r} {state}; ask the federation for its card")
    for name in SECTIONS:
        if _digest(name, card[name]) != found["sections"][name]:
            raise CardError(f"the section {name!r} was changed after signing; ask the federation for its card")
    if not found["signature"]:
        raise CardError("nobody signed this card: it was made without a federation's folder, so it vouches for nothing")
    if key and key != found["key"]:
        raise CardError(
            f"the card is signed by the key {_shown(found['key'])}, and the one that was given is {_shown(key)}; it is "
            "of another federation, or was signed anew by somebody else"
        )
    try:
        verify(found["key"], CONTEXT, _payload(found["key"], found["sections"]), found["signature"])
    except (SignatureError, SigningError) as error:
        raise CardError(f"the signature does not hold: {error}") from None
    about = card["about"]
    federation = about.get("federation") if isinstance(about, dict) else None
    if not isinstance(federation, dict) or federation.get("key") != found["key"]:
        raise CardError("the section 'about' names another key than the one that signed the card")


def check_weights(card: Values, path: Path) -> None:
    """Return only if a file holds the very weights that the card is of, byte for byte or value for value.

    Raises:
        CardError: it does not.
        OutputError: it cannot be read.
    """
    if sha256_of(path) == card["digests"]["weights_file"]:
        return
    if weights_digest(path) != card["digests"]["weights"]:
        raise CardError(f"the weights in {path} are not those of this card; fetch them again, or ask for their card")


def check_folder(card: Values, folder: Path) -> None:
    """Return only if weights, journal and result of a run's folder are those of the card.

    Raises:
        CardError: one is not.
        OutputError: one cannot be read.
    """
    check_weights(card, folder / WEIGHTS)
    for name, file in (("journal", JOURNAL), ("result", RESULT)):
        if sha256_of(folder / file) != card["digests"][name]:
            raise CardError(f"the {name} {folder / file} was changed after the card was made")


def _payload(public: str, digests: Values) -> dict[str, Any]:
    return {"kind": KIND, "version": VERSION, "key": public, "sections": dict(digests)}


def _digest(name: str, content: Any) -> str:
    try:
        return hashlib.sha256(canonical({"section": name, "content": content})).hexdigest()
    except SigningError as error:
        raise CardError(f"the section {name!r} cannot be read: {error}") from None


def _seal_of(card: Values) -> dict[str, Any]:
    """The seal, of the right form.

    Raises:
        CardError: it is of another.
    """
    found = card.get("seal")
    if (
        not isinstance(found, dict)
        or found.keys() != {"key", "sections", "signature"}
        or not isinstance(found["sections"], dict)
        or not all(isinstance(value, str) for value in (found["key"], found["signature"], *found["sections"].values()))
    ):
        raise CardError("the card has no seal, or one of another form; ask the federation for its card")
    if found["sections"].keys() != set(SECTIONS):
        raise CardError("the seal covers other sections than a card has; ask the federation for its card")
    return found


def _shown(key: str) -> str:
    try:
        return fingerprint(key)
    except (SigningError, ValueError):
        return repr(key[:80])


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name stands twice")
    return values


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no number that a card holds")
