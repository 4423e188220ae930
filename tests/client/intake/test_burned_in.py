"""Text in pixels: what the header says of it, what reading finds, and what is painted over or waits for a person."""

import numpy as np
import pytest

from client.intake import burned_in
from client.intake.burned_in import FOUND, MUCH, RULE, SAID, SECONDARY, UNDECIDED, Hint, examine, hint
from client.intake.config import DeviceRule, IntakeConfig
from client.intake.reader import Found
from tests.client.intake.made import header, labelled

CONFIG = IntakeConfig()
NOTHING = Hint(reason="")
SHADE_HW = np.tile(np.linspace(0, 120, 256, dtype=np.uint8), (256, 1))
"""No text, and something to see."""
RESOURCE = "1.2.840.10008.5.1.4.1.1.7"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({}, ""),
        ({"BurnedInAnnotation": "YES"}, SAID),
        ({"BurnedInAnnotation": "NO"}, ""),
        ({"SOPClassUID": RESOURCE}, SECONDARY),
        ({"SOPClassUID": f"{RESOURCE}.4"}, SECONDARY),
        ({"ConversionType": "WSD"}, SECONDARY),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, SECONDARY),
        ({"modality": "US"}, "its modality is US"),
        ({"modality": ""}, "its modality is not named"),
    ],
)
def test_the_header_tells_what_to_expect(facts, reason):
    assert hint(header(**facts), CONFIG).reason == reason


def test_a_trusted_device_does_not_wait_and_one_in_quarantine_does():
    device = header(modality="US", Manufacturer="ACME Imaging", ManufacturerModelName="Sono 5")
    trusted = IntakeConfig(devices=(DeviceRule(manufacturer="acme", model="sono", trusted=True),))
    assert hint(device, trusted).reason == ""
    doubted = IntakeConfig(devices=(DeviceRule(modality="CT", quarantine=True),))
    assert hint(header(), doubted).reason == RULE
    assert hint(header(modality="MR"), doubted).reason == ""


def test_a_rule_for_a_device_paints_its_part_over(monkeypatch):
    monkeypatch.setattr(burned_in, "read", lambda _: [])
    config = IntakeConfig(devices=(DeviceRule(modality="CT", blank=((0, 0, 1, 0.25), (0.5, 0.5, 1, 1)), trusted=True),))
    expected = hint(header(), config)
    assert expected.blank == ((0, 0, 1, 0.25), (0.5, 0.5, 1, 1))
    white_HW = np.full((80, 40), 200, np.uint8)
    shown = examine(white_HW, expected, config).pixels
    assert (shown[:20] == 0).all()
    assert (shown[40:, 20:] == 0).all()
    assert (shown[20:40] == 200).all()
    assert (white_HW == 200).all()


def test_an_image_that_waits_is_not_read_for_nothing(monkeypatch):
    monkeypatch.setattr(burned_in, "read", lambda _: pytest.fail("read"))
    assert examine(SHADE_HW, Hint(reason=SAID), CONFIG).verdict == "waiting"


def test_an_image_without_text_is_clean_and_unchanged():
    found = examine(SHADE_HW, NOTHING, CONFIG)
    assert found.verdict == "clean"
    assert np.array_equal(found.pixels, SHADE_HW)


@pytest.mark.parametrize(("place", "turned"), [((1, 1), False), ((0.5, 1), True)], ids=["corner", "turned"])
def test_a_name_is_painted_over_wherever_it_stands(place, turned):
    pixels = labelled(SHADE_HW, "MUELLER^ANNA 31.08.1947", place=place, size=16, grey=255, turned=turned)
    found = examine(pixels, NOTHING, CONFIG)
    assert found.verdict == "redacted"
    assert (found.pixels[pixels == 255] == 0).all()
    assert (found.pixels != pixels).mean() < 0.2


def test_colour_is_read_and_painted_as_well():
    grey = labelled(SHADE_HW, "MRN-83749261", place=(1, 1), size=20, grey=255)
    found = examine(np.stack([grey, grey // 2, grey], axis=-1), NOTHING, CONFIG)
    assert found.verdict == "redacted"
    assert (found.pixels[grey == 255] == 0).all()


def test_found_text_waits_where_the_site_wants_to_see_it():
    pixels = labelled(SHADE_HW, "MRN-83749261", place=(0, 0), size=20, grey=255)
    found = examine(pixels, NOTHING, IntakeConfig(burned_in="quarantine"))
    assert (found.verdict, found.reason) == ("waiting", FOUND)


@pytest.mark.parametrize(
    ("texts", "verdict", "reason"),
    [
        ([Found((0, 0, 60, 10), "Muel?er", 0.3)], "waiting", UNDECIDED),
        ([Found((0, 0, 200, 200), "Mueller Anna", 0.99)], "waiting", MUCH),
        ([Found((0, 0, 20, 18), "R", 0.99), Found((9, 9, 40, 20), "PA", 0.9)], "clean", ""),
        ([Found((0, 0, 256, 250), "0", 0.97)], "clean", ""),
        ([Found((0, 0, 90, 10), "0", 0.9)], "waiting", burned_in.LEFT),
    ],
    ids=["doubtful", "much", "markers", "a skull reads as nought", "a long box with one letter"],
)
def test_what_was_read_decides(monkeypatch, texts, verdict, reason):
    monkeypatch.setattr(burned_in, "read", lambda _: texts)
    found = examine(SHADE_HW, NOTHING, CONFIG)
    assert (found.verdict, found.reason) == (verdict, reason)
