import os
from collections import Counter
from pathlib import Path

import pytest

from mumc_model.data.importers import IMPORTERS
from mumc_model.data.records import read_site

DATA = Path(os.environ.get("MED_VQA_DATA", Path(__file__).parents[4] / "shared" / "data"))


def needs(name):
    return pytest.mark.skipif(not (DATA / name).is_dir(), reason=f"the data set {name} is not here (MED_VQA_DATA)")


def load(tmp_path, name, **options):
    summary = IMPORTERS[name](DATA / name, tmp_path / "site", max_side=32, **options)
    return summary, read_site(tmp_path / "site")


def images_by_split(data):
    found = {"train": set(), "val": set(), "test": set()}
    for record in data.vqa:
        found[record.split].add(data.key(record))
    return found


@needs("vqa_rad")
def test_vqa_rad_is_imported_whole_with_the_split_of_the_literature(tmp_path):
    summary, data = load(tmp_path, "vqa_rad")
    assert (summary.images, summary.captions, summary.questions, summary.left_out) == (314, 0, 3515, {})
    assert Counter(record.split for record in data.vqa)["test"] == 451
    assert Counter(record.answer_type for record in data.vqa if record.split == "test") == {"CLOSED": 272, "OPEN": 179}
    images = images_by_split(data)
    assert len(images["test"]) == 203
    assert not images["train"] & images["val"]
    assert 0.06 < len(images["val"]) / 314 < 0.14
    assert len({record.question_type for record in data.vqa}) == 11
    assert (data.unit, data.skipped) == ("image", {})


@needs("vqa_rad")
def test_vqa_rad_can_be_split_so_that_no_image_is_shared(tmp_path):
    _, data = load(tmp_path, "vqa_rad", split="image_disjoint")
    images = images_by_split(data)
    assert sum(map(len, images.values())) == 314
    assert 0.1 < len(images["test"]) / 314 < 0.25


@needs("slake")
@pytest.mark.parametrize(("language", "questions"), [("en", 7032), ("both", 14027)])
def test_slake_is_imported_with_image_disjoint_splits_in_one_language_or_both(tmp_path, language, questions):
    summary, data = load(tmp_path, "slake", language=language)
    assert (summary.images, summary.questions, summary.left_out["empty answer"]) == (642, questions, 1)
    assert [len(images) for images in images_by_split(data).values()] == [450, 96, 96]
    assert sum(map(len, images_by_split(data).values())) == 642
    assert {record.labels["modality"] for record in data.vqa} == {"ct", "mri", "x-ray"}
    assert {record.labels["organ"] for record in data.vqa} == {"chest", "abdomen", "head", "neck", "pelvis"}


@needs("vqa_med_2019")
def test_vqa_med_2019_is_imported_with_captions_of_train_and_without_the_images_of_vqa_rad(tmp_path):
    summary, data = load(tmp_path, "vqa_med_2019")
    assert (summary.images, summary.captions, summary.questions) == (4162, 3160, 15140)
    assert summary.left_out == {"image excluded": 152, "caption of an image without all four answers": 8}
    assert Counter(record.split for record in data.vqa) == {"train": 12664, "val": 1976, "test": 500}
    captioned = {data.key(record) for record in data.captions}
    images = images_by_split(data)
    assert not captioned & (images["val"] | images["test"])
    if (DATA / "vqa_rad").is_dir():
        rad = {path.stem for path in (DATA / "vqa_rad/images").iterdir()}
        assert not rad & {Path(key).stem for key in images["train"] | images["val"]}
