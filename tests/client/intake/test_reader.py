"""The reader: where it finds text, and that it is fast in its own thread without changing how others compute."""

import numpy as np
import pytest

from client.intake import reader
from client.intake.reader import read
from tests.client.intake.made import labelled

NAME = "83749261"


class Nothing:
    boxes = None


TINY = np.full(8, 1e-30, np.float32)


def shrunk() -> float:
    """A product that only a denormal number can hold."""
    return float((TINY * np.float32(1e-10)).max())


def test_numbers_too_small_for_a_normal_float_are_nought_where_text_is_read_and_nowhere_else():
    assert reader._thread().submit(shrunk).result() == 0
    assert shrunk() > 0


def test_an_image_of_one_value_is_not_looked_at(monkeypatch):
    monkeypatch.setattr(reader, "_engine", lambda: pytest.fail("read"))
    assert read(np.full((70, 50, 3), 9, np.uint8)) == []


@pytest.mark.parametrize("shape", [(640, 640), (33, 640), (700, 1)])
def test_the_detector_gets_sides_that_it_scales_no_more_and_the_image_unchanged_within(shape):
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    framed = reader._framed(image)
    assert not any(side % 32 for side in framed.shape[:2])
    assert np.array_equal(framed[40 : 40 + shape[0], 40 : 40 + shape[1]], image)


def test_boxes_are_in_the_pixels_of_the_image_whatever_its_size():
    small = labelled(np.zeros((90, 200), np.uint8), NAME, place=(0.5, 0.5), size=24, grey=255)
    large = np.kron(small, np.ones((3, 3), np.uint8))
    for pixels in (small, large):
        (found,) = read(pixels)
        assert found.text == NAME
        rows, columns = np.nonzero(pixels)
        left, top, right, bottom = found.box
        edges = columns.min() - left, right - columns.max(), rows.min() - top, bottom - rows.max()
        assert max(map(abs, edges)) < 0.3 * (bottom - top)


@pytest.mark.parametrize("colours", [False, True])
def test_a_border_of_one_value_is_not_read_and_boxes_are_in_the_pixels_of_the_whole_image(monkeypatch, colours):
    shown = []
    monkeypatch.setattr(reader, "_engine", lambda: lambda image: shown.append(image.shape) or Nothing())
    pixels = np.full((640, 640), 7, np.uint8)
    pixels[300:320, 100:200] = 90
    read(np.stack([pixels, pixels, pixels // 7], axis=-1) if colours else pixels)
    assert shown == [(288, 352, 3)]  # 20 rows and 100 columns, the border that stays, the rim, up to multiples of 32
    assert reader._filled(pixels, 80) == (20, 220, 280, 400)


def test_text_in_a_corner_is_found():
    pixels = labelled(np.full((256, 256), 40, np.uint8), NAME, place=(1, 1), size=16, grey=255)
    assert [found.text for found in read(pixels)] == [NAME]
