"""Every number of a data card on sites that were made so that it is known beforehand."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from client.cli import main
from client.datacard.card import build
from client.datacard.facts import QUANTILES, Cell, NotMeasured, Skew, to_plain
from client.datacard.page import to_html
from client.datacard.reading import read_card
from client.datacard.stamp import CARD, FOLDER, PAGE, card_state, data_digest
from client.datacard.words import in_short
from client.datacard.write import write_card
from client.intake.outcome import Outcome, Picture, Text
from client.intake.store import Store
from mumc_model.data.site_writer import SiteWriter
from mumc_model.errors import DataError
from protocol.labels import TABLES
from protocol.statistics import DIGEST, Statistics

NONE = Cell(count=0, units=0)


def scan(seed):
    """Smooth random structure, unlike that of any other seed."""
    coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 12), dtype=np.uint8))
    return coarse.resize((96, 96), Image.Resampling.BICUBIC)


def nearly(image):
    """Another file of the same picture."""
    return image.resize((80, 80), Image.Resampling.LANCZOS)


class Making:
    """A site that is written image by image."""

    def __init__(self, root, unit="patient"):
        self.root, self.unit, self.writer = root, unit, SiteWriter(root, root.name, unit)
        self.numbered = 0

    def image(self, picture):
        self.numbered += 1
        return self.writer.add_image(picture, f"image-{self.numbered}")

    def captioned(self, picture, caption, patient, **labels):
        self.writer.add_caption(self.image(picture), caption, patient_id=patient, labels=labels)

    def asked(self, picture, question, patient, split, answer="yes", answer_type="CLOSED", question_type="PRES"):
        key = picture if isinstance(picture, str) else self.image(picture)
        self.writer.add_question(
            key, question, answer, answer_type=answer_type, question_type=question_type, split=split, patient_id=patient
        )
        return key

    def done(self):
        self.writer.close()
        return self.root


@pytest.fixture
def site(tmp_path):
    """Five captions of three patients, and five questions of three."""
    making = Making(tmp_path / "north")
    making.captioned(scan(1), "No effusion.", "p1", modality="CR", organ="CHEST")
    making.captioned(scan(1), "no effusion", "p2", modality="CR", organ="CHEST")  # The same file, another patient's.
    making.captioned(scan(2), "A large mass in the liver.", "p1", modality="CT", organ="Abdomen")
    making.captioned(nearly(scan(2)), "No effusion", "p1", modality="CT")
    making.captioned(scan(3), "A cyst", "p3", modality="Dr. Canary")
    key = making.asked(scan(4), "Is there a mass?", "p4", "train")
    making.asked(key, "is there a mass", "p4", "train")
    making.asked(scan(4), "Is there a mass?", "p5", "test", "no")
    making.asked(nearly(scan(3)), "Where is it?", "p6", "test", "left side", "OPEN", "POS")
    making.asked(scan(5), "Where is it?", "p6", "val", "left side", "OPEN", "POS")
    return making.done()


def cells(card, of, by):
    return {
        label: (cell.count, cell.units)
        for t in card.tables
        if (t.of, t.by) == (of, by)
        for label, cell in t.cells.items()
    }


def test_records_are_counted_with_the_patients_behind_them(site):
    card = build(site)
    assert (card.site, card.unit, card.patients) == ("north", "patient", 6)
    assert card.images == Cell(count=9, units=6)
    assert card.captions == Cell(count=5, units=3)
    assert card.questions == Cell(count=5, units=3)


def test_images_and_questions_are_counted_by_what_is_known_of_them(site):
    card = build(site)
    assert cells(card, "images", "modality") == {"not given": (4, 3), "CR": (2, 2), "CT": (2, 1), "Dr. Canary": (1, 1)}
    assert cells(card, "images", "organ") == {"not given": (6, 5), "CHEST": (2, 2), "Abdomen": (1, 1)}
    assert cells(card, "questions", "answer type") == {"CLOSED": (3, 2), "OPEN": (2, 1)}
    assert cells(card, "questions", "question type") == {"PRES": (3, 2), "POS": (2, 1)}
    assert cells(card, "questions", "split") == {"test": (2, 2), "train": (2, 1), "val": (1, 1)}


def test_lengths_are_those_of_texts_that_are_there(site):
    found = {one.of: one for one in build(site).lengths}
    assert QUANTILES == (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
    assert found["captions"].words == (2, 2, 2, 2, 2, 6, 6)  # of 2, 2, 2, 2, 6
    assert found["questions"].words == (3, 3, 3, 4, 4, 4, 4)  # of 3, 3, 4, 4, 4
    assert found["answers"].words == (1, 1, 1, 1, 2, 2, 2)  # of 1, 1, 1, 2, 2


def test_copies_are_counted_exact_and_near_across_patients_and_splits(site):
    card = build(site)
    assert card.exact.images == Cell(count=4, units=4)  # scan 1 of p1 and p2, scan 4 of p4 and p5
    assert card.exact.across_patients == Cell(count=4, units=4)
    assert card.exact.across_splits == {
        "val in train": NONE,
        "test in train": Cell(count=1, units=1),
        "test in val": NONE,
    }
    assert card.near.images == Cell(count=8, units=6)  # and scan 2 twice of p1, scan 3 of p3 and p6
    assert card.near.across_patients == Cell(count=6, units=6)
    assert card.near.across_splits == {
        "val in train": NONE,
        "test in train": Cell(count=2, units=2),
        "test in val": NONE,
    }


def test_texts_that_say_the_same_are_counted(site):
    found = build(site).repeats
    assert found.captions == Cell(count=3, units=2)
    assert found.captions_across_patients == Cell(count=3, units=2)
    assert found.questions == Cell(count=3, units=2)
    assert found.test_in_train == Cell(count=1, units=1)


def test_data_without_patients_says_so(tmp_path):
    making = Making(tmp_path / "set", "image")
    making.captioned(scan(1), "a", "")
    making.captioned(scan(1), "b", "")
    card = build(making.done())
    assert isinstance(card.patients, NotMeasured)
    assert isinstance(card.exact.across_patients, NotMeasured)
    assert isinstance(card.repeats.captions_across_patients, NotMeasured)
    assert card.exact.images == card.images == Cell(count=2, units=2)


def test_missing_and_broken_images_are_counted_however_many(site):
    (site / "images" / "image-5.png").unlink()
    (site / "images" / "image-1.png").write_bytes(b"broken")
    with (site / "captions.jsonl").open("a") as file:
        file.write("no JSON\n")
    card = build(site)
    assert card.left_out == {"image missing": 1, "image unreadable": 1, "not JSON": 1}
    assert card.captions.count == 3


@pytest.fixture
def public(tmp_path):
    """A public set: one image of north's captions byte for byte, one of its test images nearly, one of neither."""
    making = Making(tmp_path / "vqa_rad", "image")
    making.captioned(scan(77), "NO EFFUSION", "")
    making.asked(scan(2), "a", "", "test")
    making.asked(nearly(scan(4)), "b", "", "test")
    making.asked(scan(78), "c", "", "test")
    making.asked(scan(5), "d", "", "train")
    return making.done()


