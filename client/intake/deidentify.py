"""A header without identity: PS3.15 Annex E, the Basic Profile, held to more strictly than it asks.

The profile lists what has to go; the table of dicom-anonymizer is that list. Of all else only kinds of values stay that
can hold no free text: numbers, code strings, codes of public schemes, UIDs as pseudonyms. Dates are moved, descriptions
keep the words of a fixed list, and at the end nothing stays that holds a word of the patient's identity.
"""

import re
from datetime import date, datetime
from functools import cache
from importlib.resources import files
from typing import Any

from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from client.intake.config import IntakeConfig
from client.intake.identity import Pseudonyms
from client.intake.reading import text_of, tolerant

TABLE = "dicomfields_2026c"
BASIC, CLEAN_PIXELS, CLEAN_DESCRIPTORS, MODIFIED_DATES, CHARACTERISTICS = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113101", "Clean Pixel Data Option"),
    ("113105", "Clean Descriptors Option"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    ("113108", "Retain Patient Characteristics Option"),
)
"""Codes of PS3.16 CID 7050 with their meanings."""
DESCRIPTORS = ("StudyDescription", "SeriesDescription", "ProtocolName", "ImageComments", "AcquisitionDescription")
"""Of which words of the fixed list stay."""
OLDEST = 90
"""Ages from here on are one band."""
_NUMBERS = ("DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV", "AT")
_OF_THE_PERSON = (0x0010, 0x0038)
"""Groups whose dates are of the person and the stay: a birthday that moves as the study does still gives the age."""
_STANDARD_UID = "1.2.840.10008."
_SCHEMES = ("DCM", "FMA", "LN", "NCIt", "RADLEX", "SCT", "SNM3", "SRT", "UBERON", "UCUM")
_CODE = ("CodeValue", "LongCodeValue", "CodingSchemeDesignator", "CodeMeaning")
_WORD = re.compile(r"[^\W_]+")
_LEAST_LETTERS = 3
"""Shorter parts of a name would take innocent words along."""
_LEAST_DIGITS = 5
"""Shorter numbers are measurements as a rule, whatever a patient's number begins with."""
_IDENTITY = (
    "PatientID",
    "PatientName",
    "OtherPatientNames",
    "OtherPatientIDs",
    "PatientBirthName",
    "PatientMotherBirthName",
    "PatientBirthDate",
    "PatientAddress",
    "PatientTelephoneNumbers",
    "AccessionNumber",
    "StudyID",
    "AdmissionID",
    "ReferringPhysicianName",
    "PerformingPhysicianName",
    "OperatorsName",
    "NameOfPhysiciansReadingStudy",
    "RequestingPhysician",
    "InstitutionName",
    "StationName",
)


def deidentify(dataset: Dataset, pseudonyms: Pseudonyms, config: IntakeConfig, *, pixels_examined: bool) -> Dataset:
    """The header with pseudonyms, without pixels; it says itself how it was de-identified.

    Raises:
        UnusableSourceError: it cannot be read to its end.
    """
    with tolerant():
        patient = patient_of(dataset, pseudonyms)
        clean = _Cleaner(pseudonyms, patient, config, identity_words(dataset)).clean(dataset)
        clean.PatientID = clean.PatientName = patient
        if text_of(dataset, "AccessionNumber"):
            clean.AccessionNumber = pseudonyms.accession(text_of(dataset, "AccessionNumber"))
        _keep_characteristics(clean, dataset, config)
        _sign(clean, config, pixels_examined)
        return clean


def patient_of(dataset: Dataset, pseudonyms: Pseudonyms) -> str:
    """The patient's pseudonym; empty where the header names nobody, so that nothing can be known to be one person's."""
    identifier = text_of(dataset, "PatientID")
    return pseudonyms.patient(identifier, text_of(dataset, "IssuerOfPatientID")) if identifier else ""


def identity_words(dataset: Dataset) -> frozenset[str]:
    """The words, in small letters, by which this header's people and numbers could be known."""
    found: set[str] = set()
    for name in _IDENTITY:
        text = text_of(dataset, name)
        found |= {word for word in _WORD.findall(text.casefold()) if len(word) >= _LEAST_LETTERS}
        found.add(text.casefold())
    return frozenset(word for word in found if len(word) >= _LEAST_LETTERS)


@cache
def descriptor_words() -> frozenset[str]:
    """The words that descriptions may keep."""
    text = files("client.intake").joinpath("descriptor_words.txt").read_text(encoding="utf-8")
    return frozenset(line for line in text.split() if line)


