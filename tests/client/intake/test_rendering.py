"""Rendering against closed forms of PS3.3 C.11, and against pydicom's own functions on pydicom's own files."""

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import MPEG2MPML, JPEG2000Lossless, RLELossless

from client.intake.config import WINDOWS, IntakeConfig
from client.intake.decoding import NO_DECODER, samples_of
from client.intake.errors import UnusableSourceError
from client.intake.reading import IMPOSSIBLE, parse
from client.intake.rendering import FLAT, MULTI_FRAME, frames_of, render
from tests.client.intake.made import item, picture, written

CONFIG = IntakeConfig()
RAMP_HW = np.arange(-1024, 3072, dtype=np.int16).reshape(64, 64)


def only(dataset, config=CONFIG):
    ((_, pixels),) = render(parse(written(dataset, dataset.file_meta.TransferSyntaxUID), config), config)
    return pixels


def linear(value, centre, width):
    """PS3.3 C.11.2.1.2.1, with 0 and 255 as the ends."""
    return np.rint(np.clip(((value - (centre - 0.5)) / (width - 1) + 0.5) * 255, 0, 255))


@pytest.mark.parametrize(("centre", "width"), [(40, 400), (-600, 1500), (300, 1000), (0, 2)])
def test_a_linear_window_is_the_formula_of_the_standard(centre, width):
    shown = only(picture(RAMP_HW, WindowCenter=centre, WindowWidth=width))
    assert np.array_equal(shown, linear(RAMP_HW.astype(float), centre, width))


@pytest.mark.parametrize("name", WINDOWS)
def test_a_named_window_is_in_hounsfield_units_whatever_the_image_itself_asks_for(name):
    stored = (RAMP_HW + 1024).astype(np.uint16)
    dataset = picture(stored, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=1, WindowWidth=2)
    shown = only(dataset, IntakeConfig(window=name))
    assert np.array_equal(shown, linear(RAMP_HW.astype(float), *WINDOWS[name]))


def test_a_named_window_is_for_ct_alone():
    dataset = picture(RAMP_HW, modality="MR", WindowCenter=100, WindowWidth=300)
    assert np.array_equal(only(dataset, IntakeConfig(window="lung")), linear(RAMP_HW.astype(float), 100, 300))


def test_the_first_of_several_windows_counts():
    shown = only(picture(RAMP_HW, WindowCenter=[40, -600], WindowWidth=[400, 1500]))
    assert np.array_equal(shown, linear(RAMP_HW.astype(float), 40, 400))


def test_an_exact_linear_window_is_the_formula_of_the_standard():
    shown = only(picture(RAMP_HW, WindowCenter=0.3, WindowWidth=1001, VOILUTFunction="LINEAR_EXACT"))
    assert np.array_equal(shown, np.rint(np.clip(((RAMP_HW - 0.3) / 1001 + 0.5) * 255, 0, 255)))


def test_a_sigmoid_window_is_the_formula_of_the_standard():
    shown = only(picture(RAMP_HW, WindowCenter=0.3, WindowWidth=1001, VOILUTFunction="SIGMOID"))
    assert np.array_equal(shown, np.rint(255 / (1 + np.exp(-4 * (RAMP_HW - 0.3) / 1001))))


def test_monochrome1_is_the_exact_inverse_of_monochrome2():
    facts = {"WindowCenter": 300, "WindowWidth": 1234}
    assert np.array_equal(
        only(picture(RAMP_HW, photometric="MONOCHROME1", **facts)), 255 - only(picture(RAMP_HW, **facts))
    )


def test_without_a_window_the_darkest_is_black_and_the_brightest_white():
    stored = np.array([[100, 200], [301, 500]], dtype=np.uint16)
    assert only(picture(stored)).tolist() == [[0, 64], [128, 255]]


@pytest.mark.parametrize("width", [0, None, "", -5])
def test_a_window_that_shows_nothing_is_no_window(width):
    stored = np.array([[100, 200], [301, 500]], dtype=np.uint16)
    assert only(picture(stored, WindowCenter=300, WindowWidth=width)).tolist() == [[0, 64], [128, 255]]


def test_a_rescaling_that_turns_the_values_round_is_followed():
    stored = np.array([[0, 100], [200, 300]], dtype=np.uint16)
    facts = {"RescaleSlope": -1, "RescaleIntercept": 300, "WindowCenter": 150.5, "WindowWidth": 301}
    assert np.array_equal(only(picture(stored, **facts)), linear(300.0 - stored, 150.5, 301))


