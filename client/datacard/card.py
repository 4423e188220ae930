"""Building a site's data card: everything in its folder read, counted and compared once."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from client.config import read_site_config
from client.datacard.copies import exact_copies, images_of, near_copies
from client.datacard.facts import NOT_GIVEN, Cell, DataCard, NotMeasured, Overlap, Quarantine, Table
from client.datacard.others import overlap, read_other, sides_of
from client.datacard.skew import skew_of
from client.datacard.stamp import before, stamp
from client.datacard.texts import cell_of, lengths, repeats
from client.intake.outcome import Verdict
from client.intake.store import FILE, Store
from mumc_model.data.fingerprints import site_fingerprints
from mumc_model.data.records import SiteData, read_site
from mumc_model.data.schema import CaptionRecord, VqaRecord

OnProgress = Callable[[str, int, int], None]
"""Told what is looked at, how much of it is done, and how much there is."""
NO_PATIENTS = NotMeasured("patients", "the site's unit is the image, so its data knows no patients")
NO_BANK = NotMeasured("overlap with the public bank", "site.yaml names no bank")
NO_OTHERS = NotMeasured("overlap with public test sets", "none was named (mumc-site card SITE --against FOLDER)")
NO_ARCHIVE = NotMeasured("quarantine", "nothing was imported from a DICOM archive")


def build(
    root: Path, against: Sequence[Path] = (), on_progress: OnProgress = lambda what, done, total: None
) -> DataCard:
    """The card of the site in this folder, as its data is now.

    Args:
        root: The site's folder.
        against: Site folders of public sets, or folders of images, to look for in the site's data.
        on_progress: Told how far it is.

    Raises:
        DataError: the folder cannot be read, or one to compare with.
        ConfigurationError: there is no usable site.yaml.
    """
    root = root.resolve()
    found_before, config = before(root), read_site_config(root)
    data = read_site(root, bad_share=1.0)
    prints = site_fingerprints(root, data.image_keys, partial(on_progress, "images"))
    keys = sorted(prints)
    sides, patients = sides_of(data), _patients(data)
    images = images_of(keys, sides, patients, data.unit == "patient")
    found = [prints[key] for key in keys]

    def compare(folder: Path) -> Overlap:
        return overlap(data, images, found, read_other(folder, partial(on_progress, folder.name)))

    tables = _tables(data, patients)
    return DataCard(
        site=data.name,
        unit=data.unit,
        made=datetime.now(UTC).date().isoformat(),
        data=stamp(root, found_before, {key: one.digest for key, one in prints.items()}),
        images=_images_cell(data, patients, data.image_keys),
        patients=NO_PATIENTS if data.unit == "image" else len(set().union(*patients.values())),
        captions=cell_of(data.captions),
        questions=cell_of(data.vqa),
        tables=tables,
        lengths=lengths(data),
        exact=exact_copies(images, [one.digest for one in found]),
        near=near_copies(images, [one.hash for one in found]),
        repeats=repeats(data, {key: one.digest for key, one in prints.items()}),
        bank=compare(Path(config.bank)) if config.bank else NO_BANK,
        others=tuple(compare(folder) for folder in against) if against else NO_OTHERS,
        left_out=dict(sorted(data.skipped.items())),
        quarantine=_quarantine(root),
        skew=skew_of(root, tables),
    )


def _patients(data: SiteData) -> dict[str, set[str]]:
    """The units whose an image is, by key."""
    found: dict[str, set[str]] = defaultdict(set)
    for row in _rows(data):
        found[data.key(row)].add(row.patient_id)
    return dict(found)


def _tables(data: SiteData, patients: Mapping[str, set[str]]) -> tuple[Table, ...]:
    """Images by what their rows say of them, and questions by kind."""
    return (
        *(_image_table(data, patients, name) for name in ("modality", "organ")),
        _question_table(data, "answer type", lambda row: row.answer_type),
        _question_table(data, "question type", lambda row: row.question_type),
        _question_table(data, "split", lambda row: row.split),
    )


def _image_table(data: SiteData, patients: Mapping[str, set[str]], name: str) -> Table:
    """The first row that has the label says it for its image."""
    label: dict[str, str] = {}
    for row in _rows(data):
        if row.labels.get(name, "").strip():
            label.setdefault(data.key(row), row.labels[name].strip())
    keys: dict[str, list[str]] = defaultdict(list)
    for key in data.image_keys:
        keys[label.get(key, NOT_GIVEN)].append(key)
    return _table("images", name, {written: _images_cell(data, patients, found) for written, found in keys.items()})


def _question_table(data: SiteData, name: str, label: Callable[[VqaRecord], str]) -> Table:
    rows: dict[str, list[VqaRecord]] = defaultdict(list)
    for row in data.vqa:
        rows[label(row)].append(row)
    return _table("questions", name, {written: cell_of(found) for written, found in rows.items()})


def _table(of: Literal["images", "questions"], by: str, cells: Mapping[str, Cell]) -> Table:
    """The largest cell first."""
    ordered = sorted(cells.items(), key=lambda item: (-item[1].count, item[0]))
    return Table(of=of, by=by, cells=dict(ordered))


def _images_cell(data: SiteData, patients: Mapping[str, set[str]], keys: Iterable[str]) -> Cell:
    chosen = list(keys)
    return Cell(count=len(chosen), units=len({unit for key in chosen for unit in patients[key]}))


def _rows(data: SiteData) -> Iterator[CaptionRecord | VqaRecord]:
    yield from data.captions
    yield from data.vqa


def _quarantine(root: Path) -> Quarantine | NotMeasured:
    if not (root / FILE).is_file():
        return NO_ARCHIVE
    with Store(root) as store:
        reports = _counted(text.verdict for text in store.texts(get_args(Verdict)))
        return Quarantine(images=store.counts(), reports=reports, left_out=store.reasons())


def _counted(values: Iterable[Hashable]) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items(), key=str)}
