"""`mumc-site report`, as it is typed at a site that has taken part, evaluated two models and entered its prices."""

import json
import re
import shutil

import pytest

from client.board.answers import FEDERATED, LOCAL, default_evaluation, read_evaluation
from client.board.facts import Comparison, NotMeasured
from client.board.site import of_site
from client.log import site_log_file
from client.vqa.evaluate import keep_answers
from mumc_model.evaluate import AnswerRow

BOARD = """
board:
  hospital: Łódź & Sons
  currency: EUR
  kwh_price: 0.25
  watts: 360
  staff_hours: 2
  staff_hour_price: 50
"""
DAY = "2026-11-26"


def keep(folder, right, types=("organ", "plane"), **changes):
    """An evaluation of forty questions about twenty images, of which so many of the first are right."""
    rows = [
        {
            "image": f"images/secret-{n // 2}.png",
            "question": f"what is in secret-{n}",
            "question_type": types[n % 2],
            "answer_type": "OPEN",
            "truth": f"patient-{n}",
            "prediction": "yes",
            "correct": n < right,
            "confidence": 0.5,
            **changes,
        }
        for n in range(40)
    ]
    assert AnswerRow.from_dict(rows[0])
    folder.mkdir(parents=True)
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    card = {"protocol": {"asked": "test"}, "normaliser": "mumc", "selection": f"best of {right}"}
    card["differences"] = {"question_only": {"diff": 0.04, "ci95": [-0.02, 0.1], "n": 40}}
    (folder / "evaluation.json").write_text(json.dumps(card))


def of_a_run(folder, normaliser="mumc"):
    """The evaluation in the folder as a run's own fine-tuning would have left it; without a normaliser, an old one."""
    (folder / "answers.jsonl").rename(folder / "answers-test.jsonl")
    (folder / "evaluation.json").unlink()
    if normaliser:
        (folder / "answers-test.json").write_text(json.dumps({"asked": "test", "normaliser": normaliser}))


@pytest.fixture
def site(folder):
    """A site with both evaluations and prices, that has joined nothing."""
    keep(folder / FEDERATED, 30)
    keep(folder / LOCAL, 20)
    with (folder / "site.yaml").open("a") as file:
        file.write(BOARD)
    return folder


def test_the_page_is_written_with_the_facts_of_the_folder(called, site):
    code, out, _ = called("report", site)
    assert code == 0
    assert "The federated model answers better than the local-only one: +25.0" in out
    assert "gains from looking at the image: it is +4.0 (−2.0 to +10.0) points" in out  # noqa: RUF001
    page = (site / "state" / "board" / "board.html").read_text()
    for part in ("Łódź &amp; Sons", "75.0 (", "50.0 (", "+25.0 (", "100.00 EUR", "not measured", "best of 30"):
        assert part in page
    assert (site / "state" / "board" / "board.pdf").read_bytes().startswith(b"%PDF")


def test_nothing_of_a_patient_is_on_the_page(called, site, tmp_path):
    called("report", site, "--out", tmp_path / "board")
    page = (tmp_path / "board" / "board.html").read_text()
    assert not re.search("secret-|patient-[0-9]|images/", page)
    assert str(site) not in page


def test_both_evaluations_can_be_named(site, tmp_path):
    keep(tmp_path / "old", 10)
    found = of_site(site, DAY, federated=tmp_path / "old").comparison
    assert isinstance(found, Comparison)
    assert (found.overall.federated.mean, found.overall.local.mean, found.overall.gap.mean) == (0.25, 0.5, -0.25)
    assert [group.name for group in found.question_types] == ["organ", "plane"]


def test_a_missing_local_model_leaves_the_comparison_unmeasured_and_says_what_to_type(called, site):
    shutil.rmtree(site / LOCAL)
    code, out, _ = called("report", site)
    assert code == 0
    assert "Whether joining made the answers better was not measured: none was evaluated here" in out
    found = of_site(site, DAY)
    assert found.comparison.overall.federated.mean == 0.75
    assert "mumc-site evaluate SITE --model FOLDER" in found.comparison.overall.local.why


def test_without_any_evaluation_the_page_still_says_what_it_knows(called, folder):
    code, _, _ = called("report", folder)
    page = (folder / "state" / "board" / "board.html").read_text()
    assert code == 0
    assert "Accuracy: not measured" in page
    assert "No differential privacy was used" in page


def test_the_newest_run_stands_in_for_an_evaluation_that_nobody_made(site):
    shutil.rmtree(site / FEDERATED)
    assert default_evaluation(site, FEDERATED) is None
    keep(site / "state" / "runs" / "winter", 12)
    of_a_run(site / "state" / "runs" / "winter")
    assert default_evaluation(site, FEDERATED) == site / "state" / "runs" / "winter"
    overall = of_site(site, DAY).comparison.overall
    assert (overall.federated.mean, overall.gap.mean) == (0.3, -0.2)


def test_answers_of_which_nobody_knows_how_they_were_scored_are_paired_with_none(called, site):
    shutil.rmtree(site / FEDERATED)
    for run in ("autumn", "winter"):
        keep(site / "state" / "runs" / run, 12)
        of_a_run(site / "state" / "runs" / run, normaliser="")
    autumn, winter = (site / "state" / "runs" / run for run in ("autumn", "winter"))
    for local in (site / LOCAL, autumn):
        found = of_site(site, DAY, federated=winter, local=local).comparison.overall
        assert (found.federated.mean, str(found.local), str(found.gap)) == (0.3, "not measured", "not measured")
        assert "nothing in winter says how its answers were compared with the truth; evaluate both" in found.gap.why
    code, out, _ = called("report", site, "--federated", winter)
    assert (code, "was not measured: nothing in winter says how" in out) == (0, True)


