"""MIMIC-CXR-JPG: 377,110 chest radiographs of 227,827 studies, with their reports as captions.

Layout: `files/p10/p10000032/s50414267/DICOM_ID.jpg`, `mimic-cxr-2.0.0-metadata.csv`, `-split.csv` and, where they are,
the labels of `-chexpert.csv`, each also as `.csv.gz`. The reports are MIMIC-CXR's own, `files/p10/p10000032/
s50414267.txt`, beside the images or in the folder that the option `reports` names. Access is credentialed, so that this
importer was written from the published description and tried on generated files of this layout only.
Source: Johnson et al., MIMIC-CXR-JPG, a large publicly available database of labeled chest radiographs, arXiv
1901.07042. Licence: PhysioNet Credentialed Health Data License.
"""

import csv
import gzip
import re
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Literal, TextIO, cast

from mumc_model.data.importers.gathering import Gathering, ImportSummary, importer, source_inside
from mumc_model.data.importers.mimic_cxr_report import caption_of
from mumc_model.data.schema import UnusableRowError
from mumc_model.data.site_writer import Progress
from mumc_model.errors import ConfigError, DataError

PREFIX = "mimic-cxr-2.0.0"
SPLITS = {"train": "train", "validate": "val", "test": "test"}
NUMBER = re.compile(r"[0-9]{1,12}")
DICOM_ID = re.compile(r"[0-9a-f-]{8,64}")
IDENTIFIERS = ("subject_id", "study_id")
MAX_REPORT_BYTES = 1 << 18
Row = dict[str, str]


@importer
def mimic_cxr_jpg(
    src: Path,
    dst: Path,
    *,
    on_progress: Progress | None = None,
    reports: str = "",
    views: str = "PA,AP",
    splits: str = "train",
    sections: str = "findings,impression",
    marks: Literal["remove", "sentence", "keep"] = "remove",
    max_side: int = 512,
) -> ImportSummary:
    """MIMIC-CXR-JPG: chest radiographs with their reports. Options: reports, views, splits, sections, marks, max_side.

    `reports` is the folder with MIMIC-CXR's `files/`, by default the source. `views` names the positions to take,
    separated by commas, or `all`. `splits` is a list of train, validate and test. `sections` are the parts of a report
    that become its caption. `marks` says what becomes of the `___` that stand where the owners removed an identifier:
    `remove` takes out the mark alone, `sentence` the sentence around it, `keep` nothing. The patient is the subject.
    """
    wanted = [part.strip() for part in splits.split(",")]
    if unknown := set(wanted) - set(SPLITS):
        raise ConfigError(f"MIMIC-CXR has no split '{min(unknown)}'; choose among {', '.join(SPLITS)}")
    positions = {part.strip().upper() for part in views.split(",")}
    split_of = {row["dicom_id"]: row["split"] for row in _table(src, "split", "dicom_id", "split")}
    findings = dict(_findings(src))
    report = _Reports(Path(reports) if reports else src, [part.strip() for part in sections.split(",")], marks)
    gathering = Gathering("mimic_cxr_jpg", "patient")
    for row in _table(src, "metadata", "dicom_id", *IDENTIFIERS, "ViewPosition"):
        view, split = row["ViewPosition"].strip().upper(), split_of.get(row["dicom_id"], "")
        try:
            if split not in wanted:
                raise UnusableRowError("another split")
            if "ALL" not in positions and view not in positions:
                raise UnusableRowError("another view")
            folder = _folder(row)
            source = source_inside(src, f"{folder}/{row['dicom_id']}.jpg")
            labels = {"modality": "x-ray", "organ": "chest", "split": SPLITS[split], "view": view.lower()}
            labels["findings"] = findings.get(row["study_id"], "")
            gathering.add_caption(
                source,
                row["dicom_id"],
                report.caption(f"{folder}.txt"),
                patient_id=f"p{row['subject_id']}",
                labels={label: text for label, text in labels.items() if text},
            )
        except UnusableRowError as error:
            gathering.left_out[error.reason] += 1
    return gathering.write(dst, max_side, on_progress)


class _Reports:
    """The captions of studies; the last few are kept, because a study's images follow each other."""

    def __init__(self, root: Path, sections: list[str], marks: str) -> None:
        self._root, self._sections, self._marks = root, sections, marks
        self._text = lru_cache(maxsize=64)(self._read)

    def caption(self, name: str) -> str:
        text = self._text(name)
        if text is None:
            raise UnusableRowError("report missing")
        caption = caption_of(text, self._sections, self._marks)
        if not caption:
            raise UnusableRowError("report without the sections asked for")
        return caption

    def _read(self, name: str) -> str | None:
        path = source_inside(self._root, name)
        try:
            with path.open("rb") as file:
                content = file.read(MAX_REPORT_BYTES + 1)
        except OSError:
            return None
        if len(content) > MAX_REPORT_BYTES:
            raise UnusableRowError("report too long")
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise UnusableRowError("report is not UTF-8") from None


def _folder(row: Row) -> str:
    """Where a study's images lie; identifiers are checked, because they become a path."""
    subject, study = (row[name] for name in IDENTIFIERS)
    if not (NUMBER.fullmatch(subject) and NUMBER.fullmatch(study) and DICOM_ID.fullmatch(row["dicom_id"])):
        raise UnusableRowError("not a row")
    return f"files/p{subject[:2]}/p{subject}/s{study}"


def _findings(src: Path) -> Iterator[tuple[str, str]]:
    """By study what CheXpert found present; uncertain findings count as absent from the list."""
    for row in _table(src, "chexpert", "study_id", required=False):
        present = [name for name, value in row.items() if name not in IDENTIFIERS and value.strip() in ("1", "1.0")]
        if present:
            yield row["study_id"], ", ".join(present).lower()


def _table(src: Path, name: str, *columns: str, required: bool = True) -> Iterator[Row]:
    """The rows of a table, which has every column asked for; what a short row lacks is empty."""
    found = [path for suffix in (".csv", ".csv.gz") if (path := src / f"{PREFIX}-{name}{suffix}").is_file()]
    if not found and not required:
        return
    if not found:
        raise DataError(f"the set has no {PREFIX}-{name}.csv or .csv.gz; check that its folder is complete")
    try:
        with _opened(found[0]) as lines:
            rows = csv.DictReader(lines)
            if missing := set(columns) - set(rows.fieldnames or ()):
                raise DataError(f"{found[0].name} has no column {min(missing)}; fetch the set again")
            for row in rows:
                yield {column: row[column] or "" for column in rows.fieldnames or ()}
    except (OSError, EOFError, ValueError, zlib.error, csv.Error):
        raise DataError(f"{found[0].name} cannot be read to its end; fetch the set again") from None


def _opened(path: Path) -> TextIO:
    opener = gzip.open if path.suffix == ".gz" else open
    return cast(TextIO, opener(path, "rt", encoding="utf-8", newline=""))
