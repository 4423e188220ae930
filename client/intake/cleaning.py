"""Element by element, what a header may keep: PS3.15 Annex E, the Basic Profile, held to more strictly than it asks.

The profile lists what has to go; the table of dicom-anonymizer is that list. Of all else only kinds of values stay that
can hold no free text, in groups of the image and its making: numbers, terms and codes of closed lists, UIDs as
pseudonyms. Dates are moved, descriptions keep words of a fixed list, and no number stays that is one of the patient's.
"""

import math
import re
from collections.abc import Iterator
from datetime import date, datetime
from functools import cache
from typing import Any

from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import UID

from client.intake.config import IntakeConfig
from client.intake.identity import Pseudonyms
from client.intake.reading import text_of
from client.intake.vocabulary import code_words, described, meaning_of

TABLE = "dicomfields_2026c"
DESCRIPTORS = ("StudyDescription", "SeriesDescription", "ProtocolName", "ImageComments", "AcquisitionDescription")
"""Of which words of the fixed list stay."""
_NUMBERS = ("DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV")
_PER_FRAME = "PerFrameFunctionalGroupsSequence"
"""What is said frame by frame: of many frames, and a header here is that of one image."""
_GROUPS = (0x0008, 0x0018, 0x0020, 0x0028, 0x0040, 0x0054, 0x2050, 0x5200)
"""Identification, acquisition, place in the study, pixels, codes, nuclear medicine, presentation and frames.

None is of the person or the stay: a birthday that moves as the study does would still give the age.
"""
_LEAST_DIGITS = 5
"""Shorter numbers are measurements as a rule, whatever a patient's number begins with."""


class Cleaner:
    """One patient's way of cleaning a data set and those nested in it."""

    def __init__(self, pseudonyms: Pseudonyms, patient: str, config: IntakeConfig, words: frozenset[str]) -> None:
        """The patient by their pseudonym; `words` in small letters are those of their identity."""
        self._pseudonyms, self._patient, self._config, self._words = pseudonyms, patient, config, words
        runs = re.findall(r"\d+", " ".join(words))
        self._numbers = {run.lstrip("0") for run in runs if len(run) >= _LEAST_DIGITS} - {""}

    def clean(self, dataset: Dataset) -> Dataset:
        """What of a data set may stay."""
        cleaned = Dataset()
        for element in elements_of(dataset):
            kept = self._cleaned(element)
            if kept is not None:
                cleaned.add(kept)
        meaning = meaning_of(text_of(dataset, "CodingSchemeDesignator"), text_of(dataset, "CodeValue"))
        if meaning:
            cleaned.CodeValue, cleaned.CodeMeaning = text_of(dataset, "CodeValue"), meaning
            cleaned.CodingSchemeDesignator = text_of(dataset, "CodingSchemeDesignator")
        return cleaned

    def _cleaned(self, element: DataElement) -> DataElement | None:
        if element.keyword == _PER_FRAME or not _is_as_in_the_dictionary(element) or element.is_empty:
            return None
        if element.keyword in DESCRIPTORS:
            return _with(element, [described(str(element.value), self._words)])
        if element.VR == "UI":
            return _with(element, [self._uid(part) for part in parts_of(element)])
        if element.tag.group not in _GROUPS:
            return None
        if element.VR in ("DA", "DT"):
            return _with(element, [self._day(part) for part in parts_of(element)])
        if _is_listed(element.tag):
            return None
        if element.VR == "SQ":
            items = [item for item in map(self.clean, element.value) if len(item)]
            return DataElement(element.tag, "SQ", Sequence(items)) if items else None
        if element.VR == "CS":
            return _with(element, [part if part in code_words() else "" for part in map(_term, parts_of(element))])
        return element if element.VR in _NUMBERS and all(map(self._is_measured, parts_of(element))) else None

    def _uid(self, value: Any) -> str:
        # Those that the standard itself gives say what a thing is, and not which.
        text = str(value)
        return text if not text or UID(text).type else self._pseudonyms.uid(text)

    def _day(self, value: Any) -> str:
        text = str(value)
        if self._config.dates == "remove" or not self._patient:
            return ""
        try:
            moved = self._pseudonyms.shifted(read_day(text[:8]), self._patient)
        except ValueError:
            return ""
        return moved.isoformat().replace("-", "") if moved else ""

    def _is_measured(self, number: Any) -> bool:
        """Whether it is a finite number, and none of the patient's own."""
        try:
            value = float(number)
        except (TypeError, ValueError):
            return False
        return math.isfinite(value) and not (value.is_integer() and str(abs(int(value))) in self._numbers)


def read_day(text: str) -> date:
    """The day that DICOM writes so.

    Raises:
        ValueError: it is none.
    """
    if not re.fullmatch("[0-9]{8}", text):
        raise ValueError("not a day as DICOM writes it")
    return datetime.strptime(text, "%Y%m%d").date()


def elements_of(dataset: Dataset) -> Iterator[DataElement]:
    """Those that can be read; what cannot be read is not kept."""
    for tag in sorted(dataset.keys()):
        try:
            yield dataset[tag]
        except Exception:  # As in `tolerant`.
            continue


def parts_of(element: DataElement) -> list[Any]:
    """The values of an element, one or several."""
    return list(element.value) if isinstance(element.value, MultiValue | list) else [element.value]


def _is_as_in_the_dictionary(element: DataElement) -> bool:
    """Whether it is public, and of the kind that its attribute is of: a text may call itself a code string."""
    if element.tag.is_private or not dictionary_has_tag(element.tag):
        return False
    return element.VR in dictionary_VR(element.tag).split(" or ")


def _term(value: Any) -> str:
    return str(value).strip().upper()


def _with(element: DataElement, parts: list[str]) -> DataElement | None:
    """The element with these values; an empty one among several keeps the others in their places."""
    return DataElement(element.tag, element.VR, parts if len(parts) > 1 else parts[0]) if any(parts) else None


@cache
def _listed() -> tuple[frozenset[int], tuple[tuple[int, int], ...]]:
    """The tags of the profile's table, and those that stand for many, each with its mask."""
    tags = dicom_anonymization_database_selector(TABLE)["ALL_TAGS"]
    single = frozenset((tag[0] << 16) | tag[1] for tag in tags if len(tag) == 2)
    many = tuple(((tag[0] << 16) | tag[1], (tag[2] << 16) | tag[3]) for tag in tags if len(tag) > 2)
    return single, many


def _is_listed(tag: BaseTag) -> bool:
    single, many = _listed()
    return int(tag) in single or any(int(tag) & mask == wanted & mask for wanted, mask in many)
