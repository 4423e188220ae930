"""Files that are cut, damaged or made to harm: each is an image, or left out for a reason that quotes nothing."""

import json
import struct
import tracemalloc
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataelem import DataElement
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from client.intake import archive, reading
from client.intake.burned_in import hint
from client.intake.config import IntakeConfig
from client.intake.deidentify import deidentify, identity_words, patient_of
from client.intake.errors import UnusableSourceError
from client.intake.identity import Pseudonyms
from client.intake.reading import has_pixels, parse
from client.intake.rendering import render
from tests.client.intake.made import header, nested, picture, samples, written

CONFIG = IntakeConfig()
PSEUDONYMS = Pseudonyms(b"k" * 32)
PIXELS = np.arange(256, dtype=np.uint16).reshape(16, 16)


def taken(content: bytes, config: IntakeConfig = CONFIG) -> str:
    """All that an import does with a file before text is looked for; why it was left out, or nothing."""
    try:
        dataset = parse(content, config)
        if not patient_of(dataset, PSEUDONYMS):
            return "nobody"
        identity_words(dataset)
        hint(dataset, config)
        json.dumps(deidentify(dataset, PSEUDONYMS, config, pixels_examined=False).to_json_dict())
        if not has_pixels(dataset):
            return reading.NO_PICTURE
        for _, pixels in render(dataset, config):
            assert pixels.dtype == np.uint8
    except UnusableSourceError as error:
        return error.reason
    return ""


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_every_encoding_of_a_file_is_read(syntax):
    assert taken(written(picture(PIXELS), syntax)) == ""


def test_a_file_without_preamble_is_read():
    assert taken(written(picture(PIXELS))[132:]) == ""


@pytest.mark.parametrize("content", [b"", b"x", b"GIF89a" * 99, bytes(1000), b"%PDF-1.4" + bytes(500)])
def test_what_is_no_dicom_is_left_out_as_such(content):
    assert taken(content) == reading.NO_DICOM


def test_a_file_that_is_cut_anywhere_is_left_out_for_a_reason():
    content = written(picture(PIXELS, RescaleSlope=1, RescaleIntercept=0))
    found = Counter(taken(content[:length]) for length in range(0, len(content), 10))
    assert "" not in found
    known = {reading.NO_DICOM, reading.NO_IDENTITY, reading.NO_PICTURE, reading.DAMAGED, reading.CUT, "nobody"}
    assert set(found) <= known
    assert found[reading.CUT] == len(PIXELS.tobytes()) // 10


@pytest.mark.parametrize("path", samples(), ids=lambda path: path.stem)
def test_samples_of_pydicom_that_are_cut_or_damaged_are_at_most_left_out(path):
    content, random = path.read_bytes()[: 1 << 18], np.random.default_rng(7)
    taken(content)
    taken(content[: len(content) // 2])
    for _ in range(2):
        damaged = np.frombuffer(content, np.uint8).copy()
        places = random.integers(0, len(damaged), max(1, len(damaged) // 100))
        damaged[places] = random.integers(0, 256, len(places))
        taken(damaged.tobytes())
        # The pixels of an image are most of it; what is damaged here is the header.
        start = damaged[:2000].copy()
        taken(start.tobytes() + content[2000:])


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_no_damage_to_a_header_is_more_than_a_reason(data):
    content = bytearray(written(picture(PIXELS, StudyDate="20200101", PatientName="A^B", ImageType=["A", "B"])))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(132, len(content) - 513))] = data.draw(st.integers(0, 255))
    taken(bytes(content))


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"Rows": 65535, "Columns": 65535}, reading.GIANT),
        ({"Rows": 0}, reading.IMPOSSIBLE),
        ({"SamplesPerPixel": 200}, reading.IMPOSSIBLE),
        ({"BitsAllocated": 4096}, reading.IMPOSSIBLE),
        ({"NumberOfFrames": -3}, reading.IMPOSSIBLE),
        ({"NumberOfFrames": 2_000_000_000}, reading.CUT),
        ({"Rows": 4000, "Columns": 4000}, reading.CUT),
    ],
)
def test_a_size_that_cannot_be_is_left_out_before_anything_is_decoded(facts, reason):
    dataset = picture(PIXELS)
    for name, value in facts.items():
        setattr(dataset, name, value)
    content = written(dataset)
    tracemalloc.start()
    try:
        assert taken(content) == reason
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_compressed_image_that_says_to_have_endless_frames_is_left_out():
    dataset = picture(PIXELS)
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.NumberOfFrames = 2_000_000_000
    assert taken(written(dataset, RLELossless)) == reading.DAMAGED