def test_what_another_set_has_too_is_counted_by_its_splits(site, public):
    (found,) = build(site, [public]).others
    assert found.name == "vqa_rad"
    assert found.theirs == {"train": 2, "test": 3}
    assert found.theirs_here == {"train": 1, "test": 2}
    assert found.exact == Cell(count=2, units=2)  # scan 2 of p1, scan 5 of p6
    assert found.near == Cell(count=5, units=4)  # scan 2 twice, scan 4 of p4 and p5, scan 5
    assert found.learnt == Cell(count=3, units=2)  # not those of test and val
    assert found.captions == Cell(count=3, units=2)


def test_a_plain_folder_of_images_can_be_compared_and_an_empty_one_cannot(site, tmp_path):
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    scan(2).save(folder / "deep" / "x.bmp")
    scan(99).save(folder / "y.png")
    (found,) = build(site, [folder]).others
    assert (found.theirs, found.theirs_here, found.exact, found.near.count) == ({"all": 2}, {"all": 1}, NONE, 2)
    assert not (folder / "state").exists()
    with pytest.raises(DataError, match="has no images to compare with; give a site folder"):
        build(site, [tmp_path / "nowhere"])


def test_the_public_bank_is_compared_where_the_site_names_one(site, public):
    assert str(build(site).bank) == "not measured"
    settings = yaml.safe_load((site / "site.yaml").read_text()) | {"bank": str(public)}
    (site / "site.yaml").write_text(yaml.safe_dump(settings))
    assert build(site).bank.near.count == 5


