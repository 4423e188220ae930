"""What a site's folder holds: the settings that records depend on, and the rows of its two files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import yaml

from mumc_model.errors import DataError

MAX_SETTINGS_BYTES = 1 << 20
MAX_LINE_BYTES = 1 << 20
"""A longer line is no record."""
ANSWER_TYPES = ("OPEN", "CLOSED")
SPLITS = ("train", "val", "test")
UNITS = ("patient", "image")
CAPTION_TEXTS = ("image", "caption")
QUESTION_TEXTS = ("image", "question", "answer", "answer_type", "question_type", "split")
OUTSIDE = "image outside the folder"
PIXEL_CACHES = "state/pixels-*.npy"
"""Where decoded images are kept between starts, one file a size."""

Unit = Literal["patient", "image"]


@dataclass(frozen=True)
class CaptionRecord:
    """One image and one sentence about it."""

    image: Path
    """Absolute path of the file."""
    caption: str
    patient_id: str
    """The unit that privacy protects; where the site's unit is the image, the image's key."""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class VqaRecord:
    """One question about one image, with its answer."""

    image: Path
    question: str
    answer: str
    answer_type: str
    """OPEN or CLOSED."""
    question_type: str
    patient_id: str
    split: str
    """train, val or test."""
    labels: Mapping[str, str] = field(default_factory=dict)


class UnusableRowError(DataError):
    """One row cannot be used; `reason` says why in words that quote nothing of it."""

    def __init__(self, reason: str) -> None:
        """Keep the reason for the counts."""
        super().__init__(f"{reason}; correct the row or leave it out")
        self.reason = reason


def read_settings(root: Path) -> tuple[str, Unit]:
    """The site's name and unit, from site.yaml.

    Raises:
        DataError: there is no readable site.yaml, or its name or unit cannot be.
    """
    try:
        with (root / "site.yaml").open("rb") as file:
            settings = yaml.safe_load(file.read(MAX_SETTINGS_BYTES))
    except OSError:
        raise DataError("the site folder has no readable site.yaml; make one with `mumc-site init`") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise DataError("site.yaml is not valid YAML; correct it, or make a new one with `mumc-site init`") from None
    if not isinstance(settings, dict):
        raise DataError("site.yaml holds no settings; it needs at least the line `name: ...`")
    name, unit = settings.get("name"), settings.get("unit", "patient")
    if not isinstance(name, str) or not 0 < len(name) <= 64 or not name.isprintable():
        raise DataError("`name` in site.yaml must be a text of 1 to 64 printable characters")
    if unit not in UNITS:
        raise DataError(f"`unit` in site.yaml must be one of {', '.join(UNITS)}; choose what one person's data is")
    return name, unit


def check_caption_row(row: Any) -> dict[str, Any]:
    """The row of captions.jsonl, complete and of the right types.

    Raises:
        UnusableRowError: it is not.
    """
    return _check_texts(row, CAPTION_TEXTS)


def check_question_row(row: Any) -> dict[str, Any]:
    """The row of vqa.jsonl, complete and of the right types and values.

    Raises:
        UnusableRowError: it is not.
    """
    checked = _check_texts(row, QUESTION_TEXTS)
    if checked["answer_type"] not in ANSWER_TYPES:
        raise UnusableRowError("unknown answer type")
    if checked["split"] not in SPLITS:
        raise UnusableRowError("unknown split")
    return checked


def image_key(text: str) -> str:
    """The image's path inside the folder, normalised.

    Raises:
        UnusableRowError: the path is absolute, climbs, or is written for another system.
    """
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "\\" in text or "\0" in text or text[1:2] == ":":
        raise UnusableRowError(OUTSIDE)
    return str(path)


def _check_texts(row: Any, texts: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise UnusableRowError("not an object")
    if not set(row) <= {*texts, "patient_id", "labels"}:
        raise UnusableRowError("unknown key")
    if not set(texts) <= set(row):
        raise UnusableRowError("missing key")
    labels = row.get("labels", {})
    if not isinstance(labels, dict):
        raise UnusableRowError("wrong type")
    values = [*labels, *labels.values(), *(row[name] for name in row if name != "labels")]
    if not all(isinstance(value, str) for value in values):
        raise UnusableRowError("wrong type")
    try:
        "".join(values).encode()
    except UnicodeEncodeError:  # Half a surrogate pair, which JSON can spell and no tokenizer takes.
        raise UnusableRowError("not Unicode") from None
    for name in texts:
        if not row[name].strip():
            raise UnusableRowError(f"empty {name.replace('_', ' ')}")
    return {**row, "labels": labels}