class _Cleaner:
    """One patient's way of cleaning a data set and those nested in it."""

    def __init__(self, pseudonyms: Pseudonyms, patient: str, config: IntakeConfig, words: frozenset[str]) -> None:
        self._pseudonyms, self._patient, self._config, self._words = pseudonyms, patient, config, words

    def clean(self, dataset: Dataset) -> Dataset:
        cleaned = Dataset()
        for element in dataset:
            kept = self._cleaned(element)
            if kept is not None and not self._names_somebody(kept):
                cleaned.add(kept)
        return cleaned

    def _cleaned(self, element: DataElement) -> DataElement | None:
        if element.tag.is_private or element.VR in ("OB", "OW", "OF", "OD", "OL", "OV", "UN") or element.is_empty:
            return None
        if element.keyword in DESCRIPTORS:
            return _with(element, _described(str(element.value)))
        if element.VR == "UI":
            return _with(element, _each(element.value, self._uid))
        if element.VR in ("DA", "DT") and element.tag.group not in _OF_THE_PERSON:
            return _with(element, _each(element.value, self._day))
        if _is_listed(element.tag):
            return None
        if element.VR == "SQ":
            items = [item for item in map(self._item, element.value) if len(item)]
            return DataElement(element.tag, "SQ", Sequence(items)) if items else None
        return element if element.VR in (*_NUMBERS, "CS") else None

    def _item(self, item: Dataset) -> Dataset:
        cleaned = self.clean(item)
        if text_of(item, "CodingSchemeDesignator") in _SCHEMES:
            # The meaning is what the scheme says; a text in its place is found out by the identity's words alone.
            code = [item[name] for name in _CODE if name in item]
            cleaned.update({part.tag: part for part in code if not self._names_somebody(part)})
        return cleaned

    def _uid(self, uid: Any) -> str:
        return str(uid) if str(uid).startswith(_STANDARD_UID) else self._pseudonyms.uid(str(uid))

    def _day(self, value: Any) -> str:
        text = str(value)
        if self._config.dates == "remove" or not self._patient:
            return ""
        try:
            day = datetime.strptime(text[:8], "%Y%m%d").date()
        except ValueError:
            return ""
        moved = self._pseudonyms.shifted(day, self._patient)
        return moved.strftime("%Y%m%d") if moved else ""

    def _names_somebody(self, element: DataElement) -> bool:
        if element.VR in ("SQ", "UI", "DA", "DT"):
            return False
        text = str(element.value).casefold()
        if element.VR in _NUMBERS:
            return len(text) >= _LEAST_DIGITS and text in self._words
        return text in self._words or any(word in self._words for word in _WORD.findall(text))


def _keep_characteristics(clean: Dataset, dataset: Dataset, config: IntakeConfig) -> None:
    for name in ("PatientSex", "PatientAge"):
        if name in clean:
            del clean[name]
    if config.characteristics == "remove":
        return
    if text_of(dataset, "PatientSex") in ("F", "M", "O"):
        clean.PatientSex = text_of(dataset, "PatientSex")
    age = _age(dataset)
    if age is not None:
        clean.PatientAge = f"{min(age // 10 * 10, OLDEST):03d}Y"


def _age(dataset: Dataset) -> int | None:
    """Whole years, from the age or from the days of birth and study; None where neither can be read."""
    text = text_of(dataset, "PatientAge")
    if re.fullmatch(r"\d{3}[DWMY]", text):
        return int(int(text[:3]) / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[text[3]])
    try:
        born, seen = (_read_day(text_of(dataset, name)) for name in ("PatientBirthDate", "StudyDate"))
    except ValueError:
        return None
    years = seen.year - born.year - ((seen.month, seen.day) < (born.month, born.day))
    return years if years >= 0 else None


def _read_day(text: str) -> date:
    return datetime.strptime(text, "%Y%m%d").date()


def _sign(clean: Dataset, config: IntakeConfig, pixels_examined: bool) -> None:
    """What was done, by the standard's own words."""
    done = [BASIC, CLEAN_DESCRIPTORS]
    done += [CLEAN_PIXELS] if pixels_examined else []
    done += [MODIFIED_DATES] if config.dates == "shift" else []
    done += [CHARACTERISTICS] if config.characteristics == "bands" else []
    clean.PatientIdentityRemoved = "YES"
    clean.DeidentificationMethod = ["fedmumc", f"PS3.15 Annex E, {TABLE.removeprefix('dicomfields_')}"]
    clean.DeidentificationMethodCodeSequence = Sequence([_code(*code) for code in sorted(done)])
    clean.LongitudinalTemporalInformationModified = "MODIFIED" if config.dates == "shift" else "REMOVED"
    if pixels_examined:
        clean.BurnedInAnnotation = "NO"
    elif "BurnedInAnnotation" in clean:
        del clean.BurnedInAnnotation


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def _described(text: str) -> str:
    return " ".join(word for word in _WORD.findall(text) if word.casefold() in descriptor_words())


def _each(value: Any, change: Any) -> Any:
    return [change(part) for part in value] if isinstance(value, MultiValue | list) else change(value)


def _with(element: DataElement, value: Any) -> DataElement | None:
    kept = [part for part in value if part] if isinstance(value, list) else value
    return DataElement(element.tag, element.VR, kept) if kept else None


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