@pytest.mark.parametrize(
    ("split", "learnt", "sentence"),
    [
        (
            "train",
            True,
            "1 of the 1 test images of set are here or nearly: a model that learns from this site has seen",
        ),
        ("test", False, "1 of the 1 test images of set are here or nearly; this site learns from none of them."),
    ],
)
def test_an_overlap_with_test_images_is_told_with_what_it_means(tmp_path, split, learnt, sentence):
    here, there = Making(tmp_path / "here"), Making(tmp_path / "set", "image")
    here.asked(scan(1), "q", "p1", split)
    there.asked(scan(1), "q", "", "test")
    card = build(here.done(), [there.done()])
    assert any(sentence in line for line in in_short(card))
    assert (card.others[0].learnt.count > 0) is learnt


def test_what_an_import_holds_back_is_on_the_card(site):
    with Store(site) as store:
        picture = {
            "patient": "p",
            "study": "s",
            "series": "e",
            "place": 1,
            "accession": "",
            "modality": "US",
            "organ": "",
        }
        picture |= {"view": "", "file": "f"}
        shown = [
            Picture(uid=str(n), frame=0, verdict=v, **picture) for n, v in enumerate(["waiting", "waiting", "clean"])
        ]
        text = Text(uid="t", patient="p", study="s", accession="", text="x", verdict="waiting")
        store.add(Outcome(source="a", stamp="1", pictures=tuple(shown), texts=(text,)), 1)
        store.add(Outcome(source="b", stamp="1", left="no pixels"), 1)
        store.commit()
    card = build(site)
    assert card.quarantine.images == {"clean": 1, "waiting": 2}
    assert card.quarantine.reports == {"waiting": 1}
    assert card.quarantine.left_out == {"no pixels": 1}
    assert any("2 images and 1 reports wait in quarantine" in line for line in in_short(card))


def test_no_store_is_made_where_there_is_none(site):
    assert isinstance(build(site).quarantine, NotMeasured)
    assert not (site / "state" / "intake.sqlite").exists()


COUNTS = {
    **{name: dict.fromkeys(labels, 0) for name, labels in TABLES.items()},
    "images by modality": dict.fromkeys(TABLES["images by modality"], 0) | {"x-ray": 50, "ct": 50},
    "questions by split": {"train": 30, "val": 10, "test": 0},
}
FEDERATION = json.loads(
    Statistics(run_id="statistics-1", labels=DIGEST, sites=3, made="2026-11-27", counts=COUNTS).to_file()
)


def test_skew_is_the_total_variation_between_the_shares(site):
    assert str(build(site).skew) == "not measured"
    (site / FOLDER).mkdir(parents=True, exist_ok=True)
    (site / FOLDER / "federation.json").write_text(json.dumps(FEDERATION))
    modality, split = build(site).skew
    assert modality.here == pytest.approx({"x-ray": 2 / 9, "ct": 2 / 9, "other": 1 / 9, "not given": 4 / 9})
    assert modality.distance == pytest.approx(5 / 9)
    assert split.here == {"train": 0.4, "val": 0.2, "test": 0.4}
    assert split.distance == pytest.approx(0.4)
    withheld = FEDERATION | {"counts": COUNTS | {"questions by split": {"train": 30, "val": 10}}}
    (site / FOLDER / "federation.json").write_text(json.dumps(withheld))
    split = build(site).skew[1]
    assert split.here == pytest.approx({"train": 2 / 3, "val": 1 / 3})
    assert split.distance == pytest.approx(1 / 12)
    assert Skew(of="images", by="organ", here={"head": 1.0}, federation={"chest": 1.0}).distance == 1.0