def test_a_run_that_was_scored_in_another_way_is_not_paired(site):
    keep(site / "state" / "runs" / "winter", 12)
    of_a_run(site / "state" / "runs" / "winter", normaliser="clinical")
    found = of_site(site, DAY, federated=site / "state" / "runs" / "winter").comparison.overall
    assert "winter was measured by test questions, normaliser clinical, and evaluation-local by test" in found.gap.why


def test_other_words_about_the_same_image_are_another_question(site):
    path = site / LOCAL / "answers.jsonl"
    path.write_text(path.read_text().replace("what is in secret-7", "what is not in secret-7"))
    assert "not the same in the same order" in of_site(site, DAY).comparison.overall.gap.why
    path.write_text(re.sub('"question": "[^"]*", ', "", path.read_text()))
    assert "an earlier version kept the answers in evaluation-local" in of_site(site, DAY).comparison.overall.gap.why


def test_an_evaluation_that_was_interrupted_leaves_no_word_of_the_one_before(site):
    keep_answers(read_evaluation(site / FEDERATED).rows, site / FEDERATED)
    assert read_evaluation(site / FEDERATED).scored == ""


def test_a_site_with_few_questions_shows_none_of_them(site):
    with (site / "site.yaml").open("a") as file:
        file.write("policy:\n  runs:\n    smallest_count: 41\n")
    found = of_site(site, DAY).comparison
    assert isinstance(found, NotMeasured)
    assert "fewer than 41" in found.why


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"unknown": 1}, "unknown fields"),
        (None, "holds no answers"),
        ("half a line", "cannot be read"),
        ("", "is empty"),
    ],
)
def test_answers_that_cannot_be_read_are_refused_with_the_remedy(called, site, tmp_path, spoil, message):
    if isinstance(spoil, dict):
        path = site / LOCAL / "answers.jsonl"
        path.write_text(path.read_text().replace('"image"', '"picture"'))
    elif spoil is not None:
        (site / LOCAL / "answers.jsonl").write_text(spoil)
    arguments = ["--local", tmp_path] if spoil is None else []
    code, _, err = called("report", site, *arguments)
    assert code == 2
    assert message in err
    assert "mumc-site evaluate" in err or "evaluate again" in err
    assert "Traceback" not in err


def test_measured_in_other_ways_is_not_compared(site):
    path = site / LOCAL / "evaluation.json"
    path.write_text(path.read_text().replace("mumc", "clinical"))
    found = of_site(site, DAY).comparison.overall
    assert "evaluation was measured by test questions, normaliser mumc, and evaluation-local by" in found.gap.why
    keep_other = site / "other"
    keep(keep_other, 20, truth="other")
    found = of_site(site, DAY, local=keep_other).comparison.overall
    assert "evaluation answers 40 questions and other 40, and they are not the same" in found.gap.why


def test_a_price_that_cannot_be_is_said_in_one_line(called, site):
    path = site / "site.yaml"
    path.write_text(path.read_text().replace("watts: 360", "watts: -1"))
    code, _, err = called("report", site)
    assert (code, err) == (2, "mumc-site: board.watts is -1; give 0 or more, or leave it out\n")


def test_a_site_in_a_federation_reports_what_its_log_and_ledger_say(federation, server, monkeypatch):
    monkeypatch.setattr("client.seal.EnergyMeter.used", lambda meter: {"joules": 7200.0, "counters": ["intel-rapl:0"]})
    federation.exchange(server.pretrain(1))
    federation.exchange(server.finetune())
    root = federation.sites["north"]
    found = of_site(root, DAY)
    lines = site_log_file(root).entries()
    replies = [line for line in lines if line["kind"] == "reply"]
    assert found.effort.rounds == 1
    assert found.effort.bytes_up == sum(line["bytes"] + line["message_bytes"] for line in replies)
    assert found.effort.bytes_down == sum(line["bytes"] for line in lines if line["kind"] == "order")
    assert (found.effort.kwh, found.effort.counted) == (2 * 7200 / 3.6e6, "counters of processors alone")
    assert (found.privacy.kind, found.privacy.uncharged) == ("unbounded", 1)
    assert found.comparison.overall.answers == 24
    run = default_evaluation(root, FEDERATED)
    assert of_site(root, DAY, local=run).comparison.overall.gap.mean == 0
    path = site_log_file(root).path
    path.write_bytes(path.read_bytes().replace(b'"steps":2', b'"steps":3', 1))
    assert "does not verify" in of_site(root, DAY).effort.bytes_up.why


def test_what_evaluate_keeps_can_be_paired(called, folder, encoders):
    for place in (FEDERATED, LOCAL):
        code, _, err = called("evaluate", folder, "--model", encoders, "--out", folder / place)
        assert (code, err) == (0, "")
    assert len(read_evaluation(folder / FEDERATED).rows) == 24
    found = of_site(folder, DAY).comparison
    assert (found.overall.answers, found.overall.gap.mean) == (24, 0.0)
