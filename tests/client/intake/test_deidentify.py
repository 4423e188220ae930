"""Identifiers planted wherever a header can hold a text: none may be left, and what was done is said in codes."""

import json
from datetime import date

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.uid import UID, MRImageStorage

from client.intake import deidentify as module
from client.intake.config import IntakeConfig
from client.intake.deidentify import deidentify, identity_words, patient_of
from client.intake.identity import MOST_DAYS, Pseudonyms
from client.intake.reading import parse
from client.intake.vocabulary import code_words, descriptor_words, meaning_of
from tests.client.intake.made import header, item, nested, written

CONFIG = IntakeConfig()
PSEUDONYMS = Pseudonyms(b"k" * 32)
OWN = {"PatientName": "Zyxwvut^Quonk^Mac Brixham", "PatientID": "MRN-83749261", "PatientBirthDate": "19470831"}
NUMBER, DAY = "83749261", "19470831"
WORDS = ("zyxwvut", "quonk", "brixham", "otterly", NUMBER, DAY)
"""Parts of the patient's identity, and the name of somebody else of whom the header knows nothing."""
PLANTED = {
    **dict.fromkeys(("AE", "SH"), "OTTERLY QUONK"),
    **dict.fromkeys(("LO", "LT", "ST", "UC", "UT"), f"CT of Quonk Otterly, MRN-{NUMBER}"),
    "CS": "QUONK_OTTERLY",
    "PN": "Otterly^Quonk",
    "UR": f"https://otterly.example/{NUMBER}",
    "UI": f"1.2.840.10008.5.{NUMBER}",
    **dict.fromkeys(("DS", "IS"), NUMBER),
    "DA": DAY,
    "DT": f"{DAY}120000",
    "TM": "083749.261",
    "AS": "077Y",
    **dict.fromkeys(("OB", "UN"), b"Quonk Otterly "),
    **dict.fromkeys(("FD", "SV", "UL", "UV", "SL"), int(NUMBER)),
}
PLACES = [
    (tag, vr, keyword)
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items()
    if tag >> 16 >= 8 and vr in PLANTED and keyword not in ("", "SpecificCharacterSet")
]
SEQUENCES = [tag for tag, (vr, *_) in DicomDictionary.items() if vr == "SQ" and tag >> 16 >= 8]


def planted() -> Dataset:
    """Every attribute of the dictionary that can hold an identifier, holding one."""
    dataset = Dataset()
    for tag, vr, _ in PLACES:
        dataset.add(DataElement(tag, vr, PLANTED[vr]))
    return dataset


def cleaned(dataset: Dataset, config: IntakeConfig = CONFIG) -> Dataset:
    return deidentify(parse(written(dataset), config), PSEUDONYMS, config, pixels_examined=True)


def told(dataset: Dataset) -> str:
    return json.dumps(dataset.to_json_dict()).casefold()


def left_in(dataset: Dataset) -> list[str]:
    return [word for word in WORDS if word in told(dataset)]


def test_no_identifier_is_left_of_any_attribute_of_the_dictionary():
    assert len(PLACES) > 2500
    dataset = header(**OWN)
    dataset.update({element.tag: element for element in planted() if element.tag not in dataset})
    assert left_in(dataset) == list(WORDS)
    assert left_in(cleaned(dataset)) == []


@pytest.mark.parametrize("depth", [1, 2])
def test_no_identifier_is_left_of_any_attribute_inside_sequences(depth):
    inside = nested(planted(), depth - 1)
    dataset = header(**OWN, SharedFunctionalGroupsSequence=Sequence([inside]), AcquisitionContextSequence=[inside])
    assert left_in(dataset) == list(WORDS)
    clean = cleaned(dataset)
    assert left_in(clean) == []
    # The sequences themselves stay, so that it was their content that was cleaned.
    assert "SharedFunctionalGroupsSequence" in clean


def test_no_identifier_is_left_in_any_sequence_of_the_dictionary():
    small = item(PatientName="Otterly^Quonk", CodeMeaning="Quonk", ContentLabel="QUONK", ScheduledStudyStartDate=DAY)
    dataset = header(**OWN)
    for tag in SEQUENCES:
        dataset.add(DataElement(tag, "SQ", Sequence([small])))
    assert left_in(cleaned(dataset)) == []


