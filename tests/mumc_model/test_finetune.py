from dataclasses import replace
from fnmatch import fnmatch

import numpy as np
import pytest
import torch
from PIL import Image

from mumc_model.adapters import ADAPTED
from mumc_model.answering import answer_questions, rank_questions
from mumc_model.checkpoint import load_weights, save_weights
from mumc_model.config import FinetuneConfig, ModelConfig, OptimizerConfig, Recipe, TextConfig, VisionConfig
from mumc_model.data.records import read_site
from mumc_model.data.samples import VqaSamples
from mumc_model.data.site_writer import SiteWriter
from mumc_model.data.tokenizer import Tokenizer
from mumc_model.errors import ConfigError, DataError, DivergedError
from mumc_model.evaluate import score
from mumc_model.finetune import VqaData, finetune
from mumc_model.model import build_model
from mumc_model.privacy import AdapterConfig, PrivacyConfig, PrivateFinetuneConfig
from mumc_model.views import ImageTokens
from mumc_model.vqa import VqaModel

WORDS = "how bright is it which half very dark left right"
TOKENIZER = Tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split()])
CONFIG = ModelConfig(
    vision=VisionConfig(image_size=16, patch_size=8, width=16, depth=1, heads=2),
    text=TextConfig(width=16, text_layers=1, fusion_layers=1, heads=2, vocab_size=TOKENIZER.size, max_positions=16),
    projection=8,
)
RECIPE = Recipe(
    model=CONFIG,
    finetune=FinetuneConfig(
        optimizer=OptimizerConfig(lr=1e-2, weight_decay=0.0, clip_norm=1.0),
        steps=40,
        batch_size=8,
        question_tokens=8,
        answer_tokens=5,
        distill=0.0,
        select_every=20,
    ),
)
CPU = torch.device("cpu")
SPLITS = {"train": 24, "val": 12, "test": 12}


def picture(bright, left, seed):
    pixels = np.random.default_rng(seed).integers(0, 40, (16, 16)).astype(np.uint8)
    half = slice(0, 8) if left else slice(8, 16)
    pixels[:, half] += 200 if bright else 60
    return Image.fromarray(pixels)


def write_site(root, splits=SPLITS):
    """Two questions an image; no question can be answered without looking."""
    with SiteWriter(root, "clinic", unit="image") as writer:
        for split, images in splits.items():
            for number in range(images):
                bright, left = number % 2 == 0, number // 2 % 2 == 0
                image = writer.add_image(picture(bright, left, number + 100 * len(split)), f"{split}{number}")
                for question, answer, kind in (
                    ("How bright is it?", "very bright" if bright else "dark", "light"),
                    ("Which half?", "left" if left else "right", "side"),
                ):
                    writer.add_question(
                        image, question, answer, answer_type="OPEN", question_type=kind, split=split, patient_id=image
                    )
    return read_site(root)


def samples_of(site):
    return VqaData(**{split: VqaSamples(site, split, TOKENIZER, 16, 8) for split in SPLITS})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return samples_of(write_site(tmp_path_factory.mktemp("site")))


def tuned(data, *, seed=0, on_step=None, **options):
    recipe = replace(RECIPE, finetune=replace(RECIPE.finetune, **options))
    return finetune(build_model(CONFIG, 0), data, TOKENIZER, recipe, device=CPU, seed=seed, on_step=on_step)


def accuracy(result, samples):
    return score(answer_questions(result.model, result.candidates, samples, device=CPU))["overall"]["accuracy"]


@pytest.mark.parametrize("freeze", ["none", "vision"])
def test_a_question_that_only_the_image_answers_is_learned(data, freeze):
    result = tuned(data, steps=60, freeze=freeze)
    metrics = score(answer_questions(result.model, result.candidates, data.test, device=CPU))
    assert metrics["by_question_type"]["light"]["accuracy"] == 1.0


