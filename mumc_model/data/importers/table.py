"""What tables have in common, whatever file they come in: columns, labels, splits, and rows that may hold anything.

A row gives a caption, a question with its answer, or both. Columns: `image` and `caption`, or `question` and `answer`;
optional `answer_type`, `question_type`, `patient_id`, `split`, and any other column that the option `labels` names.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mumc_model.data.importers.gathering import Gathering, answer_type_of, content_name, source_inside
from mumc_model.data.schema import UnusableRowError
from mumc_model.data.splits import share_of
from mumc_model.errors import ConfigError, DataError

SEED = "csv_table"
"""One seed for all tables: the same rows are dealt alike in every kind of file."""
KNOWN = ("image", "caption", "question", "answer", "answer_type", "question_type", "patient_id", "split")
SPLIT_WORDS = {
    "training": "train",
    **dict.fromkeys(("validation", "validate", "valid", "dev"), "val"),
    **dict.fromkeys(("testing", "eval", "evaluation"), "test"),
}
VAL_SHARE = 0.1
TEST_SHARE = 0.2
MAY_BE_UNREADABLE = 0.01
"""The share of rows that may be no rows at all; more of them, and the table as a whole was saved in a wrong way."""
NO_IMAGE = "no image name"

Cell = str | bytes
"""An image is named by text, or stands in the table itself."""
Row = Mapping[str, Any]


class UnreadableRowError(UnusableRowError):
    """A line is no row: the fault of whoever wrote the file, and not of one record."""


@dataclass(frozen=True)
class Table:
    """How the rows of one table are to be read."""

    kind: str
    """The name of the set inside the site's folder."""
    images: Path
    """The folder that image paths are relative to."""
    names: Mapping[str, str]
    """This table's column for each known one."""
    labels: tuple[str, ...]
    """The columns that become labels."""
    has_patients: bool
    captions: frozenset[str] | None = None
    """The splits whose captions are taken; None for all."""

    def gather(self, rows: Iterable[tuple[Row | UnusableRowError, str]], *, remedy: str = "") -> Gathering:
        """The usable rows; each comes with the split of its file, or is the reason why it is none.

        Raises:
            DataError: more than 1 % of the rows are none, for which `remedy` says what to do.
        """
        gathering = Gathering(self.kind, "patient" if self.has_patients else "image")
        total = 0
        unreadable: Counter[str] = Counter()
        for row, split in rows:
            total += 1
            try:
                if isinstance(row, UnusableRowError):
                    raise row
                self._add(gathering, row, split)
            except UnusableRowError as error:
                gathering.left_out[error.reason] += 1
                unreadable[error.reason] += isinstance(error, UnreadableRowError)
        if unreadable.total() > MAY_BE_UNREADABLE * total:
            reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(unreadable.items()) if count)
            raise DataError(f"{unreadable.total()} of {total} rows cannot be read ({reasons}); {remedy}")
        return gathering

    def _add(self, gathering: Gathering, row: Row, split: str) -> None:
        values = {known: text_in(row.get(name)) for known, name in self.names.items() if known != "image"}
        labels = {label: text for label in self.labels if (text := text_in(row.get(label)))}
        image = image_in(row.get(self.names["image"]))
        if self.has_patients and not values["patient_id"]:
            raise UnusableRowError("no patient id")
        if not values["caption"] and not values["question"]:
            raise UnusableRowError("neither caption nor question")
        split = split_of(values["split"]) or split
        if isinstance(image, bytes):
            source, name = None, content_name(image)
        else:
            source, name = source_inside(self.images, image), _digest(image)
        shared = {"patient_id": values["patient_id"], "labels": labels}
        if values["caption"] and (self.captions is None or split in {*self.captions, ""}):
            gathering.add_caption(source, name, values["caption"], **shared)
        elif values["caption"]:
            gathering.left_out["caption of another split"] += 1
        if values["question"]:
            gathering.add_question(
                source,
                name,
                question=values["question"],
                answer=values["answer"],
                answer_type=values["answer_type"].upper() or answer_type_of(values["answer"]),
                question_type=values["question_type"] or "other",
                split=split or _dealt(values["patient_id"] or (name if isinstance(image, bytes) else image)),
                **shared,
            )


