"""Which data a card is of: a digest that the gate compares before every order that trains. No torch, no numpy."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from client.config import read_site_config
from client.datacard.facts import KIND, VERSION
from mumc_model.errors import DataError
from protocol.signing import canonical

FOLDER = Path("state") / "card"
CARD, PAGE, PUBLIC = "datacard.json", "datacard.html", "public.json"
FILES = ("captions.jsonl", "vqa.jsonl")
MAX_BYTES = 64 << 20

State = Literal["current", "stale", "none"]


def data_digest(root: Path) -> str:
    """SHA-256 in hex over the site's records and the settings that say how they are read.

    Images are not among it: whoever exchanges one and leaves its row as it is has to make the card again.

    Raises:
        DataError: a file cannot be read.
        ConfigurationError: there is no usable site.yaml.
    """
    config = read_site_config(root)
    settings = {"unit": config.unit, "bad_share": config.bad_share, "bank": config.bank}
    digest = hashlib.sha256(canonical({"version": VERSION, "settings": settings}))
    for name in FILES:
        digest.update(_file_digest(root / name))
    return digest.hexdigest()


def card_state(root: Path) -> State:
    """Whether there is a card, and of the data as it is now.

    Raises:
        DataError, ConfigurationError: see `data_digest`.
    """
    card = read_json(root)
    if card is None:
        return "none"
    return "current" if card.get("data") == data_digest(root) else "stale"


def read_json(root: Path) -> dict[str, Any] | None:
    """The site's card as JSON, or None where there is none of ours."""
    try:
        with (root / FOLDER / CARD).open("rb") as file:
            card = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    known = isinstance(card, dict) and (card.get("kind"), card.get("version")) == (KIND, VERSION)
    return card if known else None


def _file_digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except FileNotFoundError:
        return bytes(32)
    except OSError:
        raise DataError(f"{path.name} cannot be read; check that it is a file this user may read") from None
