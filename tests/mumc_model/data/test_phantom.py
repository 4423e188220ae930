import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mumc_model.data.phantom import PhantomConfig, plan_hospitals, write_hospitals
from mumc_model.data.phantom_cases import CELLS, MODALITIES, pooled_shares
from mumc_model.data.records import read_site
from mumc_model.errors import ConfigError

TINY = PhantomConfig(
    hospitals=2, images=9, train_questions=13, val_questions=4, test_questions=8, image_size=32, images_per_patient=2
)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_hospitals(TINY, tmp_path_factory.mktemp("tiny"), seed=3)


def test_each_hospital_is_a_site_folder_that_reads_without_a_skipped_row(written: list[Path]) -> None:
    for number, folder in enumerate(written, start=1):
        site = read_site(folder)
        assert (site.name, site.unit, site.skipped) == (f"hospital-{number}", "patient", {})
        assert len(site.captions) == TINY.images * TINY.captions_per_image
        splits = [record.split for record in site.vqa]
        assert [splits.count(name) for name in ("train", "val", "test")] == [13, 4, 8]


def test_no_patient_and_no_image_is_in_two_splits_or_both_captioned_and_asked_about(written: list[Path]) -> None:
    for folder in written:
        site = read_site(folder)
        splits = defaultdict(set)
        images = defaultdict(set)
        for record in site.captions:
            splits[record.patient_id].add("captions")
            images[record.image].add("captions")
        for question in site.vqa:
            splits[question.patient_id].add(question.split)
            images[question.image].add(question.split)
        assert all(len(found) == 1 for found in (*splits.values(), *images.values()))


def test_patients_have_several_images(written: list[Path]) -> None:
    images = defaultdict(set)
    for record in read_site(written[0]).captions:
        images[record.patient_id].add(record.image)
    assert sorted(map(len, images.values())) == [1, 2, 2, 2, 2]


def test_every_abnormal_image_that_is_asked_about_has_a_mask_of_its_size(written: list[Path]) -> None:
    site = read_site(written[0])
    abnormal = {record.image for record in site.vqa if record.labels["finding"] != "none"}
    assert {path.name for path in (written[0] / "masks").iterdir()} == {image.name for image in abnormal}
    for image in abnormal:
        mask = np.asarray(Image.open(written[0] / "masks" / image.name))
        assert mask.shape == (32, 32)
        assert set(np.unique(mask)) == {0, 255}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_images(written: list[Path], tmp_path: Path) -> None:
    again = write_hospitals(TINY, tmp_path / "again", seed=3)
    other = write_hospitals(TINY, tmp_path / "other", seed=4)
    same = {name: data for name, data in contents(written[1]).items() if not name.startswith("state")}
    assert contents(again[1]) == same
    assert (other[1] / "images/h2-p0001-1.png").read_bytes() != same["images/h2-p0001-1.png"]


def test_hospitals_of_one_federation_share_no_image(written: list[Path]) -> None:
    one, other = ({p.read_bytes() for p in (folder / "images").iterdir()} for folder in written)
    assert not one & other


def test_alike_hospitals_have_one_plan_and_unlike_ones_differ_in_all_of_it() -> None:
    alike = plan_hospitals(PhantomConfig(unlike=0.0), 0)
    assert all(np.array_equal(hospital.archive_shares, pooled_shares()) for hospital in alike)
    assert len({(h.scanner, h.normal_share, h.style_weights) for h in alike}) == 1
    unlike = plan_hospitals(PhantomConfig(unlike=1.0), 0)
    for values in ([h.scanner for h in unlike], [h.normal_share for h in unlike], [h.style_weights for h in unlike]):
        assert len(set(values)) == len(unlike)


def test_captioned_images_follow_the_hospitals_plan(written: list[Path]) -> None:
    for folder, hospital in zip(written, plan_hospitals(TINY, 3), strict=True):
        images = {record.image: record.labels for record in read_site(folder).captions}
        for modality in MODALITIES:
            planned = sum(
                share for cell, share in zip(CELLS, hospital.archive_shares, strict=True) if cell[0] == modality
            )
            seen = sum(labels["modality"] == modality for labels in images.values())
            assert abs(seen - planned * TINY.images) <= 1


def test_uniform_questions_are_drawn_alike_everywhere_and_own_ones_as_the_archive() -> None:
    uniform = plan_hospitals(PhantomConfig(unlike=1.0, question_mix="uniform"), 0)
    own = plan_hospitals(PhantomConfig(unlike=1.0, question_mix="own"), 0)
    assert all(np.array_equal(hospital.asked_shares, pooled_shares()) for hospital in uniform)
    assert all(np.array_equal(hospital.asked_shares, hospital.archive_shares) for hospital in own)


@pytest.mark.parametrize("mix", ["uniform", "own"])
def test_a_modality_apart_is_all_that_the_last_hospital_sees_and_asks_about_and_nothing_of_the_others(
    mix: str, tmp_path: Path
) -> None:
    config = replace(TINY, hospitals=3, apart="mr", question_mix=mix)
    for folder in write_hospitals(config, tmp_path, 4):
        site = read_site(folder)
        seen = {record.labels["modality"] for record in (*site.captions, *site.vqa)}
        assert seen == ({"mr"} if folder.name == "hospital-3" else {"xray", "ct"})


def test_hospitals_beside_one_that_is_apart_share_out_the_rest_of_the_world_evenly() -> None:
    *beside, last = plan_hospitals(PhantomConfig(hospitals=4, apart="ct"), 1)
    rest = np.where([cell[0] == "ct" for cell in CELLS], 0, pooled_shares())
    mean = np.mean([hospital.archive_shares for hospital in beside], axis=0)
    np.testing.assert_allclose(mean, rest / rest.sum(), atol=0.01)
    assert last.archive_shares.sum() == pytest.approx(1)


@pytest.mark.parametrize("options", [{"apart": "mri"}, {"apart": "mr", "hospitals": 1}])
def test_what_cannot_be_apart_is_refused_with_the_choices(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="choose one of xray, ct, mr, and at least 2 hospitals"):
        PhantomConfig(**options)


def test_a_hospital_without_questions_is_written_with_captions_only(tmp_path: Path) -> None:
    config = PhantomConfig(
        hospitals=1, images=2, train_questions=0, val_questions=0, test_questions=0, image_size=16, captions_per_image=1
    )
    (folder,) = write_hospitals(config, tmp_path, seed=0)
    assert len((folder / "captions.jsonl").read_text().splitlines()) == 2
    assert (folder / "vqa.jsonl").read_text() == ""


def test_labels_name_the_facts_and_leave_out_what_a_normal_image_has_not(tmp_path: Path) -> None:
    config = PhantomConfig(
        hospitals=1, images=4, train_questions=0, val_questions=0, test_questions=0, normal_share=1.0
    )
    (folder,) = write_hospitals(config, tmp_path, seed=0)
    for line in (folder / "captions.jsonl").read_text().splitlines():
        labels = json.loads(line)["labels"]
        assert labels["finding"] == "none"
        assert set(labels) == {"modality", "organ", "finding"}


def test_progress_counts_hospitals(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_hospitals(TINY, tmp_path, seed=0, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"hospitals": 0},
        {"unlike": 1.5},
        {"images": -1},
        {"image_size": 8},
        {"question_mix": "other"},
        {"questions_per_image": 4},
        {"closed_share": -0.1},
    ],
)
def test_an_impossible_setting_is_refused_by_its_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"phantom.{next(iter(wrong))}"):
        PhantomConfig(**wrong)
