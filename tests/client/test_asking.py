"""Every question that is asked at a site stands in its log, unreadable to whoever does not have what was asked."""

import copy
import getpass
import hashlib
import itertools
import json
import os
import re
import shutil

import pytest
import torch

from client import own_model
from client.asking import SECRET, ask_at, digests_of
from client.log import site_log_file
from mumc_model.answerer import Answerer, keep_measured
from mumc_model.errors import CheckpointError, ConfigError, DataError
from mumc_model.selective import AccuracyTable
from protocol.errors import ChainError, SigningError

QUESTION = "which organ is shown"


@pytest.fixture(scope="module")
def finetuned(untouched, encoders, tmp_path_factory):
    """A site with keys and a model of its own; tests copy it."""
    from client.keys import SiteKeys
    from client.own_model import OWN_MODEL
    from client.site import open_folder
    from client.vqa.finetune import finetune_members

    folder = shutil.copytree(untouched, tmp_path_factory.mktemp("asked") / "site")
    settings = ["finetune.steps=4", "finetune.select_every=2"]
    finetune_members(open_folder(folder), [encoders], folder / OWN_MODEL, settings, 0)
    SiteKeys(folder).make()
    return folder


@pytest.fixture
def site(finetuned, tmp_path):
    return shutil.copytree(finetuned, tmp_path / "site")


def image_of(folder):
    return sorted((folder / "images").rglob("*.*"))[0]


def test_a_process_without_a_name_stands_in_the_log_by_its_number(site, monkeypatch):
    def nameless():
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(getpass, "getuser", nameless)
    ask_at(site, image_of(site), QUESTION)
    (line,) = site_log_file(site).entries()
    assert line["user"] == str(os.getuid())


def test_a_question_leaves_one_signed_line_with_digests_and_what_was_answered(site):
    asked = ask_at(site, image_of(site), QUESTION)
    (line,) = site_log_file(site).entries()
    assert asked.line == 1
    assert (line["image"], line["question"]) == digests_of(site, image_of(site), QUESTION)
    assert (line["answer"], line["outcome"]) == (asked.reply.answer, asked.reply.outcome)
    assert line["probability"] == pytest.approx(asked.reply.answers[0][1], abs=1e-6)
    text = json.dumps(line)
    assert QUESTION not in text
    assert image_of(site).name not in text


def test_the_same_question_has_other_digests_at_another_site(site):
    ask_at(site, image_of(site), QUESTION)
    here = digests_of(site, image_of(site), QUESTION)
    (site / "keys" / SECRET).unlink()
    ask_at(site, image_of(site), QUESTION)
    there = digests_of(site, image_of(site), QUESTION)
    assert not set(here) & set(there)
    assert (site / "keys" / SECRET).stat().st_mode & 0o077 == 0


def test_beside_the_reply_stands_that_to_a_blank_image(site):
    first, second = (sorted((site / "images").rglob("*.*"))[place] for place in (0, -1))
    one, other = ask_at(site, first, QUESTION), ask_at(site, second, QUESTION)
    assert one.blank == other.blank
    assert one.reply.answers != other.reply.answers
    assert one.to_dict()["blank"]["answers"]


def test_a_model_is_opened_once_and_again_when_any_of_its_files_has_changed(site, monkeypatch):
    opened = []
    really = Answerer.open
    monkeypatch.setattr(Answerer, "open", lambda folder: opened.append(folder) or really(folder))
    folder = site / "state" / "vqa"
    ask_at(site, image_of(site), QUESTION)
    (line,) = site_log_file(site).entries()
    assert line["model"] == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    ask_at(site, image_of(site), QUESTION)
    assert len(opened) == 1
    keep_measured(folder, AccuracyTable.of([0.5] * 30, [True] * 30, "test"))
    assert ask_at(site, image_of(site), QUESTION).reply.accuracy is not None
    assert len(opened) == 2


def fine_tuned_meanwhile(answerer, folder, value):
    """A model whose answers begin elsewhere comes in the place of this one; the digest of its weights."""
    other = copy.deepcopy(answerer)
    with torch.no_grad():
        other.model.text_decoder.cls.predictions.bias.fill_(value)
    other.save(folder)
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_the_log_names_the_model_that_answered_where_another_came_while_it_was_opened(site, monkeypatch):
    really, digests, in_memory = Answerer.open, [], []

    def replaced_meanwhile(folder):
        answerer = really(folder)
        in_memory.append(answerer.model.text_decoder.cls.predictions.bias.unique().tolist())
        if len(in_memory) == 1:
            digests.append(fine_tuned_meanwhile(answerer, folder, 0.5))
        return answerer

    monkeypatch.setattr(Answerer, "open", replaced_meanwhile)
    ask_at(site, image_of(site), QUESTION)
    (line,) = site_log_file(site).entries()
    assert [line["model"]] == digests
    assert len(in_memory) == 2
    assert in_memory[0] != [0.5] == in_memory[1]


def test_a_digest_is_of_the_model_in_memory_where_another_comes_while_it_is_taken(site, monkeypatch):
    folder, really, digested = site / "state" / "vqa", own_model._file_digest, []

    def replaced_before(path):
        if not digested:
            digested.append(fine_tuned_meanwhile(Answerer.open(folder), folder, 0.5))
        return really(path)

    monkeypatch.setattr(own_model, "_file_digest", replaced_before)
    found = own_model.opened(folder, with_digest=True)
    assert [found.digest] == digested
    assert found.answerer.model.text_decoder.cls.predictions.bias.unique().tolist() == [0.5]


