import itertools

import pytest
import torch

from mumc_model.config import FinetuneConfig
from mumc_model.generate import generate
from mumc_model.model import build_model
from mumc_model.vqa import VqaModel

CLS, SEP = 2, 3


@pytest.fixture
def model(small_config):
    model = build_model(small_config, 0)
    with torch.no_grad():
        for index, weight in enumerate(model.parameters()):
            weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(index)))
    return VqaModel.of_encoders(model, FinetuneConfig()).eval()


@pytest.fixture
def asked(model):
    ids = torch.tensor([[2, 20, 21, 22], [2, 23, 0, 0], [2, 30, 31, 0]])
    image = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return model.question_states(model.visual_encoder(image), ids, ids.ne(0).long()), ids.ne(0).long()


def log_probability(model, state, mask, ids):
    """Sum of log-probabilities of an answer that is read whole, without any cache."""
    answer = torch.tensor([[CLS, *ids, 0]])
    with torch.no_grad():
        logits = model.answer_logits(state[None], mask[None], answer, torch.ones_like(answer, dtype=torch.bool))
    picked = logits.log_softmax(1)[torch.arange(len(ids)), torch.tensor(ids)]
    return float(picked.sum())


def test_greedy_takes_the_likeliest_token_that_a_reading_without_cache_gives(model, asked):
    states, masks = asked
    found = generate(model, states, masks, cls_id=CLS, sep_id=SEP, max_tokens=6)
    for row, (state, mask) in enumerate(zip(states, masks, strict=True)):
        ids = []
        while len(ids) < 5 and SEP not in ids:
            answer = torch.tensor([[CLS, *ids, 0]])
            with torch.no_grad():
                logits = model.answer_logits(state[None], mask[None], answer, torch.ones_like(answer).bool())
            ids.append(int(logits[-1].argmax()))
        assert found.ids[row] == [token for token in ids if token != SEP]
        assert float(found.probability_B[row].log()) == pytest.approx(
            log_probability(model, state, mask, ids), abs=1e-4
        )


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_beam_as_wide_as_the_vocabulary_finds_the_best_of_all_short_answers(model, asked, penalty):
    states, masks = asked
    found = generate(model, states, masks, cls_id=CLS, sep_id=SEP, max_tokens=3, beams=40, length_penalty=penalty)
    answers = torch.tensor([[CLS, a, b, 0] for a, b in itertools.product(range(40), repeat=2)])
    ends_at_once = answers[:, 1] == SEP
    for row, (state, mask) in enumerate(zip(states, masks, strict=True)):
        with torch.no_grad():
            logits = model.answer_logits(
                state.expand(1600, -1, -1), mask.expand(1600, -1), answers, torch.ones_like(answers).bool()
            ).view(1600, 3, 40)
        steps = logits.log_softmax(2).gather(2, answers[:, 1:, None])[:, :2, 0]
        sums = torch.where(ends_at_once, steps[:, 0], steps.sum(1))
        scores = sums / torch.where(ends_at_once, 1, 2) ** penalty
        best = answers[scores.argmax(), 1:3].tolist()
        assert found.ids[row] == ([] if best[0] == SEP else [token for token in best if token != SEP])


def test_more_beams_never_find_a_less_likely_answer(model, asked):
    narrow, wide = (
        generate(model, *asked, cls_id=CLS, sep_id=SEP, max_tokens=4, beams=beams, length_penalty=0.0)
        for beams in (1, 64)
    )
    assert (wide.probability_B >= narrow.probability_B - 1e-6).all()


def test_questions_are_answered_alike_alone_and_together(model, asked):
    states, masks = asked
    together = generate(model, states, masks, cls_id=CLS, sep_id=SEP, max_tokens=5, beams=3)
    for row in range(3):
        alone = generate(
            model, states[row : row + 1], masks[row : row + 1], cls_id=CLS, sep_id=SEP, max_tokens=5, beams=3
        )
        assert alone.ids[0] == together.ids[row]