@dataclass(frozen=True)
class Layout:
    """How a table of one's own is laid out, as the options of its importer say; the same for every kind of file."""

    name: str
    """Of the set inside the site's folder."""
    images: str
    """The folder that paths of images are relative to; empty for the table's own."""
    columns: str
    """Which column is which, as in `caption=report,patient_id=mrn`."""
    labels: str
    """The columns that become labels, separated by commas."""

    @property
    def wanted(self) -> set[str]:
        """Every column that is read where the table has it.

        Raises:
            ConfigError: `columns` renames something that no table has.
        """
        return {*renamed(self.columns).values(), *self._labels}

    def table(self, header: Collection[str], home: Path, captions: frozenset[str] | None = None) -> Table:
        """How to read a table with these columns that lies in `home`.

        Raises:
            ConfigError: `columns` renames something that no table has.
            DataError: there is no column for the image.
        """
        names = renamed(self.columns)
        if names["image"] not in header:
            raise DataError("no column for the image; name it 'image', or say -o columns=image=YOUR_COLUMN")
        labels = tuple(label for label in self._labels if label in header)
        images = Path(self.images) if self.images else home
        return Table(self.name, images, names, labels, names["patient_id"] in header, captions)

    @property
    def _labels(self) -> list[str]:
        return [label.strip() for label in self.labels.split(",")]


def renamed(columns: str) -> dict[str, str]:
    """This table's name for each known column, by the option `columns`.

    Raises:
        ConfigError: it renames something that no table has.
    """
    names = {name: name for name in KNOWN}
    for part in filter(None, columns.split(",")):
        known, _, name = part.partition("=")
        if known.strip() not in names or not name.strip():
            raise ConfigError(f"option columns says '{part}'; write KNOWN=YOURS with one of {', '.join(KNOWN)}")
        names[known.strip()] = name.strip()
    return names


def only_file(src: Path, pattern: str) -> Path:
    """The table at the source, which is a file or a folder with one.

    Raises:
        DataError: the folder holds none, or several.
    """
    tables = [src] if src.is_file() else sorted(src.glob(pattern))
    if len(tables) != 1:
        raise DataError(f"the source holds {len(tables)} files {pattern}; name the one to import")
    return tables[0]


def image_in(cell: Any) -> Cell:
    """The image's path, or its content; where a cell holds both, as Hugging Face writes it, the content counts.

    Raises:
        UnusableRowError: the cell holds neither.
    """
    if isinstance(cell, Mapping):
        content = cell.get("bytes")
        cell = content if content and isinstance(content, bytes) else cell.get("path")
    if isinstance(cell, bytes):
        return cell
    text = text_in(cell)
    if not text:
        raise UnusableRowError(NO_IMAGE)
    return text


def text_in(cell: Any) -> str:
    """The cell as stripped text; numbers are spelled out, and what is absent (also by `nan`) is empty.

    Raises:
        UnusableRowError: the cell holds something else.
    """
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, bool) or not isinstance(cell, str | int | float):
        raise UnusableRowError("wrong type")
    return str(cell).strip()


def split_of(text: str) -> str:
    """The split's name here, by the words that Hugging Face knows for it; another word stays as it is."""
    return SPLIT_WORDS.get(text.lower(), text.lower())


def _dealt(unit: str) -> str:
    share = share_of(f"{SEED}/{unit}")
    if share < TEST_SHARE:
        return "test"
    return "val" if share < TEST_SHARE + VAL_SHARE else "train"


def _digest(text: str) -> str:
    """A name for the image's file: the table's own may say who it is of."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
