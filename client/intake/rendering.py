"""What a person would see: a DICOM image as eight-bit grey or colour, by the rules of PS3.3 C.11 and C.7.6.3.

Dimensions: H height, W width in pixels.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi, apply_windowing

from client.intake.config import IntakeConfig
from client.intake.decoding import decoded
from client.intake.errors import UnusableSourceError
from client.intake.reading import frames_in, text_of, tolerant

Eight = npt.NDArray[np.uint8]
"""HW, or HW3 in colour."""

MULTI_FRAME = "a multi-frame image, and intake.frames is none"
FLAT = "an image of one grey level"
_VOI = ("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence")
_TRANSFORMATION = ("RescaleSlope", "RescaleIntercept", "RescaleType")
_GROUPS = {"FrameVOILUTSequence": _VOI, "PixelValueTransformationSequence": _TRANSFORMATION}
_SHOWN = (
    *("Modality", "PhotometricInterpretation", "PresentationLUTShape", "BitsStored", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "ModalityLUTSequence", *_VOI, *_TRANSFORMATION),
)
"""All that the rendering of grey values depends on."""
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT")
_BAND = 1 << 20
"""Values that are worked on at a time: a large radiograph in double precision would take gigabytes."""


def render(dataset: Dataset, config: IntakeConfig) -> Iterator[tuple[int, Eight]]:
    """Number, from 0, and pixels of each frame that the configuration asks for; one frame is in memory at a time.

    Raises:
        UnusableSourceError: the pixels cannot be decoded, hold nothing, or their frames are not asked for.
    """
    for index in frames_of(frames_in(dataset), config):
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
    stored = decoded(dataset, index)
    photometric = text_of(dataset, "PhotometricInterpretation").upper()
    if photometric == "PALETTE COLOR":
        coloured = apply_color_lut(stored, dataset)[..., :3]
        return _to_eight(coloured, 0.0, float(np.iinfo(coloured.dtype).max))
    if photometric in _COLOUR:
        return _to_eight(stored, 0.0, 2.0 ** int(dataset.BitsStored) - 1)
    if stored.ndim != 2:
        raise UnusableSourceError(f"pixels of the kind {photometric or 'unknown'} in several samples")
    facts = _with_frame_facts(dataset, index)
    return _through_table(stored, facts, config) if stored.dtype.kind in "ui" else _grey(stored, facts, config)


def _through_table(stored_HW: npt.NDArray[Any], facts: Dataset, config: IntakeConfig) -> Eight:
    """The rendering of each value that occurs, looked up for each pixel: there are far fewer values than pixels."""
    low, high = int(stored_HW.min()), int(stored_HW.max())
    if high - low > 0xFFFF:
        return _grey(stored_HW, facts, config)
    bands = _bands(stored_HW)
    occurs = np.zeros(high - low + 1, dtype=bool)
    for band in bands:
        occurs[stored_HW[band].astype(np.int64) - low] = True
    values = np.flatnonzero(occurs) + low
    table = np.zeros(high - low + 1, dtype=np.uint8)
    table[values - low] = _grey(values.astype(stored_HW.dtype), facts, config)
    eight_HW = np.empty(stored_HW.shape, dtype=np.uint8)
    for band in bands:
        eight_HW[band] = table[stored_HW[band].astype(np.int64) - low]
    return eight_HW


def _grey(stored: npt.NDArray[Any], facts: Dataset, config: IntakeConfig) -> Eight:
    """The rendering of stored values, of whatever shape they are."""
    padding = _padding(stored, facts)
    value = np.asarray(apply_modality_lut(stored, facts), dtype=np.float64)
    named = config.window_of_ct() if text_of(facts, "Modality") == "CT" else None
    if named is not None:
        facts.WindowCenter, facts.WindowWidth, facts.VOILUTFunction = *named, "LINEAR"
        eight = _windowed(value, facts)
    elif facts.get("VOILUTSequence"):
        lut = facts.VOILUTSequence[0]
        eight = _to_eight(apply_voi(value.astype(np.int64), facts), 0.0, 2.0 ** int(lut.LUTDescriptor[2]) - 1)
    elif _has_window(facts):
        eight = _windowed(value, facts)
    else:
        shown = value[~padding & np.isfinite(value)]
        if not shown.size or shown.min() == shown.max():
            raise UnusableSourceError(FLAT)
        eight = _to_eight(value, float(shown.min()), float(shown.max()))
    inverse = text_of(facts, "PresentationLUTShape").upper() == "INVERSE"
    if inverse or text_of(facts, "PhotometricInterpretation").upper() == "MONOCHROME1":
        eight = 255 - eight
    eight[padding] = 0
    return eight


def _has_window(facts: Dataset) -> bool:
    """Whether there is a window that something can be seen through; scanners also write empty ones and zeros."""
    try:
        centre, width = (np.atleast_1d(np.asarray(facts.get(name), dtype=float))[0] for name in _VOI[:2])
    except (TypeError, ValueError, IndexError):
        return False
    return bool(np.isfinite(centre) and width >= 1)


def _windowed(value: npt.NDArray[np.float64], facts: Dataset) -> Eight:
    """The first window of the facts; where it ends is asked of the same function that applies it."""
    facts.RescaleSlope = facts.get("RescaleSlope", 1) or 1
    facts.RescaleIntercept = facts.get("RescaleIntercept", 0) or 0
    low, high = apply_windowing(np.array([-1e12, 1e12]), facts)
    return _to_eight(apply_windowing(value, facts), float(low), float(high))


def _padding(stored: npt.NDArray[Any], facts: Dataset) -> npt.NDArray[np.bool_]:
    """Where nothing was measured: outside a scanner's round field of view, for instance."""
    value = facts.get("PixelPaddingValue")
    if not isinstance(value, int):
        return np.zeros(stored.shape, dtype=bool)
    limit = facts.get("PixelPaddingRangeLimit", value)
    # Many files of signed pixels write both as if they were unsigned.
    wrap = 1 << 16 if stored.dtype.kind == "i" else 0
    ends = (part - wrap if part > 0x7FFF else part for part in (value, limit if isinstance(limit, int) else value))
    low, high = sorted(ends)
    return np.asarray((stored >= low) & (stored <= high))


