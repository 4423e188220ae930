import numpy as np
import pytest
import torch
from PIL import Image

from mumc_model.errors import DataError
from mumc_model.explain import Explanation
from mumc_model.overlay import LEAST_SIDE, captioned, overlay, viewed, write_picture


def explanation(heat):
    return Explanation(method="relevance", answer="mass", heat_PP=heat, relevance_L=torch.ones(1), tokens=("[CLS]",))


@pytest.fixture
def grey(tmp_path):
    path = tmp_path / "grey.png"
    Image.fromarray(np.full((50, 100), 80, np.uint8)).save(path)
    return path


def test_where_there_is_no_heat_the_picture_is_the_image_and_where_there_is_it_is_brighter(grey):
    drawn = np.asarray(overlay(grey, explanation(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))))
    assert drawn.shape == (LEAST_SIDE // 2, LEAST_SIDE, 3)
    assert (drawn[-1, -1] == 80).all()
    assert drawn[0, 0].sum() > 1.5 * 240
    assert (np.asarray(overlay(grey, explanation(torch.zeros(2, 2)))) == 80).all()


def test_a_large_image_keeps_its_size(tmp_path):
    path = tmp_path / "large.png"
    Image.fromarray(np.zeros((600, 500, 3), np.uint8)).save(path)
    assert overlay(path, explanation(torch.ones(2, 2))).size == (500, 600)


def test_a_larger_one_is_drawn_over_at_the_side_that_is_asked_for(tmp_path):
    path = tmp_path / "large.png"
    Image.fromarray(np.zeros((1500, 3000), np.uint8)).save(path)
    assert overlay(path, explanation(torch.ones(2, 2)), most_side=600).size == viewed(path, 600).size == (600, 300)


def test_the_words_stand_below_the_picture_and_are_broken_to_its_width():
    black = Image.new("RGB", (200, 100))
    short, long = captioned(black, ["word"]), captioned(black, ["word " * 30])
    for page in (short, long):
        below = np.asarray(page)[100:]
        assert (np.asarray(page)[:100] == 0).all()
        assert (below[:, :9] == 255).all()
        assert (below < 128).any()
        assert (below[:, -3:] == 255).all()
    assert long.height > short.height + 60


def test_the_file_that_is_written_is_a_png_of_picture_and_label(grey, tmp_path):
    out = tmp_path / "out.png"
    write_picture(grey, "is there a mass", explanation(torch.ones(2, 2)), out)
    with Image.open(out) as written:
        assert written.format == "PNG"
        assert written.height > LEAST_SIDE // 2 + 3 * 16


def test_what_is_no_image_is_refused(tmp_path):
    path = tmp_path / "text.png"
    path.write_text("no image")
    with pytest.raises(DataError, match=r"text\.png cannot be used: image unreadable; give a PNG"):
        overlay(path, explanation(torch.ones(2, 2)))