def test_private_attributes_go_whole_with_what_is_nested_in_them():
    dataset = header(**OWN)
    block = dataset.private_block(0x0019, "QUONK CREATOR", create=True)
    block.add_new(0x01, "PN", "Otterly^Quonk")
    block.add_new(0x02, "CS", "CHEST")
    block.add_new(0x03, "SQ", Sequence([item(PatientName="Otterly^Quonk", BodyPartExamined="CHEST")]))
    clean = cleaned(dataset)
    assert left_in(clean) == []
    assert not any(element.tag.is_private for element in clean.iterall())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ContentLabel", "QUONK"),
        ("BodyPartExamined", "QUONK"),
        ("ImageType", ["ORIGINAL", "PRIMARY", "QUONK"]),
        ("StudyDescription", "CT Chest Quonk"),
        ("SeriesDescription", "lung^QUONK_83749261"),
        ("ImageComments", "Mac Brixham, 83749261"),
        ("InstanceNumber", NUMBER),
        ("AcquisitionNumber", f"000{NUMBER}"[:12]),
        ("SliceThickness", f"{NUMBER}.0"),
        ("ImagePositionPatient", ["1", "2", NUMBER]),
    ],
)
def test_an_identifier_that_hides_in_a_value_that_may_stay_goes(name, value):
    assert left_in(cleaned(header(**OWN, **{name: value}))) == []


def test_a_code_keeps_the_meaning_of_its_scheme_and_not_the_text_beside_it():
    scanned = item(CodeValue="69536005", CodingSchemeDesignator="SCT", CodeMeaning="Head of Quonk Otterly")
    invented = item(CodeValue="QUONK", CodingSchemeDesignator="SCT", CodeMeaning="Otterly")
    clean = cleaned(header(**OWN, AnatomicRegionSequence=Sequence([scanned, invented])))
    (kept,) = clean.AnatomicRegionSequence
    assert kept.CodeMeaning == codes.SCT.Head.meaning
    assert left_in(clean) == []


def test_an_old_code_of_snomed_is_known():
    assert meaning_of("SRT", "T-D1100") == codes.SCT.Head.meaning
    assert meaning_of("99LOCAL", "T-D1100") == meaning_of("SCT", "") == ""


def test_what_tells_of_the_image_alone_stays():
    facts = {
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "Laterality": "L",
        "PhotometricInterpretation": "MONOCHROME2",
        "SliceThickness": 2.5,
        "KVP": 120,
        "PixelSpacing": [0.7, 0.7],
        "InstanceNumber": 17,
        "WindowWidth": 400,
        "StudyDescription": "CT Chest with contrast",
    }
    clean = cleaned(header(**OWN, SOPClassUID=MRImageStorage, ImageType=["ORIGINAL", "PRIMARY", "AXIAL"], **facts))
    assert {name: clean[name].value for name in facts} == facts
    assert clean.SOPClassUID == MRImageStorage
    assert list(clean.ImageType) == ["ORIGINAL", "PRIMARY", "AXIAL"]
    assert clean.Modality == "CT"


def test_an_unknown_term_leaves_the_others_in_their_places():
    clean = cleaned(header(**OWN, ImageType=["DERIVED", "QUONK", "AXIAL"]))
    assert list(clean.ImageType) == ["DERIVED", "", "AXIAL"]


def test_a_text_that_calls_itself_a_term_or_a_number_does_not_stay():
    dataset = header(**OWN)
    dataset.add(DataElement("ImageLaterality", "LO", "L"))
    dataset.add(DataElement("AcquisitionDeviceProcessingDescription", "CS", "CHEST"))
    clean = cleaned(dataset)
    assert "ImageLaterality" not in clean
    assert "AcquisitionDeviceProcessingDescription" not in clean


def test_dates_of_one_patient_move_by_the_same_days_and_keep_their_intervals():
    days = {"StudyDate": "20200101", "SeriesDate": "20200229", "AcquisitionDateTime": "20200301101500"}
    one, other = (cleaned(header(patient=name, **days)) for name in ("A-1", "B-2"))
    moved = [date.fromisoformat(one[name].value[:8]) for name in days]
    assert [(day - moved[0]).days for day in moved] == [0, 59, 60]
    assert 1 <= (date(2020, 1, 1) - moved[0]).days <= MOST_DAYS
    assert one.StudyDate != other.StudyDate
    again = cleaned(header(patient="A-1", StudyDate="20200102"))
    assert (date.fromisoformat(again.StudyDate) - moved[0]).days == 1


def test_dates_can_be_left_out_altogether():
    clean = cleaned(header(**OWN, StudyDate="20200101", ContentDate="20200102"), IntakeConfig(dates="remove"))
    assert "StudyDate" not in clean
    assert "ContentDate" not in clean
    assert clean.LongitudinalTemporalInformationModified == "REMOVED"


@pytest.mark.parametrize("written_day", ["194708", "19471331", "1947-08-31", "31.08.47", "today"])
def test_what_is_no_day_does_not_stay_as_it_is(written_day):
    dataset = header(**OWN)
    dataset.add(DataElement("ContentDate", "DA", written_day, validation_mode=0))
    clean = cleaned(dataset)
    assert written_day not in told(clean)


@pytest.mark.parametrize(
    ("age", "band"),
    [("007Y", "000Y"), ("047Y", "040Y"), ("089Y", "080Y"), ("090Y", "090Y"), ("104Y", "090Y"), ("011M", "000Y")],
)
def test_ages_are_in_bands_of_ten_years_with_the_oldest_together(age, band):
    assert cleaned(header(**OWN, PatientAge=age, PatientSex="F")).PatientAge == band


