"""`mumc-site ask --where`: a picture of where the model looked, labelled as that and not as where the lesion is."""

import re

import pytest
from PIL import Image

from mumc_model.answerer import Answerer
from mumc_model.config import FinetuneConfig
from mumc_model.model import MumcModel
from mumc_model.overlay import LABEL
from mumc_model.pretrained import load_tokenizer
from mumc_model.vqa import VqaModel

QUESTION = "is there a mass"


@pytest.fixture(scope="module")
def model(encoders, tmp_path_factory):
    """An answering model that has learned nothing."""
    folder = tmp_path_factory.mktemp("where") / "model"
    answering = VqaModel.of_encoders(MumcModel.from_pretrained(encoders), FinetuneConfig()).eval()
    Answerer(model=answering, tokenizer=load_tokenizer(encoders), texts=("yes", "no", "mass")).save(folder)
    return folder


def image_of(folder):
    return sorted((folder / "images").rglob("*.*"))[0]


@pytest.mark.parametrize("way", [[], ["--where-by", "attention"]])
def test_a_picture_is_written_for_the_answer_that_was_given(called, untouched, model, tmp_path, way):
    out = tmp_path / "where.png"
    code, shown, _ = called("ask", image_of(untouched), QUESTION, "--model", model, "--where", out, *way)
    assert code == 0
    assert f"{LABEL}: {out}" in shown
    answer = shown.splitlines()[0]
    assert f"for {answer!r}, by {way[-1] if way else 'relevance'}" in shown
    weights = dict(re.findall(r"(\w+) (\d+) %", shown.split("words:")[1]))
    assert list(weights) == QUESTION.split()
    with Image.open(out) as picture:
        assert (picture.format, picture.width) == ("PNG", 480)


def test_another_file_than_a_png_is_refused_before_anything_is_asked(called, untouched, model, tmp_path):
    code, shown, err = called("ask", image_of(untouched), QUESTION, "--model", model, "--where", tmp_path / "a.jpg")
    assert code == 2
    assert not shown
    assert "OUT.png" in err


def test_encoders_have_no_answer_to_be_explained(called, untouched, encoders, tmp_path):
    arguments = ["ask", image_of(untouched), QUESTION, "--model", encoders, "--answer", "yes", "--answer", "no"]
    code, _, err = called(*arguments, "--where", tmp_path / "a.png")
    assert code == 2
    assert "holds a MumcModel, not a VqaModel" in err
    assert "Traceback" not in err