def test_a_bomb_of_deflated_dicom_is_left_out_before_it_is_unpacked():
    content = written(header(), DeflatedExplicitVRLittleEndian)
    start = 132 + 12 + struct.unpack_from("<L", content, 140)[0]
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = content[:start] + deflate.compress(bytes(64 << 20)) + deflate.flush()
    assert len(bomb) < 100_000
    tracemalloc.start()
    try:
        assert taken(bomb, IntakeConfig(max_file_mib=16)) == archive.TOO_LARGE
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_sequences_nested_without_end_are_left_out():
    start = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    content = written(header())
    assert taken(content + start * 20_000) == reading.DAMAGED
    deep = header()
    deep.update({element.tag: element for element in nested(header(), 90)})
    assert taken(written(deep)) == reading.NO_PICTURE


@pytest.mark.parametrize(
    "value", [b"\xff\xfe\x80M\xfcller", "Müller^Jürgen".encode("utf-16"), b"\x1b$)C\xff\xff", b"a\\" * 50]
)
@pytest.mark.parametrize("charset", ["ISO_IR 192", "ISO 2022 IR 149", "NONSENSE", "\\\\"])
def test_text_in_no_encoding_is_read_all_the_same(value, charset):
    dataset = picture(PIXELS)
    dataset.add(DataElement("SpecificCharacterSet", "CS", "ISO_IR 192"))
    content = written(dataset)
    for tag, vr, raw in ((b"\x08\x00\x05\x00", b"CS", charset.encode()), (b"\x10\x00\x10\x00", b"PN", value)):
        raw += b" " * (len(raw) % 2)
        element = tag + vr + struct.pack("<H", len(raw)) + raw
        content = _without(content, tag)
        place = content.index(b"\x08\x00\x16\x00") if vr == b"CS" else content.index(b"\x10\x00\x20\x00")
        content = content[:place] + element + content[place:]
    assert taken(content) == ""


def _without(content: bytes, tag: bytes) -> bytes:
    place = content.find(tag, 132)
    if place < 0:
        return content
    length = struct.unpack_from("<H", content, place + 6)[0]
    return content[:place] + content[place + 8 + length :]


@pytest.mark.parametrize(
    ("name", "vr", "value"),
    [
        ("ImageType", "US", 5),
        ("Modality", "FD", 1.5),
        ("BurnedInAnnotation", "UL", 7),
        ("WindowCenter", "LO", "forty"),
        ("RescaleSlope", "OB", b"\1\2"),
        ("StudyDate", "US", 3),
        ("StudyDescription", "SQ", Sequence([header()])),
        ("InstanceNumber", "LO", "seventeen"),
        ("PixelPaddingValue", "LT", "none"),
        ("PatientAge", "SQ", Sequence([])),
        ("AccessionNumber", "AT", 0x00100010),
        ("SharedFunctionalGroupsSequence", "LO", "shared"),
        ("VOILUTSequence", "LT", "none"),
        ("PatientName", "OW", b"\0\1"),
    ],
)
def test_a_value_of_the_wrong_kind_costs_at_most_the_file(name, vr, value):
    dataset = picture(PIXELS)
    dataset.add(DataElement(name, vr, value))
    assert taken(written(dataset)) in ("", reading.DAMAGED)


def test_one_value_that_cannot_be_read_does_not_cost_an_image():
    dataset = picture(PIXELS)
    dataset.SliceThickness = "2.5"
    content = written(dataset).replace(b"2.5 ", b"2,5 ")
    assert taken(content) == ""
    assert "SliceThickness" not in deidentify(parse(content, CONFIG), PSEUDONYMS, CONFIG, pixels_examined=False)


def test_the_index_of_an_export_and_masks_are_no_pictures():
    assert taken(Path(get_testdata_file("DICOMDIR")).read_bytes()) == reading.INDEX
    assert not has_pixels(picture(PIXELS, modality="SEG"))


def test_no_reason_quotes_what_the_file_says():
    dataset = picture(PIXELS, PatientName="Otterly^Quonk")
    dataset.Rows = 0
    with pytest.raises(UnusableSourceError) as error:
        parse(written(dataset), CONFIG)
    assert "otterly" not in str(error.value).casefold()
    assert error.value.__cause__ is None
