"""What a person would see: a DICOM image as eight-bit grey or colour, by the rules of PS3.3 C.11 and C.7.6.3.

Dimensions: H height, W width in pixels.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi, apply_windowing
from pydicom.pixels.utils import pixel_array
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from client.intake.config import IntakeConfig
from client.intake.errors import UnusableSourceError
from client.intake.reading import text_of, tolerant

Eight = npt.NDArray[np.uint8]
"""HW, or HW3 in colour."""

MULTI_FRAME = "a multi-frame image, and intake.frames is none"
FLAT = "an image of one grey level"
_VOI = ("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence")
_TRANSFORMATION = ("RescaleSlope", "RescaleIntercept", "RescaleType")
_GROUPS = {"FrameVOILUTSequence": _VOI, "PixelValueTransformationSequence": _TRANSFORMATION}
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT")


def render(dataset: Dataset, config: IntakeConfig) -> Iterator[tuple[int, Eight]]:
    """Number, from 0, and pixels of each frame that the configuration asks for; one frame is in memory at a time.

    Raises:
        UnusableSourceError: the pixels cannot be decoded, hold nothing, or their frames are not asked for.
    """
    for index in frames_of(int(dataset.get("NumberOfFrames", 1) or 1), config):
        with tolerant():
            pixels = _frame(dataset, index, config)
        yield index, pixels


def frames_of(count: int, config: IntakeConfig) -> tuple[int, ...]:
    """Numbers of the frames that become images.

    Raises:
        UnusableSourceError: there are several, and none is asked for.
    """
    if count == 1:
        return (0,)
    if config.frames == "none":
        raise UnusableSourceError(MULTI_FRAME)
    return tuple(range(count)) if config.frames == "all" else (0 if config.frames == "first" else count // 2,)


def _frame(dataset: Dataset, index: int, config: IntakeConfig) -> Eight:
    _name_transfer_syntax(dataset)
    stored = pixel_array(dataset, index=index)
    photometric = text_of(dataset, "PhotometricInterpretation").upper()
    if photometric == "PALETTE COLOR":
        coloured = apply_color_lut(stored, dataset)
        return _to_eight(coloured.astype(np.float64), 0.0, float(np.iinfo(coloured.dtype).max))
    if photometric in _COLOUR:
        return _to_eight(stored.astype(np.float64), 0.0, 2.0 ** int(dataset.BitsStored) - 1)
    if stored.ndim != 2:
        raise UnusableSourceError(f"pixels of the kind {photometric or 'unknown'} in several samples")
    return _grey(stored, _with_frame_facts(dataset, index), config)


def _grey(stored_HW: npt.NDArray[Any], facts: Dataset, config: IntakeConfig) -> Eight:
    padding_HW = _padding(stored_HW, facts)
    value_HW = np.asarray(apply_modality_lut(stored_HW, facts), dtype=np.float64)
    window = config.window_of_ct() if text_of(facts, "Modality") == "CT" else None
    if window is not None:
        facts.WindowCenter, facts.WindowWidth, facts.VOILUTFunction = *window, "LINEAR"
        eight_HW = _windowed(value_HW, facts)
    elif "VOILUTSequence" in facts:
        lut = facts.VOILUTSequence[0]
        eight_HW = _to_eight(apply_voi(value_HW.astype(np.int64), facts), 0.0, 2.0 ** int(lut.LUTDescriptor[2]) - 1)
    elif facts.get("WindowWidth") is not None and facts.get("WindowCenter") is not None:
        eight_HW = _windowed(value_HW, facts)
    else:
        shown = value_HW[~padding_HW]
        if not shown.size or shown.min() == shown.max():
            raise UnusableSourceError(FLAT)
        eight_HW = _to_eight(value_HW, float(shown.min()), float(shown.max()))
    inverse = text_of(facts, "PresentationLUTShape").upper() == "INVERSE"
    if inverse or text_of(facts, "PhotometricInterpretation").upper() == "MONOCHROME1":
        eight_HW = 255 - eight_HW
    eight_HW[padding_HW] = 0
    return eight_HW


def _windowed(value_HW: npt.NDArray[np.float64], facts: Dataset) -> Eight:
    """The first window of the facts; where it ends is asked of the same function that applies it."""
    facts.RescaleSlope, facts.RescaleIntercept = (
        facts.get("RescaleSlope", 1) or 1,
        facts.get("RescaleIntercept", 0) or 0,
    )
    ends = apply_windowing(np.array([-1e12, 1e12]), facts)
    return _to_eight(apply_windowing(value_HW, facts), float(ends[0]), float(ends[1]))


def _padding(stored_HW: npt.NDArray[Any], facts: Dataset) -> npt.NDArray[np.bool_]:
    """Where nothing was measured: outside a scanner's round field of view, for instance."""
    value = facts.get("PixelPaddingValue")
    if not isinstance(value, int):
        return np.zeros(stored_HW.shape, dtype=bool)
    limit = facts.get("PixelPaddingRangeLimit", value)
    low, high = sorted((value, limit if isinstance(limit, int) else value))
    return np.asarray((stored_HW >= low) & (stored_HW <= high))


def _with_frame_facts(dataset: Dataset, index: int) -> Dataset:
    """What the rendering of one frame depends on, also where an enhanced object says it frame by frame."""
    facts = Dataset()
    for element in dataset:
        if element.keyword not in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
            facts.add(element)
    shared = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    own = dataset.get("PerFrameFunctionalGroupsSequence") or []
    for group in (shared[0], own[index] if index < len(own) else Dataset()):
        for sequence, names in _GROUPS.items():
            for item in group.get(sequence) or []:
                facts.update({item[name].tag: item[name] for name in names if name in item})
    return facts


def _name_transfer_syntax(dataset: Dataset) -> None:
    """Files without a head of their own are read as they are encoded, which the decoder wants to be told."""
    if not dataset.file_meta.get("TransferSyntaxUID"):
        implicit, little = dataset.original_encoding
        uncompressed = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else uncompressed


def _to_eight(value: npt.NDArray[np.float64], low: float, high: float) -> Eight:
    scaled = (np.nan_to_num(value) - low) * (255.0 / max(high - low, 1e-12))
    return np.rint(np.clip(scaled, 0.0, 255.0)).astype(np.uint8)