@pytest.mark.parametrize("freeze", ["none", "vision", "encoders"])
def test_what_is_frozen_keeps_the_merged_weights_and_the_rest_moves(data, freeze):
    result = tuned(data, freeze=freeze, steps=2)
    start = VqaModel.of_encoders(build_model(CONFIG, 0), RECIPE.finetune).weights()
    parts = {
        part
        for name, weight in result.model.weights().items()
        if not torch.equal(weight, start[name])
        for part in [name.split(".")[0]]
    }
    frozen = {"none": set(), "vision": {"visual_encoder"}, "encoders": {"visual_encoder", "text_encoder"}}[freeze]
    assert parts == {"visual_encoder", "text_encoder", "text_decoder"} - frozen


@pytest.mark.parametrize("freeze", ["none", "vision"])
def test_adapters_change_the_encoders_matrices_by_their_rank_and_nothing_else_of_them(data, freeze):
    result = tuned(data, steps=3, freeze=freeze, adapters=AdapterConfig(rank=2))
    start = VqaModel.of_encoders(build_model(CONFIG, 0), RECIPE.finetune).weights()
    found = result.model.weights()
    assert found.keys() == start.keys()
    moved = {name for name, weight in found.items() if not torch.equal(weight, start[name])}
    encoders = {name for name in moved if not name.startswith("text_decoder.")}
    expected = {name for name in start if any(fnmatch(name, pattern) for pattern in ADAPTED)}
    expected = {name for name in expected if freeze == "none" or name.startswith("text_encoder.")}
    assert encoders == expected
    for name in encoders:
        assert torch.linalg.matrix_rank(found[name] - start[name], rtol=1e-3) <= 2, name
    assert moved > encoders


def test_a_model_with_folded_adapters_answers_as_it_did_when_it_was_chosen_and_is_saved_as_any_other(data, tmp_path):
    result = tuned(data, steps=40, adapters=AdapterConfig(rank=4))
    assert accuracy(result, data.val) == result.validation_accuracy
    result.model.save_pretrained(tmp_path, tokenizer=TOKENIZER, facts={})
    again = VqaModel.from_pretrained(tmp_path).weights()
    assert all(torch.equal(weight, again[name]) for name, weight in result.model.weights().items())


def test_adapters_learn_what_only_the_image_answers(data):
    result = tuned(data, steps=60, adapters=AdapterConfig(rank=4))
    metrics = score(answer_questions(result.model, result.candidates, data.test, device=CPU))
    assert metrics["by_question_type"]["light"]["accuracy"] == 1.0


def test_adapters_are_drawn_from_the_seed_and_leave_the_process_s_random_state(data):
    state = torch.get_rng_state()
    first, again = (tuned(data, steps=2, adapters=AdapterConfig(rank=2)).model.weights() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weight, again[name]) for name, weight in first.items())


def test_adapters_of_frozen_encoders_are_refused():
    with pytest.raises(ConfigError, match="nothing is left to adapt"):
        replace(RECIPE.finetune, freeze="encoders", adapters=AdapterConfig(rank=2))


@pytest.mark.parametrize("options", [{"adapters": AdapterConfig(rank=2)}, {"examples": 8}])
def test_private_fine_tuning_refuses_what_it_would_ignore(options):
    privacy = PrivacyConfig(unit="patient", finetune=PrivateFinetuneConfig(release="metrics"))
    with pytest.raises(ConfigError, match=r"knows neither finetune\.adapters nor finetune\.examples"):
        replace(RECIPE, privacy=privacy, finetune=replace(RECIPE.finetune, **options))