def test_an_age_that_is_not_written_comes_of_birthday_and_study():
    assert cleaned(header(**OWN, StudyDate="19970830")).PatientAge == "040Y"
    assert cleaned(header(**OWN, StudyDate="19970831")).PatientAge == "050Y"


def test_characteristics_can_be_left_out():
    clean = cleaned(header(**OWN, PatientAge="047Y", PatientSex="F"), IntakeConfig(characteristics="remove"))
    assert "PatientAge" not in clean
    assert "PatientSex" not in clean


def test_what_was_done_is_said_in_the_codes_of_the_standard():
    full = header(**OWN, BurnedInAnnotation="YES")
    clean = cleaned(full)
    assert clean.PatientIdentityRemoved == "YES"
    assert clean.BurnedInAnnotation == "NO"
    assert [code.CodeValue for code in clean.DeidentificationMethodCodeSequence] == [
        *("113100", "113101", "113105", "113107", "113108")
    ]
    bare = IntakeConfig(dates="remove", characteristics="remove")
    less = deidentify(parse(written(full), bare), PSEUDONYMS, bare, pixels_examined=False)
    assert [code.CodeValue for code in less.DeidentificationMethodCodeSequence] == ["113100", "113105"]
    assert "BurnedInAnnotation" not in less


def test_the_codes_mean_what_the_standard_says():
    theirs = {code.value: code.meaning for code in codes.cid7050.concepts.values()}
    names = ("BASIC", "CLEAN_PIXELS", "CLEAN_DESCRIPTORS", "MODIFIED_DATES", "CHARACTERISTICS")
    assert all(theirs[value] == meaning for value, meaning in (getattr(module, name) for name in names))


def test_the_words_of_an_identity_are_found_however_deep_they_stand():
    inside = nested(item(ReferringPhysicianName="Otterly^Jane", PatientID="OTHER-555777"), 2)
    words = identity_words(header(**OWN, OtherPatientIDsSequence=Sequence([inside])))
    assert {"zyxwvut", "quonk", "brixham", "83749261", "otterly", "555777", "19470831"} <= words


def test_an_export_without_patient_id_has_no_patient():
    assert patient_of(header(patient=""), PSEUDONYMS) == ""
    assert patient_of(header(patient="1"), PSEUDONYMS) != patient_of(
        header(patient="1", IssuerOfPatientID="X"), PSEUDONYMS
    )


def test_closed_lists_hold_no_duplicates_and_are_in_order():
    for words in (descriptor_words(), code_words()):
        assert all(word.strip() == word and word for word in words)
    assert all(word == word.casefold() for word in descriptor_words())
    assert all(word == word.upper() and len(word) <= 16 for word in code_words())


NAMES = st.text(min_size=1, max_size=64)
KEYS = st.binary(min_size=32, max_size=32)


@settings(deadline=None)
@given(key=KEYS, other=KEYS, name=NAMES)
def test_a_pseudonym_is_the_same_with_the_same_key_and_another_with_another(key, other, name):
    assume(key != other)
    one, same, different = Pseudonyms(key), Pseudonyms(key), Pseudonyms(other)
    for kind in ("patient", "uid", "accession", "source", "word"):
        assert getattr(one, kind)(name) == getattr(same, kind)(name) != getattr(different, kind)(name)
    assert name not in one.patient(name).removeprefix("p-") or len(name) < 4


@settings(deadline=None)
@given(key=KEYS, uid=NAMES)
def test_a_uid_gets_a_valid_one_that_is_a_uuid_of_version_four(key, uid):
    made = UID(Pseudonyms(key).uid(uid))
    assert made.is_valid
    number = int(made.removeprefix("2.25."))
    assert number >> 76 & 0xF == 4
    assert number >> 62 & 0b11 == 0b10


@settings(deadline=None)
@given(key=KEYS, patient=NAMES, first=st.dates(date(1900, 1, 1)), second=st.dates(date(1900, 1, 1)))
def test_days_move_back_by_one_number_for_each_patient(key, patient, first, second):
    moved = [Pseudonyms(key).shifted(day, patient) for day in (first, second)]
    assert first - moved[0] == second - moved[1]
    assert 1 <= (first - moved[0]).days <= MOST_DAYS


def test_parts_of_an_identifier_cannot_be_moved_over_a_border():
    assert PSEUDONYMS.patient("ab", "c") != PSEUDONYMS.patient("a", "bc")


def test_a_site_makes_its_key_once_and_keeps_it_to_itself(tmp_path):
    one, again = Pseudonyms.of_site(tmp_path), Pseudonyms.of_site(tmp_path)
    assert one.patient("A-1") == again.patient("A-1")
    assert (tmp_path / "keys/pseudonym.key").stat().st_mode & 0o077 == 0
    assert Pseudonyms.of_site(tmp_path / "other").patient("A-1") != one.patient("A-1")
