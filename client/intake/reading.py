"""One DICOM file read with suspicion: what it claims to be is checked before anything is decoded."""

import logging
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from client.intake.archive import TOO_LARGE
from client.intake.config import IntakeConfig
from client.intake.errors import UnusableSourceError

NO_PICTURE = "neither a picture nor a report"
NO_DICOM, DAMAGED, NO_IDENTITY = "not DICOM", "damaged DICOM", "DICOM without SOP class, study, series or instance UID"
INDEX, GIANT, IMPOSSIBLE = (
    "the index of an export (DICOMDIR)",
    "more pixels than intake.max_megapixels",
    "impossible size",
)
CUT = "cut short: fewer pixels than its header says"
DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
_NO_PICTURES = ("RTDOSE", "RTIMAGE", "SEG", "REG", "KO", "PR")
"""Modalities whose pixels are masks, doses or settings."""
_PREAMBLE = 128
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")
"""How a file without preamble begins: group 0002 or 0008, of either byte order."""
_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_SIZES = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

# What pydicom logs of a damaged file quotes its values, which may be a patient's.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)


def parse(content: bytes, config: IntakeConfig) -> Dataset:
    """The file as a data set whose identity and size can be believed.

    Raises:
        UnusableSourceError: it is no DICOM, is damaged, or announces what no scanner makes.
    """
    if content[_PREAMBLE : _PREAMBLE + 4] != b"DICM" and content[:2] not in _FIRST_GROUPS:
        raise UnusableSourceError(NO_DICOM)
    with tolerant():
        if DeflatedExplicitVRLittleEndian.encode() in content:
            _check_inflated(content, config)
        dataset = pydicom.dcmread(BytesIO(content), force=True)
        if dataset.file_meta.get("MediaStorageSOPClassUID") == DIRECTORY_CLASS or "DirectoryRecordSequence" in dataset:
            raise UnusableSourceError(INDEX)
        if not all(text_of(dataset, name) for name in _UIDS):
            raise UnusableSourceError(NO_IDENTITY)
        if has_pixels(dataset):
            _check_size(dataset, config)
    return dataset


@contextmanager
def tolerant() -> Iterator[None]:
    """Work on a data set whose values may be anything: pydicom neither warns nor validates, and every fault is one.

    Raises:
        UnusableSourceError: whatever goes wrong; it quotes nothing.
    """
    before = pydicom.config.settings.reading_validation_mode
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (UnusableSourceError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except MemoryError:
        raise UnusableSourceError(GIANT) from None
    except BaseException:  # Lazy conversion raises anything at all, often quoting values, and decoders in Rust panic.
        raise UnusableSourceError(DAMAGED) from None
    finally:
        pydicom.config.settings.reading_validation_mode = before


def has_pixels(dataset: Dataset) -> bool:
    """Whether it is a picture of a patient."""
    return text_of(dataset, "Modality").upper() not in _NO_PICTURES and any(name in dataset for name in _PIXELS)


def text_of(dataset: Dataset, name: str) -> str:
    """An attribute as text; empty where it is absent or cannot be read."""
    try:
        with tolerant():
            value: Any = dataset.get(name, "")
            return "" if value is None else str(value).strip()
    except UnusableSourceError:  # An attribute that cannot be read is as good as none.
        return ""


def frames_in(dataset: Dataset) -> int:
    """How many frames it says to hold.

    Raises:
        UnusableSourceError: it is no number.
    """
    with tolerant():
        return int(dataset.get("NumberOfFrames", 1) or 1)


def _check_size(dataset: Dataset, config: IntakeConfig) -> None:
    try:
        rows, columns, samples, bits = (int(dataset.get(name, 0) or 0) for name in _SIZES)
        frames = int(dataset.get("NumberOfFrames", 1) or 1)
    except (TypeError, ValueError):
        raise UnusableSourceError(IMPOSSIBLE) from None
    if min(rows, columns, samples, bits, frames) < 1 or samples > 4 or bits > 64:
        raise UnusableSourceError(IMPOSSIBLE)
    if rows * columns > config.max_megapixels * 1_000_000:
        raise UnusableSourceError(GIANT)
    if dataset.file_meta.get("TransferSyntaxUID") and dataset.file_meta.TransferSyntaxUID.is_compressed:
        return
    held = len(dataset[next(name for name in _PIXELS if name in dataset)].value)
    # YBR 4:2:2 stores two of three samples.
    stored = 2 if samples == 3 and text_of(dataset, "PhotometricInterpretation").endswith("422") else samples
    if held * 8 < rows * columns * stored * bits * frames:
        raise UnusableSourceError(CUT)


def _check_inflated(content: bytes, config: IntakeConfig) -> None:
    """Find out whether a deflated file unpacks to more than a file may be: pydicom would unpack it all at once."""
    file = BytesIO(content)
    read_preamble(file, force=True)
    if _read_file_meta_info(file).get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    most, inflater = config.max_file_mib << 20, zlib.decompressobj(-zlib.MAX_WBITS)
    size, rest = 0, file.read()
    while rest and not inflater.eof:
        size += len(inflater.decompress(rest, 1 << 20))
        rest = inflater.unconsumed_tail
        if size > most:
            raise UnusableSourceError(TOO_LARGE)
