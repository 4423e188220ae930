"""A header that says how it was de-identified: by PS3.15 Annex E, with pseudonyms and the patient's bands."""

import re

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from client.intake.cleaning import TABLE, Cleaner, elements_of, parts_of, read_day
from client.intake.config import IntakeConfig
from client.intake.identity import Pseudonyms
from client.intake.reading import text_of, tolerant
from client.intake.words import WORD, plain, words_of

BASIC, CLEAN_PIXELS, CLEAN_DESCRIPTORS, MODIFIED_DATES, CHARACTERISTICS = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113101", "Clean Pixel Data Option"),
    ("113105", "Clean Descriptors Option"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    ("113108", "Retain Patient Characteristics Option"),
)
"""Codes of PS3.16 CID 7050 with their meanings. None of them says that a person looked."""
SEEN = "pixels looked at and released by a person"
"""What the method says besides, of an image that was in quarantine."""
_SAID_OF_PIXELS = ("BurnedInAnnotation", "DeidentificationMethod", "DeidentificationMethodCodeSequence")
OLDEST = 90
"""Ages from here on are one band."""
_LEAST_LETTERS = 3
"""Shorter parts of a name would take innocent words along."""
_IDENTITY = (
    *("PatientID", "OtherPatientIDs", "PatientBirthDate", "PatientAddress", "PatientTelephoneNumbers"),
    *("AccessionNumber", "StudyID", "AdmissionID", "InstitutionName", "StationName"),
)
"""What is somebody's besides names of persons, which the header marks as such."""


def deidentify(dataset: Dataset, pseudonyms: Pseudonyms, config: IntakeConfig, *, pixels_examined: bool) -> Dataset:
    """The header with pseudonyms, without pixels and frames; it says itself how it was de-identified.

    Raises:
        UnusableSourceError: it cannot be read to its end.
    """
    with tolerant():
        patient = patient_of(dataset, pseudonyms)
        clean = Cleaner(pseudonyms, patient, config, identity_words(dataset)).clean(dataset)
        clean.PatientID = clean.PatientName = patient
        if text_of(dataset, "AccessionNumber"):
            clean.AccessionNumber = pseudonyms.accession(text_of(dataset, "AccessionNumber"))
        _keep_characteristics(clean, dataset, config)
        _sign(clean, config)
        return with_clean_pixels(clean) if pixels_examined else clean


def patient_of(dataset: Dataset, pseudonyms: Pseudonyms) -> str:
    """The patient's pseudonym; empty where the header names nobody, so that nothing can be known to be one person's."""
    identifier = text_of(dataset, "PatientID")
    return pseudonyms.patient(identifier, text_of(dataset, "IssuerOfPatientID")) if identifier else ""


def identity_words(dataset: Dataset) -> frozenset[str]:
    """The words, in small letters, by which this header's people and numbers could be known, however deep they stand.

    Raises:
        UnusableSourceError: it cannot be read to its end.
    """
    found: set[str] = set()
    with tolerant():
        for element in elements_of(dataset):
            if element.VR == "SQ":
                found.update(*map(identity_words, element.value))
            elif element.VR == "PN" or element.keyword in _IDENTITY:
                for part in parts_of(element):
                    found |= {str(part).strip().casefold(), *WORD.findall(str(part).casefold())}
                    # A text may write MULLER for Müller; the digests of a word do not say that they are alike.
                    found |= {form for word in words_of(str(part)) for form in (word, plain(word))}
    return frozenset(word for word in found if len(word) >= _LEAST_LETTERS)


def with_clean_pixels(header: Dataset, *, seen: bool = False) -> Dataset:
    """A cleaned header that says in its codes, too, that nothing in the pixels tells whose they are.

    With `seen`, a person found so, and the method names that: the code for clean pixels tells a result, and leaves open
    who came to it. Source: PS3.15 E.3.1.
    """
    signed = Dataset()
    for element in header:
        # Elements are shared with the header that came in, so those that change are made anew.
        if element.keyword not in _SAID_OF_PIXELS:
            signed.add(element)
    done = {code.CodeValue: code for code in [*header.DeidentificationMethodCodeSequence, _code(*CLEAN_PIXELS)]}
    signed.DeidentificationMethodCodeSequence = Sequence([done[value] for value in sorted(done)])
    signed.BurnedInAnnotation = "NO"
    signed.DeidentificationMethod = [*header.DeidentificationMethod, *([SEEN] if seen else [])]
    return signed


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
    if re.fullmatch("[0-9]{3}[DWMY]", text):
        return int(int(text[:3]) / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[text[3]])
    try:
        born, seen = (read_day(text_of(dataset, name)) for name in ("PatientBirthDate", "StudyDate"))
    except ValueError:
        return None
    years = seen.year - born.year - ((seen.month, seen.day) < (born.month, born.day))
    return years if years >= 0 else None


def _sign(clean: Dataset, config: IntakeConfig) -> None:
    """What was done, by the standard's own words."""
    done = [BASIC, CLEAN_DESCRIPTORS]
    done += [MODIFIED_DATES] if config.dates == "shift" else []
    done += [CHARACTERISTICS] if config.characteristics == "bands" else []
    clean.PatientIdentityRemoved = "YES"
    clean.DeidentificationMethod = ["fedmumc", f"PS3.15 Annex E, {TABLE.removeprefix('dicomfields_')}"]
    clean.DeidentificationMethodCodeSequence = Sequence([_code(*code) for code in sorted(done)])
    clean.LongitudinalTemporalInformationModified = "MODIFIED" if config.dates == "shift" else "REMOVED"
    if "BurnedInAnnotation" in clean:
        del clean.BurnedInAnnotation


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item