@pytest.mark.parametrize(
    "counts",
    [
        None,
        {"images by name": {"x": 1}},
        {"images by modality": {"Dr. X": 1}},
        {"images by modality": {"ct": -1}},
        {"images by modality": {"ct": 7}},
        {"images by modality": {"ct": 10**9}},
        {"images by modality": {"ct": True}},
    ],
)
def test_counts_of_a_federation_that_cannot_be_are_refused(site, counts):
    (site / FOLDER).mkdir(parents=True, exist_ok=True)
    wrong = None if counts is None else COUNTS | counts
    (site / FOLDER / "federation.json").write_text(json.dumps(FEDERATION | {"counts": wrong}))
    with pytest.raises(DataError, match=r"federation\.json holds no counts of a federation"):
        build(site)


def test_the_card_is_read_back_as_it_was_made_and_the_page_holds_what_it_holds(site, public):
    (site / FOLDER).mkdir(parents=True, exist_ok=True)
    (site / FOLDER / "federation.json").write_text(json.dumps(FEDERATION))
    card = build(site, [public])
    write_card(site, card)
    assert to_plain(read_card(site)) == to_plain(card)
    assert card_state(site) == "current"
    page = (site / FOLDER / PAGE).read_text()
    assert page == to_html(card)
    for value in numbers(json.loads((site / FOLDER / CARD).read_text())):
        assert f">{value:,}<" in page or f">{value:,} of " in page or f" of {value:,}<" in page, value
    for table in card.tables:
        assert all(f">{label}<" in page for label in table.cells)


def numbers(plain):
    """Every whole number of the card, but for the number of its form."""
    if isinstance(plain, dict):
        return [n for key, value in plain.items() if key != "version" for n in numbers(value)]
    if isinstance(plain, list):
        return [n for value in plain for n in numbers(value)]
    return [plain] if isinstance(plain, int) else []


def test_what_a_site_writes_into_a_label_is_never_read_as_html(tmp_path):
    making = Making(tmp_path / "north")
    making.captioned(scan(1), "a", "p1", modality="<script>alert(1)</script>")
    page = to_html(build(making.done()))
    assert "<script" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    "edit", [{"images": 3}, {"unit": "hospital"}, {"tables": {}}, {"images": {"count": "3", "units": 1}}]
)
def test_a_card_that_was_changed_by_hand_is_refused(site, edit):
    write_card(site, build(site))
    path = site / FOLDER / CARD
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    with pytest.raises(DataError, match="is not as it was written; make it again with: mumc-site card"):
        read_card(site)


def test_a_card_is_of_the_records_and_the_settings_that_they_depend_on(site):
    assert card_state(site) == "none"
    write_card(site, build(site))
    before = data_digest(site)
    text = (site / "site.yaml").read_text()
    (site / "site.yaml").write_text(text + "device: cpu\nprocesses: 2\n")
    assert card_state(site) == "current"
    (site / "site.yaml").write_text(text + "bad_share: 0.5\n")
    assert card_state(site) == "stale"
    (site / "site.yaml").write_text(text)
    with (site / "vqa.jsonl").open("a") as file:
        file.write("\n")
    assert card_state(site) == "stale"
    assert data_digest(site) != before
    (site / "vqa.jsonl").unlink()
    assert card_state(site) == "stale"
    (site / FOLDER / CARD).write_text("{}")
    assert card_state(site) == "none"


def test_the_command_says_what_was_found_and_where_it_lies(site, public, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["mumc-site", "card", str(site), "--against", str(public)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "9 images of 6 patients, 5 captions, 5 questions." in said
    assert (
        "2 of the 3 test images of vqa_rad are here or nearly: a model that learns from this site has seen them" in said
    )
    assert str(site / FOLDER / PAGE) in said.replace("\n", "")
