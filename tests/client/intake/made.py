"""DICOM files that the tests make: every kind of picture, and whatever an archive could hold besides."""

from collections.abc import Iterable
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian

CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
SR_CLASS = "1.2.840.10008.5.1.4.1.1.88.11"
_NUMBERS = count(10**9)


def header(*, patient: str = "MRN-4711", modality: str = "CT", **attributes: Any) -> Dataset:
    """A header of its own instance, with more attributes by their keywords."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CT_CLASS
    dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = (
        f"1.2.826.0.1.{next(_NUMBERS)}" for _ in range(3)
    )
    dataset.PatientID, dataset.Modality = patient, modality
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def picture(stored: npt.NDArray[Any], *, photometric: str = "MONOCHROME2", **attributes: Any) -> Dataset:
    """An image of these stored values: HW, NHW of N frames where `frames` is given, or HWC in colour."""
    frames = attributes.pop("frames", 0)
    dataset = header(**attributes)
    is_colour = stored.ndim == (4 if frames else 3)
    dataset.Rows, dataset.Columns = stored.shape[1:3] if frames else stored.shape[:2]
    dataset.SamplesPerPixel = stored.shape[-1] if is_colour else 1
    if is_colour:
        dataset.PlanarConfiguration = attributes.get("PlanarConfiguration", 0)
    if frames:
        dataset.NumberOfFrames = frames
    bits = stored.dtype.itemsize * 8
    dataset.BitsAllocated, dataset.BitsStored = bits, attributes.get("BitsStored", bits)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PhotometricInterpretation = photometric
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW" if bits == 16 else "OB"
    return dataset


def written(dataset: Dataset, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    """The file's bytes."""
    dataset.file_meta.TransferSyntaxUID = syntax
    file = BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def item(**attributes: Any) -> Dataset:
    """An item of a sequence."""
    dataset = Dataset()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def nested(dataset: Dataset, depth: int) -> Dataset:
    """A data set that holds this one so many sequences deep."""
    for _ in range(depth):
        dataset = item(AnatomicRegionSequence=Sequence([dataset]))
    return dataset


def samples() -> list[Path]:
    """The files that ship inside pydicom's own package; its own list of them would try to download more."""
    folder = Path(pydicom.__file__).parent / "data"
    return sorted(path for kind in ("test_files", "charset_files") for path in (folder / kind).glob("*.dcm"))


def labelled(
    pixels_HW: npt.NDArray[np.uint8],
    text: str,
    *,
    place: tuple[float, float],
    size: int,
    grey: int,
    turned: bool = False,
) -> npt.NDArray[np.uint8]:
    """The image with a text at this share of its width and height, of so many pixels; turned by a quarter if wished."""
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(text)
    mask = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
    ImageDraw.Draw(mask).text((1 - left, 1 - top), text, font=font, fill=255)
    if turned:
        mask = mask.transpose(Image.Transpose.ROTATE_90)
    image = Image.fromarray(pixels_HW)
    corner = [round(share * max(0, side - own)) for share, side, own in zip(place, image.size, mask.size, strict=True)]
    image.paste(grey, (corner[0], corner[1]), mask)
    return np.asarray(image)


def report(sentences: Iterable[str], **attributes: Any) -> Dataset:
    """A Basic Text Structured Report of one section."""
    dataset = header(modality="SR", SOPClassUID=SR_CLASS, **attributes)
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"
    concept = Sequence([item(CodeValue="121070", CodingSchemeDesignator="DCM", CodeMeaning="Findings")])
    dataset.ContentSequence = Sequence(
        [
            item(RelationshipType="CONTAINS", ValueType="TEXT", ConceptNameCodeSequence=concept, TextValue=text)
            for text in sentences
        ]
    )
    return dataset
