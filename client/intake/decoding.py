"""One frame's stored values; a compressed one is measured first, since a few bytes may announce gigabytes."""

from struct import unpack_from
from typing import Any

import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from client.intake.errors import UnusableSourceError
from client.intake.reading import DAMAGED, IMPOSSIBLE, frames_in

NO_DECODER = "compressed in a way that nothing here decodes (video, for instance)"
_PLUGIN = "pylibjpeg"
"""It decodes all that the others do. Of run lengths it alone stops where the header says that the image ends, and
damaged streams made the process of gdcm die."""
_JPEG, _JPEG2000 = b"\xff\xd8", b"\xff\x4f\xff\x51"
_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
"""Start of frame of every kind of JPEG, JPEG-LS being the last."""


def decoded(dataset: Dataset, index: int) -> npt.NDArray[Any]:
    """Stored values of a frame, HW or HWC.

    Raises:
        UnusableSourceError: nothing here decodes it, or it is larger than the header says.
        BaseException: whatever a decoder makes of damaged data; one in Rust panics with what is no `Exception`.
    """
    syntax = _transfer_syntax(dataset)
    if not syntax.is_encapsulated:
        return pixel_array(dataset, index=index)
    if _PLUGIN not in _plugins(syntax):
        raise UnusableSourceError(NO_DECODER)
    if syntax != RLELossless:
        held = samples_of(get_frame(dataset.PixelData, index, number_of_frames=frames_in(dataset)))
        if held is None:
            raise UnusableSourceError(DAMAGED)
        if held > dataset.Rows * dataset.Columns * dataset.SamplesPerPixel:
            raise UnusableSourceError(IMPOSSIBLE)
    return pixel_array(dataset, index=index, decoding_plugin=_PLUGIN)


def samples_of(frame: bytes) -> int | None:
    """Rows times columns times components; None for a stream that is neither JPEG nor JPEG 2000, or is broken.

    Source: ITU-T T.81 B.2.2, T.87 C.2.2 and T.800 A.5.1.
    """
    try:
        if frame[:2] == _JPEG:
            return _of_jpeg(frame)
        start = frame.find(_JPEG2000)
        return None if start < 0 else _of_jpeg2000(frame, start)
    except Exception:  # The stream ends before it says so: struct.error, IndexError.
        return None


def _of_jpeg(frame: bytes) -> int | None:
    place = 2
    while frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        length, _, rows, columns, components = unpack_from(">HBHHB", frame, place + 2)
        if marker in _FRAME_MARKERS:
            return int(rows * columns * components)
        place += 2 + length
    return None


def _of_jpeg2000(frame: bytes, start: int) -> int:
    right, bottom, left, top = unpack_from(">4L", frame, start + 8)
    (components,) = unpack_from(">H", frame, start + 40)
    return int((right - left) * (bottom - top) * components)


def _plugins(syntax: UID) -> tuple[str, ...]:
    try:
        return tuple(get_decoder(syntax).available_plugins)
    except NotImplementedError:
        return ()


def _transfer_syntax(dataset: Dataset) -> UID:
    """Files without a head of their own are read as they are encoded, which the decoder wants to be told."""
    if not dataset.file_meta.get("TransferSyntaxUID"):
        implicit, little = dataset.original_encoding
        uncompressed = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else uncompressed
    return UID(dataset.file_meta.TransferSyntaxUID)