def _with_frame_facts(dataset: Dataset, index: int) -> Dataset:
    """What the rendering of one frame depends on, also where an enhanced object says it frame by frame."""
    facts = Dataset()
    for name in _SHOWN:
        if name in dataset:
            facts.add(dataset[name])
    shared = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    own = dataset.get("PerFrameFunctionalGroupsSequence") or []
    for group in (shared[0], own[index] if index < len(own) else Dataset()):
        for sequence, names in _GROUPS.items():
            for item in group.get(sequence) or []:
                facts.update({item[name].tag: item[name] for name in names if name in item})
    return facts


def _to_eight(value: npt.NDArray[Any], low: float, high: float) -> Eight:
    """Values from `low`, black, to `high`, white; a rescaling may turn them round, so that `low` is the larger."""
    if value.dtype == np.uint8 and (low, high) == (0.0, 255.0):
        return value
    eight = np.empty(value.shape, dtype=np.uint8)
    for band in _bands(value):
        scaled = (np.nan_to_num(value[band].astype(np.float64)) - low) * (255.0 / ((high - low) or 1.0))
        eight[band] = np.rint(np.clip(scaled, 0.0, 255.0))
    return eight


def _bands(value: npt.NDArray[Any]) -> list[slice]:
    """The rows of an array, so many at a time as `_BAND` allows."""
    rows = max(1, _BAND // max(1, value[0].size)) if value.ndim else 1
    return [slice(start, start + rows) for start in range(0, len(value), rows)]
