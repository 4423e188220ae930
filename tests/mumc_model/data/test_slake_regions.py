import json

import numpy as np
import pytest
from PIL import Image

from mumc_model.data.slake_regions import grey_values, named, read_regions
from mumc_model.errors import DataError


@pytest.fixture
def folder(tmp_path):
    """Two lungs, a liver with a cancer in it, and a nodule that has a box alone; one stray pixel of a lung's grey."""
    grey = np.zeros((20, 20), np.uint8)
    grey[0:5, 0:5], grey[0:5, 10:15], grey[10:20, 0:10], grey[12:14, 2:4], grey[19, 19] = 225, 215, 70, 175, 225
    Image.fromarray(grey).convert("RGBA").save(tmp_path / "mask.png")
    boxes = {
        "Right Lung": [0, 0, 5.0, 5],
        "Left Lung": [10, 0, 5, 5],
        "Liver": [0, 10, 10, 10],
        "Liver Cancer": [2, 12, 2, 2],
        "Nodule": [11, 1, 2, 3],
    }
    (tmp_path / "detection.json").write_text(json.dumps([{name: box} for name, box in boxes.items()]))
    (tmp_path / "mask.txt").write_text("70:Liver\n175:Liver Cancer\n215:Left Lung\n225:Right Lung")
    return tmp_path


@pytest.fixture
def regions(folder):
    return read_regions(folder, grey_values(folder / "mask.txt"))


@pytest.mark.parametrize(
    ("text", "pixels"),
    [
        ("Does the picture contain lungs?", 50),
        ("Is the left lung healthy?", 25),
        ("What is above the Right-Lung?", 25),
        ("Where is the liver?", 96),
        ("Is there liver cancer?", 4),
        ("Where is the nodule?", 6),
        ("Is the nodule in the left lung?", 25),
    ],
)
def test_a_question_is_about_the_regions_that_it_names(regions, text, pixels):
    assert named(regions, text).sum() == pixels


@pytest.mark.parametrize("text", ["What modality is this?", "Is there a deliverance?", ""])
def test_a_question_that_names_nothing_outlined_has_no_mask(regions, text):
    assert named(regions, text) is None


def test_files_that_are_something_else_are_refused(folder):
    (folder / "mask.txt").write_text("liver is 70")
    with pytest.raises(DataError, match=r"mask\.txt"):
        grey_values(folder / "mask.txt")
    (folder / "detection.json").write_text('{"Liver": 3}')
    with pytest.raises(DataError, match="detection"):
        read_regions(folder, {})
