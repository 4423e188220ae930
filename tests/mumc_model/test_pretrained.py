import json

import pytest
import torch
from transformers import BertTokenizer

from mumc_model.checkpoint import load_weights, save_weights
from mumc_model.config import FinetuneConfig
from mumc_model.data.tokenizer import vocabulary
from mumc_model.errors import CheckpointError
from mumc_model.model import MumcModel, build_model
from mumc_model.pretrained import load_tokenizer, read_config
from mumc_model.vqa import VqaModel


@pytest.fixture
def tokenizer():
    return vocabulary("phantom")


@pytest.fixture
def model(small_config, tokenizer):
    text = small_config.text.__class__(**{**vars(small_config.text), "vocab_size": len(tokenizer.vocab)})
    return build_model(small_config.__class__(**{**vars(small_config), "text": text}), 3)


@pytest.fixture
def folder(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path / "model", tokenizer=tokenizer, facts={"rounds": 40})
    return tmp_path / "model"


def same(a, b):
    ours, theirs = dict(a.named_parameters()), dict(b.named_parameters())
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def change(folder, **values):
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps(config))


def test_a_model_comes_back_as_it_was_saved(model, folder):
    again = MumcModel.from_pretrained(folder)
    assert same(again, model)
    assert again.config == model.config
    assert not again.training


def test_an_answering_model_comes_back_with_its_decoder(model, tmp_path):
    vqa = VqaModel.of_encoders(model, FinetuneConfig(image_size=64, decoder_layers=1))
    vqa.save_pretrained(tmp_path)
    again = VqaModel.from_pretrained(tmp_path)
    assert same(again, vqa)
    assert again.finetune == vqa.finetune


def test_the_folder_holds_what_hugging_face_users_expect(folder, tokenizer):
    assert {"config.json", "model.safetensors", "vocab.txt", "README.md"} <= {path.name for path in folder.iterdir()}
    theirs = BertTokenizer.from_pretrained(folder)
    text = "a large mass in the left lung"
    assert theirs(text)["input_ids"] == tokenizer.captions([text], 25)[0][0].tolist()
    assert load_tokenizer(folder).vocab == tokenizer.vocab


def test_the_card_states_the_facts_of_the_run_and_its_limits(folder):
    card = (folder / "README.md").read_text()
    assert "| rounds | 40 |" in card
    assert "not a medical device" in card


def test_tied_weights_are_stored_once(folder):
    names = load_weights(folder / "model.safetensors").keys()
    assert not any("predictions.decoder" in name for name in names)


def test_weights_left_out_are_named_in_the_folder_and_no_fault(model, tmp_path):
    model.save_pretrained(tmp_path, left_out=["text_encoder.cls."])
    assert read_config(tmp_path)["left_out"] == ["text_encoder.cls."]
    assert "not stored" in (tmp_path / "README.md").read_text()
    again = MumcModel.from_pretrained(tmp_path)
    assert torch.equal(again.temp, model.temp)


@pytest.mark.parametrize("fault", ["missing", "unexpected", "of another shape"])
def test_weights_that_do_not_fit_are_listed_and_refused(folder, fault):
    weights = load_weights(folder / "model.safetensors")
    if fault == "missing":
        del weights["temp"]
    else:
        weights["temp" if fault == "of another shape" else "extra"] = torch.zeros(2)
    save_weights(folder / "model.safetensors", weights)
    config = read_config(folder)
    del config["weights_sha256"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=f"1 {fault}: {'extra' if fault == 'unexpected' else 'temp'}"):
        MumcModel.from_pretrained(folder)
    if fault != "of another shape":
        MumcModel.from_pretrained(folder, missing=["temp"], unexpected=["extra"])


def test_weights_of_another_save_are_noticed(model, folder):
    weights = load_weights(folder / "model.safetensors")
    save_weights(folder / "model.safetensors", {name: weight + 1 for name, weight in weights.items()})
    with pytest.raises(CheckpointError, match="is not the one"):
        MumcModel.from_pretrained(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "bert"}, "another kind"),
        ({"format_version": 9}, "of format 9"),
        ({"architectures": ["VqaModel"]}, "not a MumcModel"),
        ({"model": {"visoin": {}}}, "did you mean 'vision'"),
    ],
)
def test_a_folder_of_something_else_is_refused_by_name(folder, values, message):
    change(folder, **values)
    with pytest.raises(CheckpointError, match=message):
        MumcModel.from_pretrained(folder)


def test_a_folder_without_a_model_or_a_vocabulary_says_what_is_missing(model, tmp_path):
    with pytest.raises(CheckpointError, match="has no readable config"):
        MumcModel.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"has no vocab.txt; put the vocabulary of \d+ tokens"):
        load_tokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    with pytest.raises(CheckpointError, match="has 5 tokens"):
        load_tokenizer(tmp_path)