def test_a_model_that_is_never_at_rest_is_not_asked(site, monkeypatch):
    really, count = Answerer.open, itertools.count(1)

    def restless(folder):
        answerer = really(folder)
        fine_tuned_meanwhile(answerer, folder, next(count))
        return answerer

    monkeypatch.setattr(Answerer, "open", restless)
    with pytest.raises(CheckpointError, match="changed each of 3 times that it was opened; wait until"):
        ask_at(site, image_of(site), QUESTION)
    assert site_log_file(site).entries() == []


def test_weights_are_digested_only_where_the_log_wants_it(called, site, monkeypatch):
    digested = []
    really = own_model._file_digest
    monkeypatch.setattr(own_model, "_file_digest", lambda path: digested.append(path) or really(path))
    assert called("ask", image_of(site), QUESTION, "--model", site / "state" / "vqa")[0] == 0
    assert digested == []
    assert called("ask", image_of(site), QUESTION, "--site", site)[0] == 0
    assert len(digested) == 1


def test_where_the_model_looked_is_shown_by_the_model_that_answered(called, site, tmp_path, monkeypatch):
    opened = []
    really = Answerer.open
    monkeypatch.setattr(Answerer, "open", lambda folder: opened.append(folder) or really(folder))
    for way in (["--site", site], ["--model", site / "state" / "vqa"]):
        out = tmp_path / f"{way[0]}.png"
        assert called("ask", image_of(site), QUESTION, *way, "--where", out)[0] == 0
        assert out.is_file()
    assert len(opened) == 1


def test_without_keys_there_is_no_answer_and_the_remedy_is_named(site):
    shutil.rmtree(site / "keys")
    with pytest.raises(SigningError, match="mumc-site init"):
        ask_at(site, image_of(site), QUESTION)


def test_nothing_is_answered_where_the_log_was_tampered_with(site):
    ask_at(site, image_of(site), QUESTION)
    log = site_log_file(site).path
    log.write_text(log.read_text().replace('"kind":"question"', '"kind":"questiom"'))
    with pytest.raises(ChainError):
        ask_at(site, image_of(site), QUESTION)


def test_a_question_that_cannot_be_answered_leaves_no_line(site):
    with pytest.raises(DataError, match="cannot be used"):
        ask_at(site, site / "site.yaml", QUESTION)
    with pytest.raises(ConfigError, match="risk"):
        ask_at(site, image_of(site), QUESTION, risk=2)
    shutil.rmtree(site / "state" / "vqa")
    with pytest.raises(DataError, match="mumc-site finetune"):
        ask_at(site, image_of(site), QUESTION)
    assert site_log_file(site).entries() == []


def test_the_command_prints_what_the_function_gives_and_the_log_shows_it(called, site):
    code, out, _ = called("ask", image_of(site), QUESTION, "--site", site, "--json")
    assert code == 0
    values, expected = json.loads(out), ask_at(site, image_of(site), QUESTION).to_dict()
    assert values | {"line": 2} == expected
    code, out, _ = called("log", "show", site)
    assert re.search(r"asked [0-9a-f]{12} about [0-9a-f]{12}; (answered|short list|referred)", out)
    code, out, _ = called("log", "verify", site)
    assert (code, "2 were asked here" in out) == (0, True)
    code, out, _ = called("ask", image_of(site), QUESTION, "--site", site)
    assert "on a blank image" in out
    assert values["guarantee"][:30] in out


def test_an_evaluation_puts_accuracies_beside_answers_by_the_usual_normaliser_and_enough_questions_alone(
    called, site, tmp_path, monkeypatch
):
    measured = site / "state" / "vqa" / "measured.json"
    called("evaluate", site, "--out", tmp_path)
    assert not measured.exists()
    monkeypatch.setattr("mumc_model.selective.BIN_QUESTIONS", 1)
    called("evaluate", site, "--out", tmp_path, "--normaliser", "clinical")
    assert not measured.exists()
    code, out, _ = called("evaluate", site, "--out", tmp_path)
    assert code == 0
    trust = json.loads((tmp_path / "evaluation.json").read_text())["trust"]
    shares = [trust[name]["mean"] for name in ("answered", "short_lists", "referred")]
    assert sum(shares) == pytest.approx(1)
    assert "Referred to a human" in out
    assert "Short lists at a risk of 10 %" in (tmp_path / "evaluation.md").read_text()
    assert json.loads(measured.read_text())["split"] == "test"


def test_the_curve_of_other_sites_beside_the_encoders_is_taken_into_the_model(called, site, encoders, tmp_path):
    from protocol.score_curve import GRID, SCORES_FILE

    model = shutil.copytree(encoders, tmp_path / "encoders")
    share = [round(0.05 * place, 2) for place in range(1, 21)]
    (model / SCORES_FILE).write_text(json.dumps({"grid": list(GRID), "share": share, "sites": 3}))
    code, _, _ = called("finetune", site, "finetune.steps=2", "--model", model, "--out", tmp_path / "own")
    assert code == 0
    assert json.loads((tmp_path / "own" / "answers.json").read_text())["trust"]["sets"]["curve"] == share
    (model / SCORES_FILE).write_text("{")
    code, _, err = called("finetune", site, "finetune.steps=2", "--model", model, "--out", tmp_path / "own")
    assert (code, "export the run again" in err) == (2, True)
