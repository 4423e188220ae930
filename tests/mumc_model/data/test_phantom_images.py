import itertools
import time

import numpy as np
import pytest

from mumc_model.data.phantom_anatomy import Patient
from mumc_model.data.phantom_cases import CELLS, PLACES, SEEN_IN, SIDES, SIZES, Case
from mumc_model.data.phantom_images import Scanner, draw_image

PLAIN = Patient(breadth=1.0, height=1.0, organ=1.0, lean=0.0)


def case_of(cell: tuple[str, str, str], side: str = "left", size: str = "large", place: str = "upper") -> Case:
    modality, organ, finding = cell
    return Case(modality=modality, organ=organ, finding=finding, side=side, size=size, place=place)


def draw(case: Case, seed: int = 0, scanner: Scanner | None = None, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    return draw_image(case, PLAIN, scanner or Scanner(), size, np.random.default_rng(seed))


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_the_patients_left_is_on_the_images_right_and_upper_is_above(cell: tuple[str, str, str]) -> None:
    for seed, (side, size, place) in enumerate(itertools.product(SIDES, SIZES, PLACES)):
        _, mask_HW = draw(case_of(cell, side, size, place), seed)
        row, column = (index.mean() for index in np.nonzero(mask_HW))
        assert (column > 31.5) == (side == "left")
        assert (row < 31.5 - 1) == (place == "upper")


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_every_large_finding_covers_more_than_every_small_one(cell: tuple[str, str, str]) -> None:
    areas = {size: [draw(case_of(cell, size=size), seed)[1].sum() for seed in range(8)] for size in SIZES}
    assert min(areas["large"]) > max(areas["small"]) > 8


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_a_finding_changes_the_image_where_its_mask_says(cell: tuple[str, str, str]) -> None:
    silent = Scanner(noise=0.0)
    image_HW, mask_HW = draw(case_of(cell), scanner=silent)
    faint_HW, _ = draw(case_of(cell), scanner=Scanner(noise=0.0, contrast=0.0))
    change_HW = np.abs(image_HW.astype(int) - faint_HW)
    assert change_HW[mask_HW].mean() > 20 > change_HW[~mask_HW].mean()


@pytest.mark.parametrize(("modality", "organ"), SEEN_IN)
def test_a_normal_image_has_a_body_and_an_empty_mask(modality: str, organ: str) -> None:
    image_HW, mask_HW = draw(Case(modality=modality, organ=organ))
    assert image_HW.dtype == np.uint8
    assert image_HW[20:44, 20:44].mean() > 25
    assert image_HW.std() > 20
    assert not mask_HW.any()


@pytest.mark.parametrize("size", [16, 33, 224])
def test_a_picture_of_any_size_shows_the_same_place(size: int) -> None:
    image_HW, mask_HW = draw(case_of(("ct", "head", "mass")), size=size)
    assert image_HW.shape == mask_HW.shape == (size, size)
    row, column = (index.mean() / size for index in np.nonzero(mask_HW))
    assert row < 0.5 < column


def test_noise_and_gamma_of_the_scanner_show_in_the_image() -> None:
    case = case_of(("ct", "abdomen", "cyst"))
    plain_HW = draw(case)[0].astype(float)
    assert draw(case, scanner=Scanner(gamma=2.0))[0].mean() < plain_HW.mean()
    noisy_HW = draw(case, scanner=Scanner(noise=4.0))[0]
    assert np.abs(np.diff(noisy_HW.astype(float), axis=0)).mean() > np.abs(np.diff(plain_HW, axis=0)).mean() + 3


def test_a_thousand_images_take_seconds() -> None:
    start = time.process_time()
    for seed in range(50):
        draw(case_of(CELLS[seed % len(CELLS)]), seed)
    assert time.process_time() - start < 0.5
