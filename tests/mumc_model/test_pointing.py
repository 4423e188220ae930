import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from mumc_model.pointing import coverage, lies_in, point, summarise


def mask(rows, columns, side=8):
    """A mask of side x side pixels that covers a rectangle; heat of 4 x 4 patches is two pixels a patch."""
    found = np.zeros((side, side), dtype=bool)
    found[slice(*rows), slice(*columns)] = True
    return found


def heat(*values):
    """Heat on 4 x 4 patches from {(row, column): value} pairs."""
    grid = np.zeros((4, 4))
    for place, value in values:
        grid[place] = value
    return grid


def test_a_game_won_by_hand():
    """The mask is the upper left four patches of sixteen; 3 of 4 parts of the heat lie in them."""
    found = point(heat(((0, 1), 3.0), ((3, 3), 1.0)), mask((0, 4), (0, 4)))
    assert found.hit == 1
    assert found.random == found.area == 0.25
    assert found.energy == 0.75
    assert found.centre == 0.25


def test_a_game_lost_by_hand():
    found = point(heat(((0, 1), 1.0), ((3, 3), 3.0)), mask((0, 4), (0, 4)))
    assert (found.hit, found.energy) == (0, 0.25)


def test_patches_that_are_equally_hot_share_the_hit():
    assert point(heat(((0, 0), 2.0), ((3, 3), 2.0)), mask((0, 4), (0, 4))).hit == 0.5


def test_heat_that_is_nowhere_hits_nothing():
    found = point(heat(), mask((0, 8), (0, 8)))
    assert (found.hit, found.energy, found.random) == (0, 0, 1)


def test_the_centre_of_an_odd_number_of_patches_is_one_patch():
    middle = np.zeros((9, 9), dtype=bool)
    middle[3:6, 3:6] = True
    assert point(np.eye(3), middle).centre == 1
    assert point(np.eye(3), ~middle).centre == 0


@pytest.mark.parametrize(
    ("rows", "columns", "inside"),
    [
        ((0, 1), (0, 1), 1),  # one pixel: a quarter of one patch, and all of it there
        ((1, 3), (1, 3), 4),  # a patch's size, shared by four: a quarter in each
        ((0, 2), (0, 3), 2),  # one patch, and half of the next
        ((0, 8), (0, 8), 16),
    ],
)
def test_a_patch_lies_in_a_mask_when_a_quarter_of_the_smaller_one_is_shared(rows, columns, inside):
    assert lies_in(coverage(mask(rows, columns), 4)).sum() == inside


def test_a_mask_that_covers_little_of_each_patch_lies_where_it_covers_most():
    covered = np.full((4, 4), 0.1)
    covered[2, 1] = 0.2
    assert np.argwhere(lies_in(covered)).tolist() == [[2, 1]]


def test_a_mask_is_squeezed_to_a_square_as_its_image_is():
    wide = np.zeros((10, 30), dtype=bool)
    wide[:, 15:] = True
    np.testing.assert_allclose(coverage(wide, 2), [[0, 1], [0, 1]])


def test_an_empty_mask_is_no_game():
    with pytest.raises(ValueError, match="empty"):
        point(heat(((0, 0), 1.0)), np.zeros((8, 8), dtype=bool))


@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(st.integers(0, 10_000), st.integers(1, 5))
def test_even_heat_is_what_luck_is(seed, side):
    drawn = np.random.default_rng(seed).random((13, 13)) < 0.3
    hypothesis.assume(drawn.any())
    found = point(np.ones((side, side)), drawn)
    assert found.hit == pytest.approx(found.random)
    assert found.energy == pytest.approx(found.area)
    assert found.area == pytest.approx(drawn.mean())
    assert 0 < found.random <= 1


def test_a_summary_counts_hits_beyond_luck_and_resamples_images():
    box = mask((0, 4), (0, 4))
    won, lost = point(heat(((0, 0), 1.0)), box), point(heat(((3, 3), 1.0)), box)
    found = summarise([won, won, won, lost], ["a", "a", "b", "c"], np.random.default_rng(0))
    assert found.questions == 4
    assert found.hit.mean == 0.75
    assert found.above_random.mean == found.above_centre.mean == 0.5
    assert found.hit.low < 0.75 < found.hit.high
    together = summarise([won, won, won, lost], ["a", "a", "a", "a"], np.random.default_rng(0))
    assert together.hit.low == together.hit.high == 0.75
