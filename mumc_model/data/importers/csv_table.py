"""A hospital's own table: one row for each caption or question, images beside it.

Layout: a `.csv` file (or a folder with one) separated by commas, semicolons or tabs, with a header. Columns: `image` (a
path under the image folder) and `caption`, or `question` and `answer`, or all three; optional `answer_type`,
`question_type`, `patient_id`, `split`, and any other column that the option `labels` names.
"""

import csv
import hashlib
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

from mumc_model.data.importers.gathering import (
    Gathering,
    ImportSummary,
    answer_type_of,
    importer,
    source_inside,
)
from mumc_model.data.schema import UnusableRowError
from mumc_model.data.site_writer import Progress
from mumc_model.data.splits import share_of
from mumc_model.errors import ConfigError, DataError

KNOWN = ("image", "caption", "question", "answer", "answer_type", "question_type", "patient_id", "split")
VAL_SHARE = 0.1
TEST_SHARE = 0.2


@importer
def csv_table(
    src: Path,
    dst: Path,
    *,
    on_progress: Progress | None = None,
    images: str = "",
    columns: str = "",
    labels: str = "modality,organ",
    max_side: int = 512,
) -> ImportSummary:
    """A table of your own: captions, questions or both. Options: images, columns, labels, max_side.

    `images` is the folder that image paths are relative to, by default the table's own. `columns` renames, as in
    `caption=report,patient_id=mrn`. Rows without a split are dealt by patient (70 % train, 10 % val, 20 % test). With a
    column of patients the site protects patients, else images.
    """
    table = _find(src)
    names = _renamed(columns)
    rows = list(_rows(table))
    header = set(rows[0]) if rows else set()
    if names["image"] not in header:
        raise DataError(
            f"{len(rows)} rows and no column for the image; name it 'image', or say -o columns=image=YOUR_COLUMN"
        )
    has_patients = names["patient_id"] in header
    gathering = Gathering("csv_table", "patient" if has_patients else "image")
    wanted = [label.strip() for label in labels.split(",") if label.strip() in header]
    for row in rows:
        try:
            found = {label: row[label].strip() for label in wanted if row.get(label, "").strip()}
            values = {known: (row.get(name) or "").strip() for known, name in names.items()}
            _add(gathering, Path(images) if images else table.parent, values, found, has_patients)
        except UnusableRowError as error:
            gathering.left_out[error.reason] += 1
    return gathering.write(dst, max_side, on_progress)


def _find(src: Path) -> Path:
    tables = [src] if src.is_file() else sorted(src.glob("*.csv"))
    if len(tables) != 1:
        raise DataError(f"the source holds {len(tables)} .csv files; name the one to import")
    return tables[0]


def _renamed(columns: str) -> dict[str, str]:
    names = {name: name for name in KNOWN}
    for part in filter(None, columns.split(",")):
        known, _, name = part.partition("=")
        if known.strip() not in names or not name.strip():
            raise ConfigError(f"option columns says '{part}'; write KNOWN=YOURS with one of {', '.join(KNOWN)}")
        names[known.strip()] = name.strip()
    return names


def _rows(table: Path) -> Iterator[dict[str, str]]:
    try:
        text = table.read_text(encoding="utf-8-sig")
        header = text.partition("\n")[0]
        delimiter = max(",;\t", key=header.count)
        for row in csv.DictReader(StringIO(text, newline=""), delimiter=delimiter):
            yield {key: value for key, value in row.items() if isinstance(key, str) and isinstance(value, str)}
    except OSError:
        raise DataError("the table cannot be read; check that it is a file this user may read") from None
    except UnicodeDecodeError:
        raise DataError("the table is not UTF-8; save it again as CSV in UTF-8") from None
    except csv.Error:
        raise DataError("the table is not CSV; save it again with quotes around texts") from None


def _add(gathering: Gathering, images: Path, row: dict[str, str], labels: dict[str, str], has_patients: bool) -> None:
    if not row["image"]:
        raise UnusableRowError("no image name")
    if has_patients and not row["patient_id"]:
        raise UnusableRowError("no patient id")
    if not row["caption"] and not row["question"]:
        raise UnusableRowError("neither caption nor question")
    source = source_inside(images, row["image"])
    name = hashlib.sha256(row["image"].encode("utf-8", "surrogatepass")).hexdigest()[:16]
    shared = {"patient_id": row["patient_id"], "labels": labels}
    if row["caption"]:
        gathering.add_caption(source, name, row["caption"], **shared)
    if row["question"]:
        gathering.add_question(
            source,
            name,
            question=row["question"],
            answer=row["answer"],
            answer_type=row["answer_type"].upper() or answer_type_of(row["answer"]),
            question_type=row["question_type"] or "other",
            split=row["split"].lower() or _split(row["patient_id"] or row["image"]),
            **shared,
        )


def _split(unit: str) -> str:
    share = share_of(f"csv_table/{unit}")
    if share < TEST_SHARE:
        return "test"
    return "val" if share < TEST_SHARE + VAL_SHARE else "train"
