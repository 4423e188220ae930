"""How large an image a compressed frame really holds: a few bytes may announce gigabytes that the header denies."""

from struct import unpack_from

_JPEG, _JPEG2000 = b"\xff\xd8", b"\xff\x4f\xff\x51"
_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
"""Start of frame of every kind of JPEG, JPEG-LS being the last."""


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
