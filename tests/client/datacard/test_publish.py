"""What of a card leaves: counts that are many enough, under fixed names, signed, and nothing of a record."""

import io
import json
import os
import re

import numpy as np
import pytest
import yaml
from PIL import Image

import client.datacard.publish
from client.cli import main
from client.datacard.card import build
from client.datacard.facts import to_plain
from client.datacard.publish import public_facts, publish
from client.datacard.stamp import CARD, FOLDER, PUBLIC
from client.datacard.write import write_card
from client.joining import prepare
from client.keys import SiteKeys
from client.log import site_log_file
from client.log_check import check_site_log
from mumc_model.data.site_writer import SiteWriter
from protocol.datacard import opened
from protocol.signing import public_hex
from tests.client.masked import limit
from tests.client.privacy.private_rounds import approve as approve_privacy
from tests.federation import found, take_in

WORDS = ("kanariname", "kanaripatient", "kanaricaption", "kanariquestion", "kanarianswer", "kanarilabel", "kanarikind")
NAME, PATIENT, CAPTION, QUESTION, ANSWER, LABEL, KIND = WORDS


def write_site(root, images=48, patient=PATIENT):
    """Two images a patient: half are CT, a quarter x-ray, and a quarter of a kind that only this site names."""
    rng = np.random.default_rng(0)
    with SiteWriter(root, "north") as writer:
        for number in range(images):
            pixels = Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8))
            key = writer.add_image(pixels, f"{NAME}-{number}")
            labels = [{"modality": "CT", "organ": "head"}, {"modality": "CR"}, {"modality": "ct"}, {"modality": LABEL}]
            unit = f"{patient}-{number // 2}"
            writer.add_caption(key, f"{CAPTION} {number}", patient_id=unit, labels=labels[number % 4])
            row = {"answer_type": "OPEN", "question_type": KIND, "split": "train", "patient_id": unit}
            writer.add_question(key, f"{QUESTION} {number}", ANSWER, **row)
    return root


@pytest.fixture
def site(tmp_path):
    """A site with keys and a card."""
    root = write_site(tmp_path / "north")
    prepare(root, "north", 50)
    write_card(root, build(root))
    return root


def test_counts_leave_rounded_and_under_the_names_of_the_lists(site):
    facts = public_facts(build(site), None, 0)
    assert (facts["unit"], facts["smallest"]) == ("patient", 10)
    assert facts["counts"] == {
        "patients": 20,
        "images": 40,
        "captions": 40,
        "questions": 40,
        "rows left out": "fewer than 10",
        "waiting": "not measured",
    }
    modality = {label: shown for label, shown in facts["tables"]["images by modality"].items() if shown}
    assert modality == {"ct": 20, "x-ray": 10, "other": 10}
    assert facts["words"]["captions"] == [2, 2, 2]
    assert facts["near copies"]["images"] == "fewer than 10"
    assert facts["overlaps"] == []


def test_a_site_may_ask_for_more_and_never_for_less(site):
    card = build(site)
    assert public_facts(card, None, 25)["counts"]["patients"] == "fewer than 25"
    assert public_facts(card, None, 1)["smallest"] == 10


@pytest.mark.parametrize(
    ("name", "told"), [("vqa_rad", "vqa_rad"), ("VQA-RAD", "vqa_rad"), ("kanariname", "another set")]
)
def test_only_names_that_everyone_knows_are_told_of_other_sets(site, tmp_path, name, told):
    other = write_site(tmp_path / name)
    settings = yaml.safe_load((other / "site.yaml").read_text())
    (other / "site.yaml").write_text(yaml.safe_dump(settings | {"name": name}))
    assert public_facts(build(site, [other]), None, 10)["overlaps"] == [
        {"set": told, "images here": 40, "learnt from": 40, "of its test split": 0}
    ]


