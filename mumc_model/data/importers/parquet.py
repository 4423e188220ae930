"""A data set as Hugging Face writes it: Parquet files with the images inside, or with their paths.

Layout: a `.parquet` file, or a folder with some at any depth. The split is read off a file's name or folder
(`train-00000-of-00005.parquet`, `validation/0000.parquet`), where no column says it. An image is a struct of `bytes`
and `path`, plain bytes, or a path; the other columns are as in `table`. Nothing in these files is code, and the scripts
that some data sets bring along are never opened.

Files are read a few rows at a time, twice: once for the rows and what each image is, once for the images that the site
does not hold yet. Links to Parquet files are followed, because the cache of `huggingface_hub` is made of them.
Source: https://huggingface.co/docs/hub/datasets-file-names-and-splits.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mumc_model.data.importers.gathering import ImportSummary, importer, is_file
from mumc_model.data.importers.table import Layout, Row, image_in, split_of
from mumc_model.data.schema import SPLITS, UnusableRowError
from mumc_model.data.site_writer import Progress
from mumc_model.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 16
MAX_GROUP_BYTES = 4 << 30
"""A group of rows that announces more is refused before it is read; Hugging Face writes 0.1 to 0.5 GB."""
DAMAGED_FILE = "damaged Parquet file (files, not rows)"
DAMAGED_GROUP = "damaged part of a Parquet file (parts, not rows)"
TOO_LARGE_GROUP = "part of a Parquet file too large (parts, not rows)"


@importer
def parquet(
    src: Path,
    dst: Path,
    *,
    on_progress: Progress | None = None,
    images: str = "",
    columns: str = "",
    labels: str = "modality,organ",
    captions: str = "train",
    name: str = "parquet",
    max_side: int = 512,
) -> ImportSummary:
    """Hugging Face data sets as Parquet files. Options: images, columns, labels, captions, name, max_side.

    `images` is the folder that paths of images are relative to, by default the source. `columns` renames, as in
    `caption=text`. `captions` names the splits, separated by commas, whose captions are taken; rows without a split are
    always taken. `name` keeps several sets apart in one site.
    """
    taken = frozenset(split_of(part.strip()) for part in captions.split(","))
    if unknown := taken - {*SPLITS, ""}:
        raise ConfigError(f"option captions names the split '{min(unknown)}'; choose among {', '.join(SPLITS)}")
    files = [src] if src.is_file() else sorted(filter(is_file, src.rglob("*.parquet")))
    layout = Layout(name, images, columns, labels)
    wanted = layout.wanted
    header = {column for file in files for column in _columns(file) & wanted}
    if not files:
        raise DataError("the source holds no .parquet files; name the folder of the data set, or one file")
    root = src.parent if src.is_file() else src
    table = layout.table(header, root, taken)
    gathering = table.gather((row, _split(file, root)) for file in files for row in _rows(file, sorted(header)))
    image = table.names["image"]
    return gathering.write(dst, max_side, on_progress, lambda: _contents(files, image))


def _split(file: Path, root: Path) -> str:
    """What the file's name says, else what its folders say, from the innermost outwards."""
    for part in reversed(file.relative_to(root).parts):
        for word in re.split(r"[\W_]+", part.lower()):
            if (split := split_of(word)) in SPLITS:
                return split
    return ""


def _contents(files: Iterable[Path], image: str) -> Iterator[bytes]:
    for file in files:
        for row in _rows(file, [image]):
            try:
                content = b"" if isinstance(row, UnusableRowError) else image_in(row.get(image))
            except UnusableRowError:
                continue
            if isinstance(content, bytes):
                yield content


def _columns(file: Path) -> set[str]:
    with ExitStack() as stack:
        opened = _open(file, stack)
        return set() if opened is None else set(opened.schema_arrow.names)


def _open(file: Path, stack: ExitStack) -> Any:
    """The file as pyarrow opens it; None where it cannot be."""
    try:
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise ConfigError(
            "Parquet files need pyarrow, which is not installed; run: pip install 'fedmumc[parquet]'"
        ) from None
    try:
        opened = pyarrow.parquet.ParquetFile(
            file, memory_map=False, buffer_size=1 << 20, pre_buffer=False, page_checksum_verification=True
        )
        stack.enter_context(opened)
        opened.schema_arrow  # noqa: B018 - the schema is translated here, where a fault is one of the file.
    except Exception:  # As decoders of images, this one raises anything at all on broken input.
        return None
    return opened


def _rows(file: Path, columns: list[str]) -> Iterator[Row | UnusableRowError]:
    with ExitStack() as stack:
        opened = _open(file, stack)
        if opened is None:
            yield UnusableRowError(DAMAGED_FILE)
            return
        for number in range(opened.metadata.num_row_groups):
            yield from _group(opened, number, columns)


def _group(opened: Any, number: int, columns: list[str]) -> Iterator[Row | UnusableRowError]:
    try:
        if opened.metadata.row_group(number).total_byte_size > MAX_GROUP_BYTES:
            yield UnusableRowError(TOO_LARGE_GROUP)
            return
        for batch in opened.iter_batches(BATCH_ROWS, row_groups=[number], columns=columns, use_threads=False):
            yield from (_row(batch, index) for index in range(batch.num_rows))
    except Exception:  # A fault inside one group leaves the others readable.
        yield UnusableRowError(DAMAGED_GROUP)


def _row(batch: "pa.RecordBatch", index: int) -> Row | UnusableRowError:
    try:
        return {column: batch.column(column)[index].as_py() for column in batch.schema.names}
    except UnicodeDecodeError:
        return UnusableRowError("not UTF-8")
    except Exception:  # Dates out of range, nested values that are none: this row alone is lost.
        return UnusableRowError("wrong type")