def test_a_lut_of_values_of_interest_is_looked_up():
    lut = item(LUTDescriptor=[4, 0, 8], LUTData=[0, 10, 200, 255])
    lut["LUTData"].VR = "US"
    stored = np.array([[0, 1], [2, 9]], dtype=np.uint8)
    assert only(picture(stored, VOILUTSequence=Sequence([lut]))).tolist() == [[0, 10], [200, 255]]


def test_a_modality_lut_comes_before_the_window():
    lut = item(LUTDescriptor=[3, 0, 16], LUTData=[1000, 2000, 3000], ModalityLUTType="US")
    lut["LUTData"].VR = "US"
    stored = np.array([[0, 1], [2, 2]], dtype=np.uint8)
    shown = only(picture(stored, ModalityLUTSequence=Sequence([lut]), WindowCenter=2000, WindowWidth=2001))
    assert np.array_equal(shown, linear(np.array([[1000.0, 2000], [3000, 3000]]), 2000, 2001))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_stretch_the_greys(photometric):
    stored = np.array([[-2000, 0], [51, 100]], dtype=np.int16)
    dataset = picture(stored, photometric=photometric)
    dataset.add_new("PixelPaddingValue", "SS", -2000)
    shown = only(dataset)
    greys = [0, 130, 255] if photometric == "MONOCHROME2" else [255, 125, 0]
    assert shown.ravel().tolist() == [0, *greys]


def test_padding_of_signed_pixels_that_is_written_as_unsigned_is_padding():
    stored = np.array([[-2000, 0], [51, 100]], dtype=np.int16)
    dataset = picture(stored)
    dataset.add_new("PixelPaddingValue", "US", 65536 - 2000)
    assert only(dataset).tolist() == [[0, 0], [130, 255]]


def test_a_range_of_padding_is_black():
    stored = np.array([[1, 2], [50, 100]], dtype=np.uint16)
    dataset = picture(stored)
    dataset.add_new("PixelPaddingValue", "US", 1)
    dataset.add_new("PixelPaddingRangeLimit", "US", 2)
    assert only(dataset).tolist() == [[0, 0], [0, 255]]


def test_an_image_of_one_grey_is_left_out():
    with pytest.raises(UnusableSourceError, match=FLAT):
        only(picture(np.full((8, 8), 7, np.uint16)))


@pytest.mark.parametrize("bits", [8, 16])
def test_colour_stays_colour(bits):
    stored = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5
    wide = stored if bits == 8 else stored.astype(np.uint16) * 257
    assert np.array_equal(only(picture(wide, photometric="RGB")), stored)


def test_colour_by_plane_is_colour_by_pixel():
    stored = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    dataset = picture(stored, photometric="RGB", PlanarConfiguration=1)
    dataset.PixelData = np.moveaxis(stored, -1, 0).tobytes()
    assert np.array_equal(only(dataset), stored)


def test_luminance_and_chrominance_become_red_green_and_blue():
    stored = np.full((2, 2, 3), 128, np.uint8)
    stored[..., 0] = [[0, 90], [180, 255]]
    shown = only(picture(stored, photometric="YBR_FULL"))
    assert np.array_equal(shown, np.repeat(stored[..., :1], 3, axis=-1))


def test_a_palette_is_looked_up():
    dataset = picture(np.array([[0, 1], [2, 3]], np.uint8), photometric="PALETTE COLOR")
    for number, colour in enumerate(("Red", "Green", "Blue")):
        data = np.array([0, 1, 2, 255], dtype=np.uint16) * (number + 1) % 256 * 257
        dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [4, 0, 16])
        dataset.add_new(f"{colour}PaletteColorLookupTableData", "OW", data.astype("<u2").tobytes())
    assert only(dataset).tolist() == [[[0, 0, 0], [1, 2, 3]], [[2, 4, 6], [255, 254, 253]]]


def test_each_frame_of_an_enhanced_image_has_its_own_window_and_rescaling():
    stored = np.stack([RAMP_HW, RAMP_HW])
    own = [
        item(
            FrameVOILUTSequence=Sequence([item(WindowCenter=centre, WindowWidth=500)]),
            PixelValueTransformationSequence=Sequence([item(RescaleSlope=slope, RescaleIntercept=10)]),
        )
        for centre, slope in ((0, 1), (400, 2))
    ]
    dataset = picture(stored, frames=2, modality="MR", PerFrameFunctionalGroupsSequence=Sequence(own))
    config = IntakeConfig(frames="all")
    shown = dict(render(parse(written(dataset), config), config))
    assert np.array_equal(shown[0], linear(RAMP_HW + 10.0, 0, 500))
    assert np.array_equal(shown[1], linear(RAMP_HW * 2 + 10.0, 400, 500))