def test_nothing_of_a_record_leaves(site, tmp_path):
    (tmp_path / NAME).mkdir()
    other = write_site(tmp_path / NAME / "kanaripath")
    write_card(site, build(site, [other]))
    text = publish(site, build(site, [other]), "A. Person").read_text()
    assert [
        word for word in (*WORDS, "kanaripath", str(tmp_path), "Person") if word.casefold() in text.casefold()
    ] == []
    kept = json.dumps(to_plain(build(site, [other])))
    assert LABEL in kept
    assert KIND in kept
    assert json.loads(kept)["data"] not in text


def test_what_leaves_is_signed_and_noted_in_the_sites_log(site):
    path = publish(site, build(site), "A. Person")
    _, key = SiteKeys.open(site).public
    facts = opened(path.read_text(), "north", key)
    assert facts == public_facts(build(site), None, 10)
    assert json.loads(path.read_text())["server_key"] == ""
    line = json.loads(site_log_file(site).path.read_text().splitlines()[-1])
    assert (line["kind"], line["user"], line["data"]) == ("card", "A. Person", build(site).data)
    assert check_site_log(site).whole


def test_what_leaves_names_the_federation_that_the_site_has_joined(tmp_path):
    home = found(tmp_path, "north")
    site = write_site(tmp_path / "north")
    take_in(home, site)
    path = publish(site, build(site), "x")
    assert json.loads(path.read_text())["server_key"] == public_hex(home.signer())


def test_under_a_signed_privacy_policy_only_the_officers_number_leaves(site, monkeypatch):
    approve_privacy(site, units=30)
    facts = opened(publish(site, build(site), "x").read_text(), "north", SiteKeys.open(site).public[1])
    assert facts == {"unit": "patient", "units": 30}


def call(monkeypatch, capsys, *words, code=0):
    monkeypatch.setattr("sys.argv", ["mumc-site", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    said = capsys.readouterr()
    return said.out + said.err


def test_approving_shows_what_leaves_and_asks(site, monkeypatch, capsys):
    monkeypatch.setattr("typer.confirm", lambda *_, **__: pytest.fail("asked though --yes was given"))
    said = call(monkeypatch, capsys, "card", site, "--approve", "--person", "A. Person", "--yes")
    shown = json.loads(re.search(r"^\{.*^\}$", said, flags=re.MULTILINE | re.DOTALL).group())
    assert shown == opened((site / FOLDER / PUBLIC).read_text(), "north", SiteKeys.open(site).public[1])
    assert "signed by A. Person" in said


def test_who_approves_reads_that_exact_counts_go_into_sums_where_the_site_s_limits_list_statistics(
    site, monkeypatch, capsys
):
    words = ("card", site, "--approve", "--person", "A. Person", "--yes")
    assert "query.statistics" not in call(monkeypatch, capsys, *words)
    limit(site, actions=["train.pretrain", "query.statistics"], min_sites=5)
    said = call(monkeypatch, capsys, *words)
    assert "go, masked, into a sum of at least 5 sites, and into another sum once in 90 days." in said
    limit(site, actions=["train.pretrain", "query.statistics"], min_sites=1)
    assert "into a sum of at least 3 sites" in call(monkeypatch, capsys, *words)


def test_a_machine_that_has_no_name_for_its_user_notes_the_user_s_number(site, monkeypatch, capsys):
    def nameless():
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", nameless)
    assert f"signed by {os.getuid()}, and noted" in call(monkeypatch, capsys, "card", site, "--approve", "--yes")


def test_nothing_is_signed_where_the_person_says_no(site, monkeypatch, capsys):
    monkeypatch.setattr(client.datacard.publish, "PublicCard", None)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    call(monkeypatch, capsys, "card", site, "--approve", code=1)
    assert not (site / FOLDER / PUBLIC).exists()


def test_only_a_card_of_the_data_as_it_is_can_be_approved(site, monkeypatch, capsys):
    with (site / "captions.jsonl").open("a") as file:
        file.write("\n")
    said = call(monkeypatch, capsys, "card", site, "--approve", "--yes", code=2)
    assert f"the site's data has changed since its data card was made; look at it first: mumc-site card {site}" in said
    (site / FOLDER / CARD).unlink()
    assert "has no data card" in call(monkeypatch, capsys, "card", site, "--approve", "--yes", code=2)
