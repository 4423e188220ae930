"""Reports of an archive: Structured Reports, text files beside the images, and a table by accession number."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset

from client.intake.archive import Left, Source, walk
from client.intake.config import IntakeConfig
from client.intake.errors import UnusableSourceError
from client.intake.identity import Pseudonyms
from client.intake.outcome import Outcome, Text
from client.intake.reading import text_of, tolerant
from client.intake.scrub import Scrubber, words_of
from client.intake.sections import described
from client.intake.store import Store
from configs.loader import ConfigurationError

if TYPE_CHECKING:
    from client.intake.taking import Taking

NO_STUDY = "a report of no image that was taken"
NO_TEXT, NOT_UTF8, NO_COLUMN = "a report without text", "a report that is not UTF-8", "a row without accession or text"
TABLE = "a table of reports"
_MOST_CHARACTERS = 200_000
_DEEPEST = 32
_SPOKEN = ("TEXT", "CODE", "NUM")
"""Kinds of content that say something about the image; names, dates and references do not."""


def is_report(dataset: Dataset) -> bool:
    """Whether it is a Structured Report."""
    return text_of(dataset, "Modality") == "SR" and "ContentSequence" in dataset


def text_of_report(dataset: Dataset) -> str:
    """What a Structured Report says of the images, findings before impressions.

    Raises:
        UnusableSourceError: nothing, or it cannot be read.
    """
    with tolerant():
        text = described("\n".join(_lines(dataset, 0)))
    if not text:
        raise UnusableSourceError(NO_TEXT)
    return text[:_MOST_CHARACTERS]


def _lines(item: Dataset, depth: int) -> Iterator[str]:
    """A line for each heading, each text and each code of the tree, in its order."""
    if depth > _DEEPEST:
        return
    for part in item.get("ContentSequence") or []:
        kind, name = text_of(part, "ValueType"), _meaning(part, "ConceptNameCodeSequence")
        if kind == "CONTAINER" and name:
            yield f"{name}:"
        elif kind in _SPOKEN:
            yield f"{name}: {_value(part, kind)}" if name else _value(part, kind)
        yield from _lines(part, depth + 1)


def _value(part: Dataset, kind: str) -> str:
    if kind == "TEXT":
        return text_of(part, "TextValue")
    if kind == "CODE":
        return _meaning(part, "ConceptCodeSequence")
    measured = (part.get("MeasuredValueSequence") or [Dataset()])[0]
    return f"{text_of(measured, 'NumericValue')} {_meaning(measured, 'MeasurementUnitsCodeSequence')}".strip()


def _meaning(item: Dataset, sequence: str) -> str:
    codes = item.get(sequence) or []
    return text_of(codes[0], "CodeMeaning") if len(codes) else ""


def known_words(config: IntakeConfig) -> frozenset[str]:
    """The words of the site's own list, in small letters.

    Raises:
        ConfigurationError: the list cannot be read.
    """
    if not config.known_names:
        return frozenset()
    try:
        text = Path(config.known_names).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise ConfigurationError(
            f"intake.known_names is {config.known_names!r}, which cannot be read as UTF-8; write one name a line"
        ) from None
    return frozenset(words_of(text))


def scrubbed(outcome: Outcome, scrubber: Scrubber, pseudonyms: Pseudonyms) -> Outcome:
    """The outcome with its Structured Report cleaned.

    It is done where the outcomes of all processes come together: loading presidio takes seconds and hundreds of
    megabytes, which each of them would need.
    """
    if outcome.spoken is None:
        return outcome
    spoken, words = outcome.spoken, frozenset(outcome.words.get(outcome.spoken.patient, ()))
    found = scrubber.scrub(spoken.text, lambda word: pseudonyms.word(word) in words)
    text = Text(**{**vars(spoken), "text": found.text}, verdict=found.verdict, reason=found.reason)
    return replace(outcome, texts=(text,), spoken=None)


def is_beside(name: str) -> bool:
    """Whether a file is read after the images, since it belongs to one of them."""
    return name.lower().endswith(".txt")


def take_beside(source: Path, store: Store, taking: "Taking", run: int) -> None:
    """Take text files of the export and the rows of the site's table, each joined to the study that it is about."""
    scrubber, pseudonyms = Scrubber(taking.known_names, taking.config), Pseudonyms(taking.key)
    for found in _beside(source, store, taking.config, pseudonyms, run):
        outcome = found if isinstance(found, Outcome) else _joined(found, store, scrubber, pseudonyms)
        store.forget(outcome.source)
        store.add(outcome, run)


