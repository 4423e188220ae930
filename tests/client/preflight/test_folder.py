import dataclasses
import json
import shutil

import pytest
from PIL import Image

from client.keys import SiteKeys
from client.log import site_log_file
from client.preflight import checks
from client.preflight.case import Case
from client.privacy.ledger import Ledger
from client.privacy.policy import sign_policy
from mumc_model.data.records import SiteWriter
from protocol.enrolment import Join
from protocol.papers import read_paper, to_json
from protocol.signing import new_key, public_hex
from tests.client.privacy.officer import POLICY

QUESTION = {"answer_type": "CLOSED", "question_type": "presence"}


def test_a_folder_that_is_none_fails_and_everything_behind_it_names_that(tiny_run, tmp_path):
    from client.preflight.run import read_run

    case = Case(tmp_path / "gone", read_run(tiny_run))
    found = {finding.name: finding for finding in checks.examine(case)}
    assert found["settings"].what == f"{tmp_path / 'gone'} is no folder"
    assert {name: one.cause for name, one in found.items() if one.status != "pass"} == {
        name: "" if name == "settings" else "settings" for name in found if name not in ("python", "packages")
    }


def test_a_wrong_key_in_site_yaml_is_told_with_the_one_that_was_meant(site):
    site.set(devise="cpu")
    found = site.find("settings")
    assert (found.what, found.remedy) == ("unknown key 'site.yaml.devise'", "did you mean 'device'?")


def test_a_state_folder_that_cannot_be_written_is_told_so(site):
    shutil.rmtree(site.root / "state", ignore_errors=True)
    (site.root / "state").write_text("in the way")
    found = site.find("state")
    assert (found.status, found.what) == ("fail", f"{site.root / 'state'} cannot be written: File exists")
    assert found.remedy == ("let the user who runs mumc-site own the folder, on a disk that is not mounted read-only")
    assert site.find("step").cause == "state"


def test_what_is_left_in_the_state_folder_is_nothing(site):
    assert site.find("state").status == "pass"
    assert list((site.root / "state").iterdir()) == []


def test_a_key_that_others_can_read_is_told_with_its_mode(site):
    key = SiteKeys(site.root).auth_key
    key.chmod(0o644)
    found = site.find("keys")
    assert (found.status, found.what) == ("fail", f"{key} has mode 644, so that others can use the key")
    assert found.remedy == f"run: chmod 600 {key}"
    assert site.find("server").cause == "keys"


def test_a_folder_of_keys_that_others_can_look_into_is_told_with_its_mode(site):
    folder = SiteKeys(site.root).folder
    folder.chmod(0o750)
    found = site.find("keys")
    assert (found.what, found.remedy) == (
        f"{folder} has mode 750, so that others can look into it",
        f"run: chmod 700 {folder}",
    )


def test_a_site_without_keys_or_without_a_federation_is_told_what_to_run(site):
    keys = SiteKeys(site.root)
    keys.federation.unlink()
    assert site.find("keys").status == "pass"
    assert (site.find("enrolment").what, site.find("enrolment").remedy) == (
        "this site has not joined a federation",
        "take the operator's file in: mumc-site join",
    )
    keys.signing_key.unlink()
    del site.asked
    assert site.find("keys").remedy == f"make them with: mumc-site init {site.root}"


def test_a_pinned_file_that_was_edited_or_is_for_other_keys_fails(site):
    pinned = SiteKeys(site.root).federation
    good = read_paper(Join, pinned)
    pinned.write_text(json.dumps({**json.loads(pinned.read_text()), "address": "evil.example.org:1"}))
    assert site.find("enrolment").status == "fail"
    assert "the signature of this join is not" in site.find("enrolment").what
    strange = dataclasses.replace(good, signing_key=public_hex(new_key())).signed(site.signer)
    pinned.write_text(to_json(strange))
    del site.asked
    assert site.find("enrolment").what == (
        "this join file names another signing key for north than the one in this folder"
    )
    assert site.find("dns").cause == "enrolment"


def test_new_keys_that_wait_for_their_answer_are_a_warning(site):
    SiteKeys(site.root).next.make()
    found = site.find("enrolment")
    assert (found.status, found.remedy) == (
        "warn",
        "send the enrolment file, and take the answer in with mumc-site join",
    )


def test_a_log_that_was_edited_is_told_with_the_line(site):
    log, key = site_log_file(site.root), SiteKeys(site.root).signing()
    assert site.find("log").what == "none yet: no order has come"
    for text in ("one", "two"):
        log.append(key, {"kind": "turned_away", "stage": "x", "code": "x", "text": text, "message_bytes": 1})
    assert site.find("log").what.startswith("2 lines, chained and signed, the last of ")
    log.path.write_bytes(log.path.read_bytes().replace(b"one", b"0ne"))
    found = site.find("log")
    assert found.status == "fail"
    assert "line 1" in found.what
    assert found.remedy.startswith("put the newest unchanged copy of the file back")


