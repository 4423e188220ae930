"""A fine-tuning step: what it reads, what it asks the device for, and what it costs."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from mumc_model.lesson import Lesson, deal
from mumc_model.model import build_model
from mumc_model.vision import VisionEncoder
from mumc_model.vqa import AnswerTeacher, VqaModel
from tests.mumc_model.test_finetune import CONFIG, CPU, RECIPE, TOKENIZER, samples_of, write_site

FREEZES = ["none", "vision", "encoders"]


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    return samples_of(write_site(tmp_path_factory.mktemp("site"))).train


def settings(freeze):
    return replace(RECIPE.finetune, distill=0.4, momentum=0.5, freeze=freeze, batch_size=4)


def answering(config, device=CPU):
    model = VqaModel.of_encoders(build_model(CONFIG, 0), config).to(device)
    model.freeze(config.freeze)
    return model


@pytest.mark.parametrize("freeze", FREEZES)
def test_a_step_with_its_teacher_reads_nothing_from_the_device(train, freeze, monkeypatch):
    """Torch's `meta` device has no data, so whoever reads from it fails."""
    meta, config = torch.device("meta"), settings(freeze)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    lesson = Lesson(answering(config, meta), train, config, meta, "fp32")
    batches = deal(train, TOKENIZER, config, 0)
    for _ in range(2):
        loss = lesson.loss(next(batches), alpha=0.4)
        loss.backward()
        assert loss.device == meta


@pytest.mark.parametrize("freeze", FREEZES)
def test_a_batch_holds_the_answers_of_its_questions_and_no_end_is_learned_twice(train, freeze):
    batches, answers, images = deal(train, TOKENIZER, settings(freeze), 0), set(), set()
    for _ in range(len(train) // 4):
        batch = next(batches)
        for row, learned in zip(batch.answer_BA, batch.learned_BA, strict=True):
            text = row[: int(learned.sum()) + 1]
            assert (text[0], text[-1]) == (TOKENIZER.cls_id, TOKENIZER.sep_id)
            answers.add(TOKENIZER.decode(text.tolist()))
        assert len(batch.target_T) == int(batch.learned_BA.sum())
        images |= set(batch.seen.tolist()) if freeze != "none" else set()
    assert answers == set(train.answers)
    if freeze == "encoders":
        assert images == set(range(len(train)))
    if freeze == "vision":
        assert images == set(range(len(train.unique_image_keys)))


@pytest.mark.parametrize(("freeze", "encoded"), [("none", 2 * 4), ("vision", 0), ("encoders", 0)])
def test_what_is_frozen_is_encoded_before_the_first_step_and_never_again(train, freeze, encoded, monkeypatch):
    config, images, real = settings(freeze), [], VisionEncoder.forward
    lesson = Lesson(answering(config), train, config, CPU, "fp32")
    monkeypatch.setattr(VisionEncoder, "forward", lambda part, seen: images.append(len(seen)) or real(part, seen))
    lesson.loss(next(deal(train, TOKENIZER, config, 0)), alpha=0.4)
    assert sum(images) == encoded


def test_the_teacher_moves_once_a_weight_even_where_two_names_share_it():
    model = answering(settings("none"))
    teacher = AnswerTeacher(model, 0.5)
    words = teacher.model.text_decoder.bert.embeddings.word_embeddings.weight
    before = words.clone()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1.0)
    teacher.update()
    torch.testing.assert_close(words, before + 0.5)
    assert teacher.model.text_decoder.cls.predictions.decoder.weight is words
