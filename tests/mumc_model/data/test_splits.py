from dataclasses import replace
from pathlib import Path

from mumc_model.data.records import SiteData, VqaRecord
from mumc_model.data.splits import share_of, with_validation


def question(unit, split="train"):
    return VqaRecord(
        image=Path(f"/site/{unit}.png"),
        question="which organ",
        answer="liver",
        answer_type="OPEN",
        question_type="organ",
        patient_id=unit,
        split=split,
    )


def site(*rows):
    return SiteData(root=Path("/site"), name="clinic", unit="patient", captions=(), vqa=rows)


def units(data, split):
    return {row.patient_id for row in data.vqa if row.split == split}


def test_a_tenth_of_the_patients_becomes_validation_and_no_patient_is_on_both_sides():
    rows = [question(f"p{number}") for number in range(40) for _ in range(3)]
    data = with_validation(site(*rows))
    assert len(units(data, "val")) == 4
    assert not units(data, "val") & units(data, "train")
    assert len(data.vqa) == 120


def test_a_site_that_has_validation_or_a_single_patient_stays_as_it_is():
    for data in (site(question("a"), question("b", "val")), site(question("a"), question("a")), site()):
        assert with_validation(data) == data


def test_test_questions_stay_where_they_are_and_the_order_of_the_file_decides_nothing():
    rows = [question(f"p{number}") for number in range(10)] + [question("p3", "test")]
    one, other = with_validation(site(*rows)), with_validation(site(*reversed(rows)))
    assert units(one, "val") == units(other, "val")
    assert units(one, "test") == {"p3"}
    assert replace(one, vqa=()) == replace(site(), vqa=())


def test_shares_are_even():
    shares = [share_of(str(number)) for number in range(2000)]
    assert 0.45 < sum(share < 0.5 for share in shares) / 2000 < 0.55
