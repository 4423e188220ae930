import pytest

from client.intake.publish import chosen, description, labels
from tests.client.intake.test_store import picture


def series(name, count):
    return [picture(uid=f"{name}.{place}", series=name, place=place) for place in range(count)]


@pytest.mark.parametrize(
    ("count", "most", "places"),
    [(5, 0, [0, 1, 2, 3, 4]), (2, 3, [0, 1]), (9, 3, [1, 4, 7]), (10, 1, [5]), (300, 3, [50, 150, 250])],
)
def test_of_a_series_so_many_images_are_chosen_evenly(count, most, places):
    assert [found.place for found in chosen(iter(series("s", count)), most)] == places


def test_each_series_has_its_own_choice():
    found = list(chosen(iter([*series("a", 4), *series("b", 1), *series("c", 6)]), 1))
    assert [(kept.series, kept.place) for kept in found] == [("a", 2), ("b", 0), ("c", 3)]


def test_what_the_header_says_becomes_labels_and_where_asked_a_sentence():
    assert labels(picture()) == {"modality": "CT", "organ": "chest"}
    assert description(picture(view="AP")) == "CT, chest, AP"
    assert description(picture(modality="", organ="")) == ""