@dataclass(frozen=True)
class _Report:
    """A report as it was written, with all that can say which study it is about."""

    source: str
    stamp: str
    text: str
    accession: str
    images: tuple[str, ...]
    """Digests of the names that its image could have."""


def _beside(
    source: Path, store: Store, config: IntakeConfig, pseudonyms: Pseudonyms, run: int
) -> Iterator[_Report | Outcome]:
    for item in walk(source, config):
        if isinstance(item, Left) or not is_beside(item.name):
            continue
        digest = pseudonyms.source(item.name)
        if not store.is_known(digest, item.stamp, run, again=NO_STUDY):
            yield _text_file(item, digest, config, pseudonyms)
    if config.reports:
        yield from _rows(config, pseudonyms, store, run)


def _text_file(item: Source, digest: str, config: IntakeConfig, pseudonyms: Pseudonyms) -> _Report | Outcome:
    try:
        text = item.read(config).decode("utf-8-sig")
    except UnusableSourceError as error:
        return Outcome(source=digest, stamp=item.stamp, left=error.reason)
    except UnicodeDecodeError:
        return Outcome(source=digest, stamp=item.stamp, left=NOT_UTF8)
    path = PurePosixPath(item.name)
    images = tuple(pseudonyms.source(str(path.with_suffix(suffix))) for suffix in ("", ".dcm", ".DCM", ".dicom"))
    return _Report(digest, item.stamp, text, path.stem, images)


def _rows(config: IntakeConfig, pseudonyms: Pseudonyms, store: Store, run: int) -> Iterator[_Report | Outcome]:
    names = _columns(config)
    for row in _table(Path(config.reports)):
        accession, text = (row.get(names[name], "").strip() for name in ("accession", "text"))
        digest = pseudonyms.source(f"{TABLE}\0{accession}\0{text}")
        if store.is_known(digest, "", run, again=NO_STUDY):
            continue
        if accession and text:
            yield _Report(digest, "", text, accession, ())
        else:
            yield Outcome(source=digest, stamp="", left=NO_COLUMN)


def _columns(config: IntakeConfig) -> dict[str, str]:
    names = {"accession": "accession", "text": "text"}
    for part in filter(None, config.report_columns.split(",")):
        known, _, name = part.partition("=")
        if known.strip() not in names or not name.strip():
            raise ConfigurationError(
                f"intake.report_columns says {part!r}; write accession=YOUR_COLUMN,text=YOUR_COLUMN"
            )
        names[known.strip()] = name.strip()
    return names


def _table(path: Path) -> Iterator[dict[str, str]]:
    csv.field_size_limit(_MOST_CHARACTERS)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline(1 << 16)
            delimiter = max(",;\t", key=first.count)
            heads = next(csv.reader(StringIO(first, newline=""), delimiter=delimiter), [])
            for row in csv.reader(file, delimiter=delimiter):
                yield dict(zip(heads, row, strict=False))
    except (OSError, UnicodeDecodeError, csv.Error):
        raise ConfigurationError(
            f"intake.reports is {str(path)!r}, which cannot be read as CSV in UTF-8; save it again, with quotes around "
            "texts, or leave it out"
        ) from None


def _joined(report: _Report, store: Store, scrubber: Scrubber, pseudonyms: Pseudonyms) -> Outcome:
    text = described(report.text)[:_MOST_CHARACTERS]
    place = store.place_of(report.images, pseudonyms.accession(report.accession), pseudonyms.uid(report.accession))
    if not text or place is None:
        return Outcome(source=report.source, stamp=report.stamp, left=NO_STUDY if text else NO_TEXT)
    patient, study, accession = place
    known = store.words_of(patient)
    scrubbed = scrubber.scrub(text, lambda word: pseudonyms.word(word) in known)
    made = Text(
        uid=report.source,
        patient=patient,
        study=study,
        accession=accession,
        text=scrubbed.text,
        verdict=scrubbed.verdict,
        reason=scrubbed.reason,
    )
    return Outcome(source=report.source, stamp=report.stamp, texts=(made,))
