"""A site's folder: its captions, its questions and its images, read with every fault counted and none quoted.

Rows that cannot be used are left out and counted by reason, up to a limit. No message of this module carries a path, an
identifier or a text of a record, because messages travel further than the folder does.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mumc_model.data.lines import bounded_lines
from mumc_model.data.schema import (
    MAX_LINE_BYTES,
    CaptionRecord,
    Unit,
    UnusableRowError,
    VqaRecord,
    check_caption_row,
    check_question_row,
    image_key,
    read_settings,
)
from mumc_model.data.site_writer import SiteWriter
from mumc_model.data.verification import verify_images
from mumc_model.errors import DataError

__all__ = ["CaptionRecord", "SiteData", "SiteWriter", "VqaRecord", "list_faults", "read_site"]

Check = Callable[[Any], dict[str, Any]]


@dataclass(frozen=True)
class SiteData:
    """Everything usable in a site's folder, and how much was not."""

    root: Path
    name: str
    unit: Unit
    captions: tuple[CaptionRecord, ...]
    vqa: tuple[VqaRecord, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Rows left out, by reason."""

    def key(self, record: CaptionRecord | VqaRecord) -> str:
        """The image's path inside the folder with forward slashes: the same on every machine."""
        return record.image.relative_to(self.root).as_posix()

    @property
    def image_keys(self) -> tuple[str, ...]:
        """The keys of all images that a record names, sorted."""
        return tuple(sorted({self.key(record) for records in (self.captions, self.vqa) for record in records}))


def read_site(root: Path | str, *, bad_share: float = 0.01) -> SiteData:
    """All usable rows of a site's folder, images checked (checks are remembered in `state/`).

    Raises:
        DataError: no folder, no usable settings, no rows, or more than `bad_share` of a file's rows unusable.
    """
    root = Path(root).resolve()
    name, unit = read_settings(root)
    skipped: Counter[str] = Counter()
    captions = _read_rows(root, "captions.jsonl", check_caption_row, unit, bad_share, skipped)
    questions = _read_rows(root, "vqa.jsonl", check_question_row, unit, bad_share, skipped)
    if not captions and not questions:
        raise DataError("the site folder has neither captions nor questions; import a data set with `mumc-site import`")
    paths = {key: root / key for key, _ in (*captions, *questions)}
    return SiteData(
        root=root,
        name=name,
        unit=unit,
        captions=tuple(CaptionRecord(paths[key], **row) for key, row in captions),
        vqa=tuple(VqaRecord(paths[key], **row) for key, row in questions),
        skipped=dict(skipped),
    )


def list_faults(root: Path | str) -> list[tuple[str, int, str]]:
    """File, line and reason of every row that `read_site` leaves out, for the site's own eyes.

    Raises:
        DataError: there is no folder, or no usable settings.
    """
    root = Path(root).resolve()
    unit = read_settings(root)[1]
    return [
        (file_name, line, reason)
        for file_name, check in (("captions.jsonl", check_caption_row), ("vqa.jsonl", check_question_row))
        for line, reason in sorted(_sort_rows(root, file_name, check, unit)[1].items())
    ]


def _read_rows(
    root: Path, file_name: str, check: Check, unit: Unit, bad_share: float, skipped: Counter[str]
) -> list[tuple[str, dict[str, Any]]]:
    rows, faults = _sort_rows(root, file_name, check, unit)
    reasons = Counter(faults.values())
    _refuse_too_many(file_name, reasons, len(rows) + len(faults), bad_share)
    skipped.update(reasons)
    return rows


def _sort_rows(
    root: Path, file_name: str, check: Check, unit: Unit
) -> tuple[list[tuple[str, dict[str, Any]]], dict[int, str]]:
    """The usable rows of a file, and by their line why the others are not."""
    rows: dict[int, tuple[str, dict[str, Any]]] = {}
    faults: dict[int, str] = {}
    for number, line in _lines(root / file_name):
        try:
            rows[number] = _take_unit(_parse(line, check), unit)
        except UnusableRowError as error:
            faults[number] = error.reason
    problems = verify_images(root, {key for key, _ in rows.values()})
    faults |= {number: problems[key] for number, (key, _) in rows.items() if key in problems}
    return [row for number, row in rows.items() if number not in faults], faults


def _lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """Lines that are not blank, with their numbers; None stands for one that is too long to be a record."""
    try:
        yield from bounded_lines(path, MAX_LINE_BYTES)
    except FileNotFoundError:
        return
    except OSError:
        raise DataError(f"{path.name} cannot be opened; check that it is a file this user may read") from None


def _parse(line: bytes | None, check: Check) -> dict[str, Any]:
    if line is None:
        raise UnusableRowError("line too long")
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        raise UnusableRowError("not JSON") from None
    return check(row)


def _take_unit(row: dict[str, Any], unit: Unit) -> tuple[str, dict[str, Any]]:
    key = image_key(row.pop("image"))
    if unit == "image":
        row["patient_id"] = key
    elif not row.get("patient_id", "").strip():
        raise UnusableRowError("no patient id")
    return key, row


def _refuse_too_many(file_name: str, faults: Mapping[str, int], total: int, bad_share: float) -> None:
    bad = sum(faults.values())
    if bad > bad_share * total:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(faults.items()))
        raise DataError(
            f"{bad} of {total} rows of {file_name} cannot be used ({100 * bad / total:.1f} %, this site's limit is "
            f"{100 * bad_share:.1f} %): {reasons}; repair them, import the data again, or raise the limit"
        )
