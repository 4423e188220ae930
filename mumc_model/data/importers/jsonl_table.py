"""A table as JSON lines: one object for each caption or question, images beside it.

Layout: a `.jsonl` file (or a folder with one); keys as the columns in `table`. The file is read twice: once for its
keys, once for its rows.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from mumc_model.data.importers.gathering import ImportSummary, importer
from mumc_model.data.importers.table import Layout, Row, UnreadableRowError, only_file
from mumc_model.data.lines import bounded_lines
from mumc_model.data.schema import MAX_LINE_BYTES
from mumc_model.data.site_writer import Progress
from mumc_model.errors import DataError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@importer
def jsonl_table(
    src: Path,
    dst: Path,
    *,
    on_progress: Progress | None = None,
    images: str = "",
    columns: str = "",
    labels: str = "modality,organ",
    name: str = "jsonl_table",
    max_side: int = 512,
) -> ImportSummary:
    """A table as JSON lines: captions, questions or both. Options: images, columns, labels, name, max_side.

    The options say what they say for `csv_table`.
    """
    file = only_file(src, "*.jsonl")
    layout, header = Layout(name, images, columns, labels), set[str]()
    wanted = layout.wanted
    for row in _rows(file):
        header |= wanted.intersection(() if isinstance(row, UnreadableRowError) else row)
    table = layout.table(header, file.parent)
    gathering = table.gather(
        ((row, "") for row in _rows(file)), remedy="write one JSON object a line, in UTF-8, of at most 1 MiB"
    )
    return gathering.write(dst, max_side, on_progress)


def _rows(file: Path) -> Iterator[Row | UnreadableRowError]:
    try:
        for number, line in bounded_lines(file, MAX_LINE_BYTES):
            yield _parse(line.removeprefix(BYTE_ORDER_MARK) if line and number == 1 else line)
    except OSError:
        raise DataError("the table cannot be read; check that it is a file this user may read") from None


def _parse(line: bytes | None) -> Row | UnreadableRowError:
    if line is None:
        return UnreadableRowError("row too long")
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError:
        return UnreadableRowError("not UTF-8")
    except (ValueError, RecursionError):
        return UnreadableRowError("not JSON")
    return row if isinstance(row, dict) else UnreadableRowError("not an object")
