import dataclasses

import pytest

from client.intake.config import IntakeConfig
from client.intake.outcome import Outcome, Picture, Text
from client.intake.store import FILE, Store
from mumc_model.errors import DataError

PICTURE = Picture(
    uid="2.25.1",
    frame=0,
    patient="p-1",
    study="2.25.10",
    series="2.25.100",
    place=1,
    accession="acc",
    modality="CT",
    organ="chest",
    view="",
    verdict="clean",
    file="images/dicom/1-0.png",
)
TEXT = Text(uid="2.25.7", patient="p-1", study="2.25.10", accession="acc", text="no mass", verdict="redacted")


def picture(**changes):
    return dataclasses.replace(PICTURE, **changes)


def outcome(source="a", stamp="1", **more):
    return Outcome(source=source, stamp=stamp, **more)


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path) as found:
        yield found


def test_what_was_added_comes_back_as_it_was(store):
    assert store.add(outcome(pictures=(PICTURE,), texts=(TEXT,), words={"p-1": (b"x",)}), 1) == ()
    assert list(store.pictures()) == [PICTURE]
    assert list(store.texts()) == [TEXT]
    assert store.words_of("p-1") == {b"x"}
    assert store.words_of("p-2") == frozenset()


def test_it_outlives_its_process_and_is_its_owners_alone(tmp_path):
    with Store(tmp_path) as store:
        store.add(outcome(pictures=(PICTURE,)), 1)
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    with Store(tmp_path) as store:
        assert list(store.pictures()) == [PICTURE]
        assert store.begin(IntakeConfig(window="lung")) == 2
        assert store.config().window == "lung"


def test_a_file_is_known_while_it_does_not_change(store):
    store.add(outcome(), 1)
    assert store.is_known("a", "1", 2)
    assert not store.is_known("a", "2", 2)
    assert not store.is_known("b", "1", 2)


def test_a_file_that_was_left_out_for_a_reason_that_may_pass_is_tried_again(store):
    store.add(outcome(left="later"), 1)
    assert store.is_known("a", "1", 2)
    assert not store.is_known("a", "1", 2, again="later")
    assert store.is_known("a", "1", 2, again="another reason")


def test_the_same_image_from_two_files_counts_once_and_the_second_comes_back(store):
    assert store.add(outcome("a", pictures=(PICTURE,)), 1) == ()
    again = picture(file="elsewhere.png")
    assert store.add(outcome("b", pictures=(again,)), 1) == (again,)
    assert list(store.pictures()) == [PICTURE]


def test_files_that_left_the_export_are_forgotten_with_their_images(store):
    store.add(outcome("a", pictures=(PICTURE,), texts=(TEXT,)), 1)
    store.add(outcome("b", pictures=(picture(uid="2.25.2", file="kept.png"),)), 2)
    assert store.drop_unseen(2) == [PICTURE.file]
    assert [found.uid for found in store.pictures()] == ["2.25.2"]
    assert list(store.texts()) == []


def test_pictures_come_series_by_series_in_their_order(store):
    places = [("s2", 5), ("s1", 2), ("s1", 10), ("s2", 1)]
    for number, (series, place) in enumerate(places):
        store.add(outcome(str(number), pictures=(picture(uid=f"2.25.{number}", series=series, place=place),)), 1)
    assert [(found.series, found.place) for found in store.pictures()] == [("s1", 2), ("s1", 10), ("s2", 1), ("s2", 5)]


def test_a_report_belongs_to_its_study_else_to_its_accession_and_never_to_another_patient(store):
    store.add(outcome(pictures=(PICTURE,), texts=(TEXT,)), 1)
    assert store.text_for(PICTURE) == "no mass"
    assert store.text_for(picture(study="2.25.11")) == "no mass"
    assert store.text_for(picture(study="2.25.11", accession="other")) == ""
    assert store.text_for(picture(patient="p-2")) == ""


@pytest.mark.parametrize("verdict", ["waiting", "rejected"])
def test_what_no_person_has_released_is_not_used(store, verdict):
    waits = picture(uid="2.25.3", verdict=verdict, file="quarantine/3-0.png")
    store.add(outcome(pictures=(waits,), texts=(dataclasses.replace(TEXT, verdict=verdict),)), 1)
    assert list(store.pictures()) == []
    assert store.text_for(waits) == ""


def test_a_decision_changes_the_verdict_and_is_kept_with_who_took_it(tmp_path):
    waits = picture(verdict="waiting", file="quarantine/1-0.png")
    with Store(tmp_path) as store:
        store.add(outcome(pictures=(waits,)), 1)
        store.decide(waits, "released", PICTURE.file, "nobody to be seen", "ada")
        assert list(store.pictures()) == [picture(verdict="released")]
        assert store.decisions() == [("picture", "2.25.1", 0, "released", "nobody to be seen", "ada")]


def test_a_damaged_store_and_one_of_a_later_version_are_refused_with_the_remedy(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / FILE).write_bytes(b"no database at all" * 100)
    with pytest.raises(DataError, match="is damaged; remove it and import again"):
        Store(tmp_path)
    (tmp_path / FILE).unlink()
    with Store(tmp_path) as store:
        store._database.execute("pragma user_version = 9")
    with pytest.raises(DataError, match="is of version 9"):
        Store(tmp_path)
