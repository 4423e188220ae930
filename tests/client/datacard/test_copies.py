"""Copies counted over hashes and digests that are written down here."""

from client.datacard.copies import exact_copies, images_of, near_copies, near_those
from client.datacard.facts import Cell

NONE = Cell(count=0, units=0)


def test_a_chain_of_near_hashes_is_no_family_only_neighbours_count():
    images = images_of(["a", "b", "c"], {"a": 1, "b": 2, "c": 4}, {"a": {"p"}, "b": {"p"}, "c": {"q"}}, True)
    found = near_copies(images, [0, 0b1111, 0b11111111])
    assert found.images == Cell(count=3, units=2)
    assert found.across_patients == Cell(count=2, units=2)
    assert {pair: cell.count for pair, cell in found.across_splits.items()} == {
        "val in train": 1,
        "test in train": 0,
        "test in val": 1,
    }


def test_an_image_that_serves_two_splits_or_two_patients_is_counted_though_it_has_no_copy():
    images = images_of(["a"], {"a": 1 | 4}, {"a": {"p", "q"}}, True)
    found = exact_copies(images, ["x"])
    assert (found.images, found.across_patients) == (NONE, Cell(count=1, units=1))
    assert found.across_splits["test in train"] == Cell(count=1, units=1)


def test_no_image_has_no_copy():
    found = exact_copies(images_of([], {}, {}, True), [])
    assert found.images == NONE
    assert near_copies(images_of([], {}, {}, True), []).images == NONE
    assert near_those([], [1], [1]).tolist() == []


def test_the_marks_of_near_others_are_joined():
    assert near_those([0, 0b1111, 2**64 - 1], [0b1, 0b11, 2**20 - 1], [1, 4, 2]).tolist() == [5, 5, 0]
