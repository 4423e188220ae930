"""Headers with an identifier in every attribute of DICOM's dictionary that can hold one."""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pydicom
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

NAME, NUMBER, DAY, STRANGER = "Zyxwvut^Quonk", "83749261", "19470831", "Otterly"
_TEXT = f"CT of Quonk {STRANGER}, MRN-{NUMBER}"
PLANTED: dict[str, Any] = {
    **dict.fromkeys(("AE", "SH"), f"{STRANGER} QUONK".upper()),
    **dict.fromkeys(("LO", "LT", "ST", "UC", "UT"), _TEXT),
    "CS": f"QUONK_{STRANGER}".upper(),
    "PN": f"{STRANGER}^Quonk",
    "UR": f"https://{STRANGER}.example/{NUMBER}",
    "UI": f"1.2.840.10008.5.{NUMBER}",
    **dict.fromkeys(("DS", "IS"), NUMBER),
    "DA": DAY,
    "DT": f"{DAY}120000",
    **dict.fromkeys(("OB", "UN"), _TEXT.encode() + b" "),
    **dict.fromkeys(("FD", "SV", "UL", "UV", "SL"), int(NUMBER)),
}
TELL_TALE = tuple(word.casefold() for word in (*NAME.split("^"), NUMBER, DAY, STRANGER))
_STRUCTURE = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SpecificCharacterSet")


def make() -> Iterator[tuple[str, str, str, bytes]]:
    """Place, kind of value, keyword and file; each file has one identifier besides the patient's own header."""
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        if tag >> 16 < 8 or vr not in PLANTED or not keyword or keyword in _STRUCTURE:
            continue
        element = DataElement(tag, vr, PLANTED[vr])
        yield "top", vr, keyword, _file(element)
        inside = Dataset()
        inside.add(element)
        yield "one deep", vr, keyword, _file(_within("SharedFunctionalGroupsSequence", inside))
        between = Dataset()
        between.add(_within("AnatomicRegionSequence", inside))
        yield "two deep", vr, keyword, _file(_within("SharedFunctionalGroupsSequence", between))
    for vr, value in PLANTED.items():
        yield "private", vr, vr, _file(DataElement(0x00191001, vr, value), creator="QUONK")


def _within(keyword: str, inside: Dataset) -> DataElement:
    holder = Dataset()
    setattr(holder, keyword, Sequence([inside]))
    return holder[keyword]


def _file(element: DataElement, creator: str = "") -> bytes:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3.5", "1.2.3.6"
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = NAME, f"MRN-{NUMBER}", DAY
    dataset.Modality = "CT"
    if creator:
        dataset.add(DataElement(0x00190010, "LO", creator))
    dataset.add(element)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()
