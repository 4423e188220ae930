"""A hospital's own table: one row for each caption or question, images beside it.

Layout: a `.csv` file (or a folder with one) separated by commas, semicolons or tabs, with a header; columns as in
`table`.
"""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from mumc_model.data.importers.gathering import ImportSummary, importer
from mumc_model.data.importers.table import Layout, Row, UnreadableRowError, only_file
from mumc_model.data.schema import MAX_LINE_BYTES
from mumc_model.data.site_writer import Progress
from mumc_model.errors import DataError

REMEDY = "save it again as CSV in UTF-8, with quotes around texts"


@importer
def csv_table(
    src: Path,
    dst: Path,
    *,
    on_progress: Progress | None = None,
    images: str = "",
    columns: str = "",
    labels: str = "modality,organ",
    name: str = "csv_table",
    max_side: int = 512,
) -> ImportSummary:
    """A table of your own: captions, questions or both. Options: images, columns, labels, name, max_side.

    `images` is the folder that image paths are relative to, by default the table's own. `columns` renames, as in
    `caption=report,patient_id=mrn`. Rows without a split are dealt by patient (70 % train, 10 % val, 20 % test). With a
    column of patients the site protects patients, else images. `name` keeps several tables apart in one site.
    """
    file = only_file(src, "*.csv")
    with _opened(file) as lines:
        rows = _read(lines)
        header = next(rows, [])
        if isinstance(header, UnreadableRowError):
            raise DataError(f"the table's header is {header.reason}; {REMEDY}")
        table = Layout(name, images, columns, labels).table(header, file.parent)
        gathering = table.gather(
            ((row if isinstance(row, UnreadableRowError) else _named(header, row), "") for row in rows), remedy=REMEDY
        )
    return gathering.write(dst, max_side, on_progress)


@contextmanager
def _opened(table: Path) -> Iterator[TextIO]:
    try:
        with table.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
            yield lines
    except OSError:
        raise DataError("the table cannot be read; check that it is a file this user may read") from None


def _read(lines: TextIO) -> Iterator[list[str] | UnreadableRowError]:
    """Rows that are not blank, the header first; a row that is none stands as the reason why."""
    first = lines.readline(MAX_LINE_BYTES)
    lines.seek(0)
    # A line without an end would fill the memory; cut into pieces, it is refused by the reader's limit for a cell.
    pieces = iter(lambda: lines.readline(MAX_LINE_BYTES), "")
    reader = csv.reader(pieces, delimiter=max(",;\t", key=first.count))
    while True:
        try:
            row = next(reader)
            "".join(row).encode()
        except StopIteration:
            return
        except csv.Error:
            yield UnreadableRowError("not CSV")
        except UnicodeEncodeError:
            yield UnreadableRowError("not UTF-8")
        else:
            if row:
                yield row


def _named(header: list[str], row: list[str]) -> Row:
    return dict(zip(header, row, strict=False))
