"""What an engineer types to make several encoders answer as one, and what the answers then say."""

import json
import shutil

import pytest

from client.keys import SiteKeys
from client.own_model import opened
from client.site import open_folder
from client.vqa.finetune import finetune_members
from mumc_model.pretrained import read_config

SETTINGS = ("finetune.steps=4", "finetune.select_every=2")


@pytest.fixture
def site(untouched, tmp_path):
    folder = shutil.copytree(untouched, tmp_path / "site")
    SiteKeys(folder).make()
    return folder


def test_several_models_answer_as_one_from_fine_tuning_to_the_evaluation(called, site, encoders, tmp_path):
    code, out, _ = called("finetune", site, *SETTINGS, "--model", encoders, "--model", encoders)
    assert code == 0
    assert "member 2: right on validation" in out
    own = site / "state" / "vqa"
    selection = "the mean of 2 members, each the best of 2 looks at 10 validation questions"
    assert read_config(own)["facts"]["selection"] == selection
    image = sorted((site / "images").rglob("*.*"))[0]
    picture = tmp_path / "where.png"
    code, out, told = called("ask", image, "which organ is shown", "--site", site, "--json", "--where", picture)
    assert code == 0
    assert json.loads(out)["members"] == 2
    assert "this is where its first member looked" in told
    digest = opened(site / "state" / "vqa", with_digest=True).digest
    (own / "member-2").rename(own / "member-3")
    (own / "ensemble.json").unlink()
    (own / "model.safetensors").touch()
    assert opened(site / "state" / "vqa", with_digest=True).digest != digest, "the log names all members"
    (own / "member-3").rename(own / "member-2")
    (own / "ensemble.json").write_text('{"version": 1, "members": ["member-2"]}')
    assert called("evaluate", site, "--out", tmp_path)[0] == 0
    card = json.loads((tmp_path / "evaluation.json").read_text())
    assert (card["selection"], card["scores"]["overall"]["n"]) == (selection, 24)
    code, _, told = called("evaluate", site, "--method", "generate", "--out", tmp_path)
    assert code == 2
    assert "an ensemble answers by the mean over its list" in told


def test_steps_of_several_members_are_told_as_those_of_one_fine_tuning(site, encoders, tmp_path):
    begun, done = [], []
    finetune_members(
        open_folder(site),
        [encoders, encoders],
        tmp_path / "out",
        SETTINGS,
        0,
        on_start=begun.append,
        on_step=lambda step, loss: done.append(step),
    )
    assert (begun, done) == ([8], [1, 2, 3, 4, 5, 6, 7, 8])


def test_a_model_that_may_leave_is_one(called, site, encoders, tmp_path):
    models = ("--model", encoders, "--model", encoders)
    code, _, told = called("finetune", site, *models, "--private", "--out", tmp_path / "out")
    assert code == 2
    assert "give one --model" in " ".join(told.replace("│", " ").split())