def test_few_questions_are_whole_images_and_a_larger_draw_holds_the_smaller(data):
    draws = {count: data.train.few(count, seed=5) for count in (4, 7, 16, 400)}
    for count, few in draws.items():
        assert len(few) == min(count, len(data.train))
        assert len(few.unique_image_keys) == -(-len(few) // 2)
        rows = list(zip(few.image_keys, few.questions, few.answers, strict=True))
        whole = list(zip(data.train.image_keys, data.train.questions, data.train.answers, strict=True))
        assert rows == [row for row in whole if row in rows]
        assert [few.unique_image_keys[image] for image in few.image_of_N.tolist()] == list(few.image_keys)
    keys = [set(few.image_keys) for few in draws.values()]
    assert keys[0] < keys[1] < keys[2] < keys[3]
    assert set(data.train.few(4, seed=6).image_keys) != keys[0]


def test_few_questions_show_the_images_and_words_that_they_have_among_all(data):
    few, place = data.train.few(6, seed=1), {key: i for i, key in enumerate(data.train.unique_image_keys)}
    of_all = torch.tensor([place[key] for key in few.unique_image_keys])
    assert torch.equal(few.images(torch.arange(3)), data.train.images(of_all))
    for row, (key, question) in enumerate(zip(few.image_keys, few.questions, strict=True)):
        (among,) = (
            i for i in range(len(data.train)) if (data.train.image_keys[i], data.train.questions[i]) == (key, question)
        )
        assert torch.equal(few.ids_NL[row], data.train.ids_NL[among])


def test_only_the_drawn_examples_are_learned_from_and_all_training_answers_can_be_given(data):
    few = data.train.few(4, seed=0)
    result = tuned(data, steps=40, examples=4)
    assert (result.examples, set(result.candidates.texts)) == (4, set(data.train.answers))
    rows = answer_questions(result.model, result.candidates, few, device=CPU)
    assert all(row.correct for row in rows)
    drawn = finetune(
        build_model(CONFIG, 0), replace(data, train=few), TOKENIZER, RECIPE, device=CPU, seed=0
    ).model.weights()
    assert all(torch.equal(weight, drawn[name]) for name, weight in result.model.weights().items())


def test_the_pretrained_model_is_left_as_it_was(data):
    model = build_model(CONFIG, 0)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    finetune(model, data, TOKENIZER, replace(RECIPE, finetune=replace(RECIPE.finetune, steps=2)), device=CPU, seed=0)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(weight.requires_grad for weight in model.text_encoder.parameters())


def test_keeping_image_tokens_changes_no_answer(data):
    result = tuned(data, freeze="vision", steps=5)
    kept, fresh = (ImageTokens(result.model, data.test, CPU, keep=keep) for keep in (True, False))
    ranked = [rank_questions(result.model, result.candidates, data.test, tokens) for tokens in (kept, fresh)]
    torch.testing.assert_close(*ranked)


def test_questions_in_blocks_keep_their_order(data, monkeypatch):
    result = tuned(data, steps=5)
    whole = answer_questions(result.model, result.candidates, data.test, device=CPU)
    monkeypatch.setattr("mumc_model.views._QUESTIONS", 3)
    parts = answer_questions(result.model, result.candidates, data.test, device=CPU)
    assert [row.prediction for row in parts] == [row.prediction for row in whole]
    assert [row.truth for row in whole] == list(data.test.answers)
    assert [row.image for row in whole] == list(data.test.image_keys)


def test_the_same_seed_gives_the_same_weights_and_another_seed_does_not(data):
    first, again, other = (tuned(data, steps=3, seed=seed).model.weights() for seed in (1, 1, 2))
    assert all(torch.equal(weight, again[name]) for name, weight in first.items())
    assert any(not torch.equal(weight, other[name]) for name, weight in first.items())


def test_dropout_is_drawn_from_the_seed_and_leaves_the_process_s_random_state(data):
    config = replace(CONFIG, text=replace(CONFIG.text, dropout=0.2))
    recipe = replace(RECIPE, model=config, finetune=replace(RECIPE.finetune, steps=3))
    runs = []
    for _ in range(2):
        state = torch.get_rng_state()
        result = finetune(build_model(config, 0), data, TOKENIZER, recipe, device=CPU, seed=3)
        assert torch.equal(torch.get_rng_state(), state)
        torch.rand(5)
        runs.append(result.model.weights())
    assert all(torch.equal(weight, runs[1][name]) for name, weight in runs[0].items())


def test_the_step_that_validates_best_is_kept(data):
    result = tuned(data, steps=30, select_every=10)
    best = max(accuracy for _, accuracy in result.looks)
    assert [step for step, _ in result.looks] == [10, 20, 30]
    assert result.validation_accuracy == best
    assert (result.best_step, best) in result.looks
    assert accuracy(result, data.val) == best


def test_an_earlier_step_is_restored_when_later_ones_spoil_the_model(data, monkeypatch):
    monkeypatch.setattr("mumc_model.finetune.learning_rate", lambda step, *_: 1e-2 if step < 40 else 10.0)
    result = tuned(data, steps=60, freeze="vision")
    good = max(accuracy for _, accuracy in result.looks[:2])
    assert good > result.looks[2][1]
    assert result.best_step in (20, 40)
    assert accuracy(result, data.val) == result.validation_accuracy == good


def test_the_test_split_takes_no_part(data):
    blind = replace(data, test=data.val)
    seen, unseen = tuned(data, steps=3), tuned(blind, steps=3)
    weights = unseen.model.weights()
    assert all(torch.equal(weight, weights[name]) for name, weight in seen.model.weights().items())


def test_only_training_answers_are_candidates(data):
    assert set(tuned(data, steps=1).candidates.texts) == {"very bright", "dark", "left", "right"}


def test_without_validation_questions_the_last_step_is_kept(tmp_path):
    data = samples_of(write_site(tmp_path, {"train": 4, "test": 2}))
    result = tuned(data, steps=3)
    assert (result.best_step, result.validation_accuracy, result.looks) == (3, None, ())
    assert len(answer_questions(result.model, result.candidates, data.val, device=CPU)) == 0


def test_without_training_questions_the_site_is_told_what_to_add(tmp_path):
    data = samples_of(write_site(tmp_path, {"test": 2}))
    with pytest.raises(DataError, match="train split"):
        tuned(data)


def test_a_teacher_is_built_only_where_it_weighs_something(data, monkeypatch):
    built = []
    monkeypatch.setattr(
        "mumc_model.lesson.AnswerTeacher", lambda model, momentum: built.append(momentum) or _Teacher(model)
    )
    tuned(data, steps=2, distill=0.0)
    assert built == []
    tuned(data, steps=2, distill=0.4, momentum=0.9)
    assert built == [0.9]


class _Teacher:
    def __init__(self, model):
        self.model = model

    def update(self):
        pass


@pytest.mark.parametrize("freeze", ["none", "vision", "encoders"])
def test_distilled_training_runs_with_every_kind_of_freezing(data, freeze):
    result = tuned(data, steps=3, freeze=freeze, distill=0.4)
    assert result.loss == pytest.approx(result.loss)


def test_half_precision_follows_single_precision(data):
    recipe = replace(RECIPE, finetune=replace(RECIPE.finetune, steps=5))
    single, half = (
        finetune(build_model(CONFIG, 0), data, TOKENIZER, recipe, device=CPU, precision=precision, seed=0)
        for precision in ("fp32", "bf16")
    )
    assert half.loss == pytest.approx(single.loss, rel=0.02)
    assert half.loss != single.loss
    rows = answer_questions(half.model, half.candidates, data.test, device=CPU, precision="bf16")
    assert len(rows) == len(data.test)


def test_a_loss_that_is_no_number_stops_the_training(data, monkeypatch):
    monkeypatch.setattr("mumc_model.finetune.learning_rate", lambda *_: float("inf"))
    with pytest.raises(DivergedError, match=r"at step 2.*clip gradients"):
        tuned(data, steps=3)


def test_every_step_is_reported_with_its_loss(data):
    steps = []
    result = tuned(data, steps=4, on_step=lambda step, loss: steps.append((step, loss)))
    assert [step for step, _ in steps] == [1, 2, 3, 4]
    assert result.loss == pytest.approx(sum(loss for _, loss in steps) / 4, rel=1e-5)


def test_an_answering_model_survives_a_file(data, tmp_path):
    result = tuned(data, steps=3)
    save_weights(tmp_path / "vqa.safetensors", result.model.weights())
    again = VqaModel(CONFIG, RECIPE.finetune)
    again.fill(load_weights(tmp_path / "vqa.safetensors"), "the weights")
    before, after = (
        answer_questions(model, result.candidates, data.test, device=CPU) for model in (result.model, again)
    )
    assert before == after


def test_confidences_are_probabilities_among_the_candidates(data):
    result = tuned(data, steps=3)
    probability = rank_questions(result.model, result.candidates, data.test, ImageTokens(result.model, data.test, CPU))
    torch.testing.assert_close(probability.sum(1), torch.ones(len(data.test)))
    rows = answer_questions(result.model, result.candidates, data.test, device=CPU)
    assert [row.confidence for row in rows] == pytest.approx(probability.max(1).values.tolist())
