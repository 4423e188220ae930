"""What an engineer types about models and answers, from encoders to an evaluated model, on one small site."""

import json
import re
import shutil
import sys

import pytest

from client.cli import main
from client.vqa.evaluate import keep_answers
from mumc_model.checkpoint import load_weights
from mumc_model.config import ModelConfig, TextConfig, VisionConfig
from mumc_model.model import build_model
from mumc_model.pretrained import read_config


@pytest.fixture(scope="module")
def site(untouched, encoders, tmp_path_factory):
    """A site that has fine-tuned at its own command line; tests only read it."""
    folder = shutil.copytree(untouched, tmp_path_factory.mktemp("own") / "site")
    with pytest.MonkeyPatch.context() as patch:
        arguments = [str(folder), "finetune.steps=4", "finetune.select_every=2", "finetune.freeze=none"]
        patch.setattr(sys, "argv", ["mumc-site", "finetune", *arguments, "--model", str(encoders)])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    return folder


def image_of(folder):
    return sorted((folder / "images").rglob("*.*"))[0]


def test_fine_tuning_leaves_a_model_folder_in_the_site_with_how_it_was_chosen(site):
    config = read_config(site / "state" / "vqa")
    assert config["architectures"] == ["VqaModel"]
    assert config["facts"]["selection"] == "the best of 2 looks at 10 validation questions"
    assert json.loads((site / "state" / "vqa" / "answers.json").read_text())["answers"]


def test_adapters_and_few_examples_leave_a_model_like_any_other(called, site, encoders, tmp_path):
    few = ("finetune.adapters.rank=2", "finetune.freeze=none", "finetune.examples=6", "finetune.steps=2")
    code, _, _ = called("finetune", site, *few, "--model", encoders, "--out", tmp_path / "model")
    assert code == 0
    config, plain = read_config(tmp_path / "model"), read_config(site / "state" / "vqa")
    assert config["facts"]["training questions"] == 6
    weights, others = (
        load_weights(folder / "model.safetensors") for folder in (tmp_path / "model", site / "state" / "vqa")
    )
    assert {name: w.shape for name, w in weights.items()} == {name: w.shape for name, w in others.items()}
    answers = [
        json.loads((f / "answers.json").read_text())["answers"] for f in (tmp_path / "model", site / "state" / "vqa")
    ]
    assert answers[0] == answers[1]
    assert plain["facts"]["training questions"] > 6
    assert called("evaluate", site, "--model", tmp_path / "model", "--out", tmp_path)[0] == 0


@pytest.mark.parametrize("method", ["rank", "generate"])
def test_an_evaluation_states_what_it_measured_and_how(called, site, tmp_path, method):
    code, out, _ = called("evaluate", site, "--method", method, "--normaliser", "clinical", "--out", tmp_path)
    assert code == 0
    card = json.loads((tmp_path / "evaluation.json").read_text())
    assert (card["scores"]["overall"]["n"], card["normaliser"], card["protocol"]["names"]) == (24, "clinical", ["own"])
    assert card["method"].startswith(method)
    assert (card["out_of_list"] is None) == (method == "generate")
    assert {"majority", "question_only", "blank_image", "shuffled_image"} == card["beside"].keys()
    for part in ("24 questions", "clinical", "best of 2 looks", "95 %"):
        assert part in out
    assert (tmp_path / "evaluation.svg").is_file()


def test_an_evaluation_that_is_stopped_leaves_nothing_of_the_one_before_beside_its_answers(called, site, tmp_path):
    assert called("evaluate", site, "--out", tmp_path)[0] == 0
    assert {path.name for path in tmp_path.iterdir()} > {"evaluation.json", "evaluation.md", "evaluation.svg"}
    keep_answers([], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["answers.jsonl"]


def test_encoders_are_asked_zero_shot_and_for_retrieval(called, site, encoders, tmp_path):
    code, out, _ = called("evaluate", site, "--model", encoders, "--out", tmp_path)
    assert code == 0
    assert len(re.findall(r"R@1 \d+\.\d \(.*n = \d+ queries", out)) == 2
    assert json.loads((tmp_path / "evaluation.json").read_text())["method"] == "zero-shot"


def test_a_question_is_answered_with_probabilities(called, site):
    code, out, _ = called(
        "ask", image_of(site), "which organ is shown", "--model", site / "state" / "vqa", "--top", "3"
    )
    assert code == 0
    assert len(re.findall(r"\d+\.\d %", out)) == 3
    code, out, _ = called(
        "ask", image_of(site), "is there a mass", "--model", site / "state" / "vqa", "--method", "generate"
    )
    assert code == 0


def test_encoders_weigh_the_answers_that_are_given(called, site, encoders):
    answers = ["--answer", "yes", "--answer", "no"]
    code, out, _ = called("ask", image_of(site), "is there a mass", "--model", encoders, *answers)
    assert code == 0
    shares = [float(share) for share in re.findall(r"(\d+\.\d) %", out)]
    assert sum(shares) == pytest.approx(100, abs=0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ask", "{image}", "which organ", "--model", "{encoders}"], "can only weigh answers"),
        (["ask", "{site}/site.yaml", "which organ", "--model", "{site}/state/vqa"], "cannot be used"),
        (["ask", "{image}", "which organ", "--model", "{site}"], "is no model folder"),
        (["evaluate", "{site}", "--method", "zero-shot"], "choose rank or generate"),
        (["evaluate", "{site}", "--model", "{encoders}", "--method", "rank"], "choose zero-shot"),
        (["evaluate", "{site}", "--normaliser", "clincal"], "did you mean clinical"),
        (["evaluate", "{site}", "--split", "tset"], "no tset questions"),
        (["finetune", "{site}", "finetune.setps=3", "--model", "{encoders}"], "did you mean 'finetune.steps'"),
        (["finetune", "{site}", "--model", "{site}/state/vqa"], "holds a VqaModel, not a MumcModel"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_with_the_remedy(called, site, encoders, arguments, message):
    places = {"site": site, "encoders": encoders, "image": image_of(site)}
    code, _, err = called(*(argument.format(**places) for argument in arguments))
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_an_imported_checkpoint_without_a_vocabulary_says_what_to_put_where(called, tmp_path, encoders):
    import torch

    weights = dict(build_model(ModelConfig(**_golden_like()), 0).state_dict())
    torch.save({"model": weights}, tmp_path / "mumc.pth")
    code, out, _ = called("import-checkpoint", tmp_path / "mumc.pth", tmp_path / "model", "--heads", "2")
    assert code == 0
    assert "has no vocabulary yet" in out
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcde"]) + "\n")
    code, out, _ = called("import-checkpoint", tmp_path / "mumc.pth", tmp_path / "again", "--heads", "2")
    assert (code, "has no vocabulary" in out) == (0, False)
    assert (tmp_path / "again" / "vocab.txt").is_file()
    code, _, err = called(
        "import-checkpoint",
        tmp_path / "mumc.pth",
        tmp_path / "other",
        "--heads",
        "2",
        "--vocabulary",
        encoders / "vocab.txt",
    )
    assert code == 2
    assert "the checkpoint 10" in err


def _golden_like():
    return {
        "vision": VisionConfig(image_size=32, patch_size=16, width=16, depth=1, heads=2),
        "text": TextConfig(width=16, text_layers=1, fusion_layers=1, heads=2, vocab_size=10, max_positions=8),
        "projection": 8,
    }