def test_a_ledger_is_verified_with_the_policy_that_was_approved(site):
    assert site.find("ledger").what.startswith("none, as there is no privacy policy")
    ledger = Ledger.open(site.root)
    ledger.approve(sign_policy(POLICY, "north", new_key()))
    found = site.find("ledger")
    assert (found.status, found.numbers) == ("pass", {"rows": ledger.head.count})
    assert found.what.endswith("chained and signed; policy of 2020-01-01, for each patient")
    (rows,) = [path for path in site.root.rglob("*.jsonl") if b'"previous"' in path.read_bytes()]
    rows.write_bytes(rows.read_bytes().replace(b"Lovelace", b"Byron"))
    found = site.find("ledger")
    assert found.status == "fail"
    assert "is not to be trusted, and nothing is charged" in found.what
    assert site.find("step").cause == "ledger"


@pytest.fixture
def records(site):
    """Writes the site's records anew: image and patient of captions, and of questions by split."""

    def write(captions, **asked):
        with SiteWriter(site.root, "north") as writer:
            for shade, patient in captions:
                image = writer.add_image(Image.new("L", (8, 8), shade), f"c{shade}")
                writer.add_caption(image, "a", patient_id=patient)
            for split, rows in asked.items():
                for shade, patient in rows:
                    image = writer.add_image(Image.new("L", (8, 8), shade), f"{split}{shade}")
                    writer.add_question(image, "q", "yes", patient_id=patient, split=split, **QUESTION)

    return write


def test_counts_are_told_on_the_terminal_and_rounded_elsewhere(site, records):
    records([(number, f"p{number}") for number in range(123)], train=[(200, "x")], test=[(201, "y")])
    found = site.find("data")
    assert (found.status, found.what) == ("pass", "captions and questions are there, and every image can be read")
    assert found.here == "125 images, 123 captions, questions: 1 train, 0 val, 1 test; 125 patients"
    assert found.numbers == {
        "about_images": 120,
        "about_captions": 120,
        "about_train_questions": 1,
        "about_val_questions": 0,
        "about_test_questions": 1,
    }


def test_images_that_cannot_be_read_are_counted_and_named_on_the_terminal_alone(site, records):
    records([(number, f"p{number}") for number in range(4)], train=[(200, "x")], test=[(201, "y")])
    (site.root / "images" / "c2.png").write_bytes(b"no image")
    found = site.find("data")
    assert found.status == "fail"
    assert found.what == (
        "1 of 4 rows of captions.jsonl cannot be used (25.0 %, this site's limit is 1.0 %): image unreadable 1"
    )
    assert (found.remedy, found.here) == (
        "repair them, import the data again, or raise the limit",
        "captions.jsonl:3 image unreadable",
    )
    site.set(bad_share=0.5)
    del site.asked
    found = site.find("data")
    assert (found.status, found.what) == ("warn", "rows are left out: 1 image unreadable")
    assert found.here.endswith("\ncaptions.jsonl:3 image unreadable")


def test_the_same_image_in_two_splits_is_found_whatever_its_name(site, records):
    records([(1, "a"), (2, "b")], train=[(3, "c")], val=[(4, "d")], test=[(2, "e"), (3, "f"), (9, "g")])
    found = site.find("duplicates")
    assert (found.status, found.what) == ("warn", "there are images in more than one split: train and test")
    assert found.remedy == (
        "import the data again so that all of a patient is in one split; else accuracy looks better than it is"
    )
    assert found.here == "2 in train and test: images/c2.png, images/test3.png"
    assert site.find("patients").status == "pass"


def test_a_patient_in_two_splits_is_found_and_named_on_the_terminal_alone(site, records):
    records([(1, "anna"), (2, "b")], train=[(3, "c"), (4, "d")], val=[(5, "d")], test=[(6, "anna"), (7, "d")])
    found = site.find("patients")
    assert found.what == "there are patients in more than one split: train and test, train and val and test"
    assert (found.status, found.here) == ("warn", "1 in train and test, 1 in train and val and test: anna, d")
    assert site.find("duplicates").status == "pass"
    site.set(unit="image")
    del site.asked
    assert site.find("patients").what == "unit image: the data knows no patients"


def test_a_site_without_captions_is_a_warning(site, records):
    records([], train=[(1, "a")], test=[(2, "b")])
    assert (site.find("data").status, site.find("data").what) == ("warn", "there are no captions")
