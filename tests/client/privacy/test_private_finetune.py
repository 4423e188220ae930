"""Private steps of fine-tuning: each question's loss is its own, each patient counts once, what learns is noised."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from client.privacy.deferred import DeferredGradients
from client.privacy.errors import CouplingError
from client.privacy.finetune_train import hold_words
from client.privacy.optimizer import PrivateOptimizer
from client.privacy.questions import PrivateQuestions, learning_questions, unit_names
from client.site import open_folder
from mumc_model.data.splits import with_validation
from mumc_model.data.tokenizer import vocabulary
from mumc_model.errors import ConfigError
from mumc_model.model import build_model
from mumc_model.privacy import AdapterConfig
from mumc_model.vqa import VqaModel, answer_loss
from tests.client.privacy.answering import EXPECTED, FREEZES, questions_of, recipe, trainer_of, units_of
from tests.client.privacy.mechanism import (
    CPU,
    WAYS,
    check_bounded,
    check_same_as_loop,
    clipped,
    way_of,
    without,
)

STEMS = ("linear", "conv")
SEEN = {
    "random": lambda seen, row: seen,
    "blank": lambda seen, row: torch.zeros_like(seen),
    "extreme": lambda seen, row: 1e4 * seen,
    "all the same": lambda seen, row: seen[row].expand_as(seen).clone(),
    "not a number": lambda seen, row: seen.index_fill(0, torch.tensor([row]), torch.nan),
}


@cache
def tried(freeze, stem="linear"):
    return trainer_of(recipe(freeze, stem=stem), double=True)


@pytest.mark.parametrize("options", [{"adapters": AdapterConfig(rank=2)}, {"examples": 8}])
def test_settings_that_only_plain_fine_tuning_knows_are_refused(options):
    plain = recipe()
    with pytest.raises(ConfigError, match="set both to 0"):
        trainer_of(replace(plain, finetune=replace(plain.finetune, **options)))


def loss_of(trainer):
    return trainer._loss([])


def released(trainer, owners, rate, monkeypatch):
    """Lengths of what the steps release, times the public batch size."""
    lengths, kept = [], PrivateOptimizer.scale_grad

    def scale_grad(optimizer):
        kept(optimizer)
        squares = [weight.grad.double().square().sum() for weight in optimizer.params]
        lengths.append(float(torch.stack(squares).sum().sqrt()) * EXPECTED)

    monkeypatch.setattr(PrivateOptimizer, "scale_grad", scale_grad)
    trainer.run(questions_of(trainer, owners), rate)
    return lengths


@pytest.mark.parametrize("way", ["hooks", "opacus"])
@pytest.mark.parametrize(
    ("freeze", "stem"), [("none", "linear"), ("none", "conv"), ("vision", "linear"), ("encoders", "linear")]
)
def test_each_way_gives_the_clipped_sum_of_single_questions(way, freeze, stem):
    trainer = tried(freeze, stem)
    gradients, units = way_of(way, trainer.weights, [trainer.model]), units_of(trainer, 5, 1)
    norm_B = clipped(gradients, trainer.weights, loss_of(trainer), units, 1.0)[1]
    for clipping_norm in (float(norm_B.median()), 1e-3):
        check_same_as_loop(gradients, trainer.weights, loss_of(trainer), units, clipping_norm)


@pytest.mark.parametrize("freeze", FREEZES)
def test_a_question_s_loss_is_the_mean_over_its_answer_of_what_plain_fine_tuning_sums(freeze):
    trainer = tried(freeze)
    model, units = trainer.model, units_of(trainer, 4, 2)
    found_B = trainer.objective(units).tolist()
    for row in range(4):
        one = units.part(row, row + 1)
        asked, answered = int(one.mask_BL.sum()), int(one.answer_mask_BA.sum())
        ids, mask, answer = one.ids_BL[:, :asked], one.mask_BL[:, :asked], one.answer_BA[:, :answered]
        token_1SD = model.visual_encoder(one.seen) if freeze == "none" else one.seen
        state = one.seen[:, :asked] if freeze == "encoders" else model.question_states(token_1SD, ids, mask)
        learned = torch.arange(answered)[None] < answered - 1
        logits = model.answer_logits(state, mask, answer, learned)
        nats = answer_loss(logits, answer[0, 1:], None, 0.0, 1)
        assert found_B[row] == pytest.approx(nats.item() / (answered - 1), rel=1e-12)


@pytest.mark.parametrize("way", WAYS)
@given(
    freeze=st.sampled_from(FREEZES),
    count=st.integers(1, 4),
    row=st.integers(0, 3),
    seed=st.integers(0, 2**16),
    seen=st.sampled_from(list(SEEN)),
    same=st.booleans(),
    clipping_norm=st.sampled_from([1e-3, 1.0, 1e3]),
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_a_question_moves_the_clipped_sum_by_the_clipping_norm_at_most(
    way, freeze, count, row, seed, seen, same, clipping_norm
):
    trainer, row = tried(freeze), row % count
    units = units_of(trainer, count, seed)
    units = replace(units, seen=SEEN[seen](units.seen, row))
    if same:
        units = type(units)(*(tensor[row].expand_as(tensor).clone() for tensor in vars(units).values()))
    gradients = way_of(way, trainer.weights, [trainer.model])
    check_bounded(gradients, trainer.weights, loss_of(trainer), units, row, clipping_norm)


def test_a_question_far_above_the_clipping_norm_moves_the_sum_by_exactly_that():
    trainer, units = tried("vision"), units_of(tried("vision"), 4)
    gradients = DeferredGradients(trainer.weights, [trainer.model])
    whole, norm_B = clipped(gradients, trainer.weights, loss_of(trainer), units, 1e-4)
    fewer, _ = clipped(gradients, trainer.weights, loss_of(trainer), without(units, 2), 1e-4)
    assert norm_B.min() > 1e-3
    assert float((whole - fewer).norm()) == pytest.approx(1e-4, rel=1e-9)


def test_every_step_takes_one_question_of_each_drawn_patient():
    trainer, seen = trainer_of(recipe("encoders", steps=30)), []
    owners = [f"patient-{row // 3}" for row in range(12)]
    trainer.run(questions_of(trainer, owners, seen), 1.0)
    steps = [torch.cat(seen[first : first + 2]) for first in range(0, len(seen), 2)]
    assert len(steps) == trainer.steps_done == 30
    assert all(sorted(owners[row] for row in rows.tolist()) == sorted(set(owners)) for rows in steps)
    assert {row for rows in steps for row in rows.tolist()} == set(range(12))


@pytest.mark.parametrize("way", WAYS)
def test_a_step_without_patients_is_noise_in_every_coordinate_that_learns_and_in_no_other(way, monkeypatch):
    trainer = trainer_of(recipe("none", way=way, noise_multiplier=2.0, clipping_norm=0.5))
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    learn = set(trainer.weights)
    (length,) = released(trainer, "abc", 1e-15, monkeypatch)
    count = sum(weight.numel() for weight in trainer.weights.values())
    assert length == pytest.approx(2.0 * 0.5 * count**0.5, rel=5 / count**0.5)
    for name, weight in trainer.model.named_parameters():
        was = before.get(name, before.get("text_decoder.cls.predictions.decoder.bias"))
        assert float((was != weight).float().mean()) == pytest.approx(
            float(name in learn or name.endswith(".predictions.bias")), abs=0.03
        )
    still = {name for name in before if name not in learn}
    assert still == {
        "visual_encoder.cls_token",
        "visual_encoder.pos_embed",
        "text_decoder.bert.embeddings.word_embeddings.weight",
    }


def test_one_patient_s_release_is_as_long_as_the_clipping_norm_however_many_questions(monkeypatch):
    trainer = trainer_of(recipe("none", noise_multiplier=1e-9, clipping_norm=1e-2, steps=3))
    assert released(trainer, ["one"] * 5, 1.0, monkeypatch) == pytest.approx([1e-2] * 3, rel=1e-4)


def test_a_trained_model_has_the_names_and_the_tie_of_every_other(tmp_path):
    trainer = trainer_of(recipe("vision", steps=2))
    model = trainer.run(questions_of(trainer, "abcd"), 1.0)
    fresh = VqaModel(trainer.recipe.model, trainer.recipe.finetune)
    assert {n: w.shape for n, w in model.weights().items()} == {n: w.shape for n, w in fresh.weights().items()}
    assert (
        model.text_decoder.cls.predictions.decoder.weight is model.text_decoder.bert.embeddings.word_embeddings.weight
    )
    assert not model.training
    model.save_pretrained(tmp_path)
    again = VqaModel.from_pretrained(tmp_path)
    assert all(torch.equal(weight, again.weights()[name]) for name, weight in model.weights().items())


def test_a_decoder_whose_words_learn_is_refused_since_they_are_tied_to_its_head():
    settings = recipe("encoders")
    model = VqaModel.of_encoders(build_model(settings.model, 0), settings.finetune)
    model.freeze("encoders")
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    with pytest.raises(CouplingError, match=r"word_embeddings\.weight is used by two layers; untie it"):
        DeferredGradients(weights, [model])
    hold_words(model)
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    DeferredGradients(weights, [model])


def test_a_loss_that_mixes_questions_is_found_before_the_first_step(monkeypatch):
    from client.privacy.answer_objective import AnswerObjective

    whole = AnswerObjective._states

    def mixed(objective, batch):
        state_BLD = whole(objective, batch)
        return state_BLD + state_BLD.mean(dim=0, keepdim=True)

    monkeypatch.setattr(AnswerObjective, "_states", mixed)
    with pytest.raises(CouplingError, match="mixes units"):
        trainer_of(recipe("vision"))


@pytest.mark.parametrize("freeze", FREEZES)
def test_questions_are_padded_to_public_lengths_and_keep_what_they_say(freeze, untouched):
    tokenizer, site = vocabulary("phantom"), open_folder(untouched)
    settings = recipe(freeze)
    text = replace(settings.model.text, vocab_size=len(tokenizer.vocab))
    settings = replace(settings, model=replace(settings.model, text=text))
    model = VqaModel.of_encoders(build_model(settings.model, 0), settings.finetune)
    samples = learning_questions(site.data, tokenizer, 16, 7)
    units = PrivateQuestions(model, samples, tokenizer, "patient", CPU).batch(torch.arange(3), torch.Generator())
    assert (units.ids_BL.shape, units.mask_BL.shape) == ((3, 7), (3, 7))
    assert (units.answer_BA.shape, units.answer_mask_BA.shape) == ((3, 5), (3, 5))
    cut, _ = tokenizer.answers(samples.answers[:3], 5)
    assert [tokenizer.decode(row[1:]) for row in units.answer_BA] == [tokenizer.decode(row[1:]) for row in cut]
    tokens = 1 + settings.model.vision.patches
    assert units.seen.shape == {"none": (3, 3, 16, 16), "vision": (3, tokens, 16), "encoders": (3, 7, 16)}[freeze]


def test_one_patient_more_changes_the_questions_to_learn_from_by_that_patient_s_alone(untouched):
    site, tokenizer = open_folder(untouched), vocabulary("phantom")
    rows = tuple(replace(row, split="train") for row in site.data.vqa if row.split != "test")
    for gone in dict.fromkeys(row.patient_id for row in rows):
        learned = []
        for kept in (rows, tuple(row for row in rows if row.patient_id != gone)):
            data = with_validation(replace(site.data, vqa=kept))
            samples = learning_questions(data, tokenizer, 16, 7)
            learned.append(set(zip(samples.patient_ids, samples.questions, samples.answers, strict=True)))
        assert learned[1] == {row for row in learned[0] if row[0] != gone}


def test_the_unit_of_a_question_is_its_patient_or_its_image(untouched):
    samples = learning_questions(open_folder(untouched).data, vocabulary("phantom"), 16, 7)
    assert unit_names(samples, "patient") == samples.patient_ids
    assert unit_names(samples, "record") == samples.image_keys
