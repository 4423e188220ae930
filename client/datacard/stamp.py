"""Which data a card is of: a digest that the gate compares before every order that trains. No torch, no numpy."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from client.config import read_site_config
from client.datacard.facts import KIND, VERSION
from client.datacard.image_files import FILES, Place, digest_of, known, look, named_images, places, remember
from mumc_model.errors import DataError
from protocol.signing import canonical

FOLDER = Path("state") / "card"
CARD, PAGE, PUBLIC = "datacard.json", "datacard.html", "public.json"
MAX_BYTES = 64 << 20
BETWEEN = "-"
"""Stands between the digest of the records and that of the images. Cards of before know the first alone."""

State = Literal["current", "stale", "none", "old"]
"""Of the data as it is, of other data, not there, or of an earlier fedmumc that did not look at the images."""


@dataclass(frozen=True, kw_only=True)
class Before:
    """The data as it lay before a card of it was made: what changes meanwhile is found to have changed."""

    records: str
    found: Mapping[str, Place]
    """Size and time of change of every image that a row names, by key."""


def before(root: Path) -> Before:
    """The records and places of images now; no image is read.

    Raises:
        DataError, ConfigurationError: see `data_digest`.
    """
    return Before(records=records_digest(root), found=places(root, named_images(root)))


def stamp(root: Path, data: Before, digests: Mapping[str, str]) -> str:
    """The digest of that data, remembered for the gate; `digests` are those of images that were read, by key."""
    seen = known(root, data.records, data.found, digests)
    remember(root, seen)
    return f"{data.records}{BETWEEN}{digest_of(seen)}"


def data_digest(root: Path) -> str:
    """What `stamp` says of the data as it is now: its records, the settings that they depend on, and its images.

    Raises:
        DataError: a file cannot be read.
        ConfigurationError: there is no usable site.yaml.
    """
    records = records_digest(root)
    return f"{records}{BETWEEN}{digest_of(look(root, records))}"


def records_digest(root: Path) -> str:
    """SHA-256 in hex over the site's records and the settings that say how they are read.

    Raises:
        DataError, ConfigurationError: see `data_digest`.
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
    records, between, images = str(card.get("data")).partition(BETWEEN)
    if not between:
        return "old"
    now = records_digest(root)
    if records != now:
        return "stale"
    return "current" if images == digest_of(look(root, now)) else "stale"


def read_json(root: Path) -> dict[str, Any] | None:
    """The site's card as JSON, or None where there is none of ours."""
    try:
        with (root / FOLDER / CARD).open("rb") as file:
            card = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    ours = isinstance(card, dict) and (card.get("kind"), card.get("version")) == (KIND, VERSION)
    return card if ours else None


def _file_digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except FileNotFoundError:
        return bytes(32)
    except OSError:
        raise DataError(f"{path.name} cannot be read; check that it is a file this user may read") from None