def test_a_frame_without_facts_of_its_own_takes_those_that_all_share():
    shared = item(FrameVOILUTSequence=Sequence([item(WindowCenter=0, WindowWidth=500)]))
    dataset = picture(np.stack([RAMP_HW] * 2), frames=2, SharedFunctionalGroupsSequence=Sequence([shared]))
    assert np.array_equal(only(dataset), linear(RAMP_HW.astype(float), 0, 500))


@pytest.mark.parametrize(("rule", "numbers"), [("first", (0,)), ("middle", (2,)), ("all", (0, 1, 2, 3, 4))])
def test_the_configuration_says_which_frames_are_taken(rule, numbers):
    assert frames_of(5, IntakeConfig(frames=rule)) == numbers


def test_multi_frame_images_can_be_left_out_and_single_ones_stay():
    with pytest.raises(UnusableSourceError, match=MULTI_FRAME):
        frames_of(2, IntakeConfig(frames="none"))
    assert frames_of(1, IntakeConfig(frames="none")) == (0,)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless], ids=["rle", "jpeg2000"])
def test_what_is_compressed_without_loss_is_rendered_alike(syntax):
    facts = {"WindowCenter": 300, "WindowWidth": 1000, "modality": "MR"}
    stored = RAMP_HW.astype(np.uint16)
    dataset = picture(stored, **facts)
    dataset.compress(syntax, generate_instance_uid=False)
    assert np.array_equal(only(dataset), only(picture(stored, **facts)))


def test_a_compressed_frame_that_is_larger_than_its_header_says_is_not_decoded():
    dataset = picture(np.arange(256 * 256, dtype=np.uint16).reshape(256, 256))
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    dataset.Rows = dataset.Columns = 16
    with pytest.raises(UnusableSourceError, match=IMPOSSIBLE):
        only(dataset)


def test_video_is_left_out_for_what_it_is():
    dataset = picture(np.zeros((8, 8), np.uint8))
    dataset.PixelData = encapsulate([b"\0\0\1\xb3"])
    dataset.file_meta.TransferSyntaxUID = MPEG2MPML
    with pytest.raises(UnusableSourceError, match="video"):
        only(dataset)
    assert "video" in NO_DECODER


SAMPLES = [
    *("CT_small", "MR_small", "MR_small_RLE", "MR_small_bigendian", "MR_small_expb", "MR_small_implicit"),
    *("MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "JPEG2000", "JPGExtended", "693_J2KI", "image_dfl"),
]


@pytest.mark.parametrize("name", SAMPLES)
def test_grey_samples_of_pydicom_keep_the_order_that_pydicoms_own_functions_give_them(name):
    path = pydicom.data.get_testdata_file(f"{name}.dcm")
    theirs = pydicom.dcmread(path)
    value = apply_voi_lut(apply_modality_lut(theirs.pixel_array, theirs), theirs).astype(float)
    if theirs.PhotometricInterpretation == "MONOCHROME1":
        value = -value
    with open(path, "rb") as file:
        ((_, shown),) = render(parse(file.read(), CONFIG), CONFIG)
    assert (np.diff(shown.ravel()[np.argsort(value, axis=None, kind="stable")].astype(int)) >= 0).all()
    assert shown.max() > shown.min()


@pytest.mark.parametrize("name", ["SC_rgb_jpeg_dcmtk", "SC_rgb_rle", "SC_rgb_dcmtk_+eb+cy+np", "examples_rgb_color"])
def test_colour_samples_of_pydicom_look_as_pydicom_shows_them(name):
    path = pydicom.data.get_testdata_file(f"{name}.dcm")
    with open(path, "rb") as file:
        ((_, shown),) = render(parse(file.read(), CONFIG), CONFIG)
    # pydicom takes another decoder, which rounds colours of lossy JPEG in its own way.
    assert np.abs(shown.astype(int) - pydicom.pixels.pixel_array(path)).max() <= 3


@settings(deadline=None)
@given(st.binary(max_size=64), st.sampled_from([b"", b"\xff\xd8", b"\xff\x4f\xff\x51"]))
def test_no_bytes_make_the_measuring_of_a_stream_fail(content, start):
    assert samples_of(start + content) is None or isinstance(samples_of(start + content), int)


@settings(deadline=None, max_examples=50)
@given(
    centre=st.floats(-2000, 2000),
    width=st.floats(1.5, 5000),
    slope=st.floats(0.01, 10),
    intercept=st.floats(-2000, 2000),
)
def test_a_brighter_value_is_never_shown_darker(centre, width, slope, intercept):
    dataset = picture(RAMP_HW, WindowCenter=round(centre, 3), WindowWidth=round(width, 3))
    dataset.RescaleSlope, dataset.RescaleIntercept = round(slope, 3), round(intercept, 3)
    assert (np.diff(only(dataset).ravel().astype(int)) >= 0).all()
