import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mumc_model.candidates import AnswerTree, Candidates, Forest
from mumc_model.config import FinetuneConfig, ModelConfig, TextConfig, VisionConfig
from mumc_model.errors import ConfigError
from mumc_model.model import build_model
from mumc_model.ranking import (
    _log_sum,
    _log_sum_in_cache,
    _without_padding,
    begin,
    edge_log_probabilities,
    log_normaliser,
    read,
)
from mumc_model.vqa import AnswerTeacher, VqaModel, answer_loss

CONFIG = ModelConfig(
    vision=VisionConfig(image_size=32, patch_size=8, width=16, depth=1, heads=2),
    text=TextConfig(width=16, text_layers=1, fusion_layers=2, heads=2, vocab_size=30, max_positions=16),
    projection=8,
)
ANSWERS = [(5,), (6,), (5, 7), (5, 7, 8), (9, 9), (10, 11, 12)]
QUESTION = torch.tensor([[2, 20, 21, 22], [2, 23, 0, 0], [2, 20, 21, 22]])
QUESTION_MASK = (QUESTION != 0).long()


def pretrained(seed=0):
    model = build_model(CONFIG, seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    return model


def answering(**options):
    return VqaModel.of_encoders(pretrained(), FinetuneConfig(**options)).eval()


def images(count=3, side=32):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(2))


def tokens(answers=ANSWERS):
    rows = [[2, *answer, 3] for answer in answers]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    return ids, (ids != 0).long()


def states(model):
    return model.question_states(model.visual_encoder(images()), QUESTION, QUESTION_MASK)


def log_likelihood(model, state, mask, answer):
    """One answer to one question, token by token: what ranking may save work on but not change."""
    ids = torch.tensor([[2, *answer, 3]])
    logits = model.answer_logits(state[None], mask[None], ids, torch.ones_like(ids, dtype=torch.bool))
    return logits.log_softmax(1).gather(1, ids[0, 1:, None])[:, 0]


@pytest.mark.parametrize("scoring", ["mean", "sum", "compat"])
def test_ranking_in_one_pass_scores_each_answer_as_reading_it_alone_does(scoring):
    model = answering()
    with torch.no_grad():
        state = states(model)
        probability = model.rank(state, QUESTION_MASK, Candidates.build([""] * 6, *tokens()), scoring)
        for question in range(3):
            parts = [log_likelihood(model, state[question], QUESTION_MASK[question], answer) for answer in ANSWERS]
            score = {
                "mean": torch.stack([part.mean() for part in parts]),
                "sum": torch.stack([part.sum() for part in parts]),
                "compat": torch.stack([part.sum() + part[0] for part in parts]),
            }[scoring]
            torch.testing.assert_close(probability[question], score.softmax(0), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_whole_vocabulary_s_probabilities_come_to_1_in_either_precision(precision):
    model, tree = answering(), AnswerTree.build([(2, word) for word in range(30)])
    head = model.text_decoder.cls.predictions
    with torch.no_grad():
        head.decoder.weight.mul_(30)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            state = states(model)
            decoder, forest = model.text_decoder, Forest.of([tree])
            edge_BE = edge_log_probabilities(decoder, state, QUESTION_MASK, forest)
            read_BND = head.transform(read(decoder, begin(decoder, forest), forest, state, QUESTION_MASK)).float()
        root_BV = read_BND[:, 0] @ head.decoder.weight.T + head.bias
    assert tree.edge_node_E.tolist() == [0] * 30
    torch.testing.assert_close(edge_BE, root_BV.log_softmax(1)[:, tree.edge_token_E], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(edge_BE.exp().sum(1), torch.ones(3), atol=1e-5, rtol=0)


def test_ranking_in_small_blocks_changes_nothing(monkeypatch):
    model, candidates = answering(), Candidates.build([""] * 6, *tokens())
    state = states(model)
    whole = model.rank(state, QUESTION_MASK, candidates)
    monkeypatch.setattr("mumc_model.ranking._BLOCK_ROWS", 1)
    torch.testing.assert_close(model.rank(state, QUESTION_MASK, candidates), whole)


def shifted(shift, bias):
    """Two rows, 300 words whose logits lie about `shift` without their biases, and biases about `bias`."""
    generator = torch.Generator().manual_seed(0)
    rows, words, biases = (torch.randn(*shape, generator=generator) for shape in ((2, 5), (300, 5), (300,)))
    rows, words = (torch.cat([part, torch.ones(len(part), 1)], dim=1) for part in (rows, words))
    words[:, 5] = shift
    return rows, words, biases + bias


@pytest.mark.parametrize("shift", [-95.0, -60.0, 60.0, 95.0])
def test_a_sum_that_single_precision_cannot_hold_is_done_the_careful_way(shift):
    """The exponentials of all logits would be rounded away, or infinite; the ones between are done in the cache."""
    careful = not _log_sum_in_cache(*shifted(shift, 0.0)).isfinite().all()
    assert careful == (abs(shift) > 90)


@given(st.floats(-110, 110), st.one_of(st.floats(-13, 13), st.floats(-110, 110)))
@example(-100.0, 60.0)
@example(-98.0, 20.0)
@example(80.0, -100.0)
@settings(deadline=None, max_examples=100)
def test_the_sum_over_the_vocabulary_is_that_of_double_precision_however_large_logits_and_biases_are(shift, bias):
    rows, words, biases = shifted(shift, bias)
    found = log_normaliser(rows[None], words, biases)[0]
    expected = torch.nn.functional.linear(rows.double(), words.double(), biases.double()).logsumexp(1)
    torch.testing.assert_close(found, expected.float(), atol=5e-5, rtol=0)


@pytest.mark.parametrize("bias", [10.0, 20.0])
def test_a_bias_does_not_bring_back_what_was_rounded_away_of_a_whole_vocabulary(bias):
    words, biases = torch.ones(30522, 1), torch.full((30522,), bias)
    for logit in torch.linspace(-110, -75, 71):
        found = log_normaliser(logit.view(1, 1, 1), words, biases)[0, 0]
        torch.testing.assert_close(found, logit + bias + math.log(30522), atol=5e-5, rtol=0)


def test_padding_that_all_questions_share_is_not_looked_at_and_a_mask_is_made_only_where_one_is_shorter():
    state = states(answering())
    trimmed, mask = _without_padding(
        state, torch.tensor([[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0]])[:, : state.shape[1]]
    )
    assert (trimmed.shape[1], mask) == (min(3, state.shape[1]), None)
    ragged = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]])[:, : state.shape[1]]
    trimmed, mask = _without_padding(state, ragged)
    assert trimmed.shape[1] == 2
    assert mask[:, 0, 0].tolist() == [[True, True], [True, False], [True, True]]


def test_ranking_knows_a_word_whose_logit_is_far_above_all_others():
    """Its exponential is infinite in single precision, and finite in double."""
    model, candidates = answering(), Candidates.build([""] * 6, *tokens())
    with torch.no_grad():
        model.text_decoder.cls.predictions.bias[9] += 500.0
    single = model.rank(states(model), QUESTION_MASK, candidates, "sum")
    model.double()
    state = model.question_states(model.visual_encoder(images().double()), QUESTION, QUESTION_MASK)
    double = model.rank(state, QUESTION_MASK, candidates, "sum")
    torch.testing.assert_close(single, double.float(), atol=1e-6, rtol=1e-3)
    assert double[:, ANSWERS.index((9, 9))].min() > 0.99


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("most", [1, 40, 1 << 20])
def test_the_sum_over_the_vocabulary_is_that_of_torch_however_it_is_cut(monkeypatch, rows, most):
    generator = torch.Generator().manual_seed(rows)
    monkeypatch.setattr("mumc_model.ranking._CACHED_LOGITS", most)
    monkeypatch.setattr("mumc_model.ranking._BLOCK_LOGITS", most)
    given = [torch.randn(*shape, generator=generator) for shape in ((rows, 5), (300, 5), (300,))]
    expected = torch.nn.functional.linear(*given).logsumexp(1)
    for found in (_log_sum(*given), _log_sum_in_cache(*given)):
        torch.testing.assert_close(found, expected)


def test_padding_of_a_question_changes_no_answer():
    model, candidates = answering(), Candidates.build([""] * 6, *tokens())
    token = model.visual_encoder(images(1))
    short = torch.tensor([[2, 20]])
    long = torch.tensor([[2, 20, 0, 0, 0]])
    with torch.no_grad():
        probability = [
            model.rank(model.question_states(token, ids, ids.ne(0).long()), ids.ne(0).long(), candidates)
            for ids in (short, long)
        ]
    torch.testing.assert_close(*probability)


def test_an_answer_token_does_not_see_the_tokens_after_it():
    model = answering()
    state = states(model)[:1]
    ids = torch.tensor([[2, 5, 7, 8, 3]])
    changed = torch.tensor([[2, 5, 7, 12, 3]])
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    first, second = (model.answer_logits(state, QUESTION_MASK[:1], answer, everywhere) for answer in (ids, changed))
    torch.testing.assert_close(first[:3], second[:3])
    assert (first[3] - second[3]).abs().max() > 1e-3


def test_the_question_and_the_image_both_reach_the_answer():
    model, candidates = answering(), Candidates.build([""] * 6, *tokens())
    probability = model.rank(states(model), QUESTION_MASK, candidates)
    assert (probability[0] - probability[1]).abs().max() > 1e-4
    assert (probability[0] - probability[2]).abs().max() > 1e-4


def test_questions_may_share_an_image_by_number():
    model = answering()
    token = model.visual_encoder(images(2))
    shared = model.question_states(token, QUESTION, QUESTION_MASK, torch.tensor([1, 0, 1]))
    dealt = model.question_states(token[[1, 0, 1]], QUESTION, QUESTION_MASK)
    torch.testing.assert_close(shared, dealt)


def test_the_decoder_starts_from_the_last_fusion_layers_and_the_masked_token_head():
    source = pretrained()
    model = VqaModel.of_encoders(source, FinetuneConfig(decoder_layers=1))
    ours, theirs = model.text_decoder.fusion[0].state_dict(), source.text_encoder.fusion[-1].state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    head = source.text_encoder.cls.state_dict()
    assert all(torch.equal(weight, head[name]) for name, weight in model.text_decoder.cls.state_dict().items())


def test_fine_tuning_leaves_the_pretrained_model_alone():
    source = pretrained()
    before = {name: weight.clone() for name, weight in source.state_dict().items()}
    model = VqaModel.of_encoders(source, FinetuneConfig())
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    assert all(torch.equal(weight, before[name]) for name, weight in source.state_dict().items())


def test_more_decoder_layers_than_fusion_layers_are_refused():
    with pytest.raises(ConfigError, match="at most 2"):
        VqaModel(CONFIG, FinetuneConfig(decoder_layers=3))


def test_a_larger_image_is_read_with_interpolated_positions():
    model = answering(image_size=48)
    assert model.visual_encoder(images(1, 48)).shape == (1, 1 + 36, 16)


def test_the_position_table_is_trained_even_where_it_was_fixed():
    assert answering().visual_encoder.pos_embed.requires_grad


@pytest.mark.parametrize(
    ("freeze", "trained"),
    [
        ("none", {"visual_encoder", "text_encoder", "text_decoder"}),
        ("vision", {"text_encoder", "text_decoder"}),
        ("encoders", {"text_decoder"}),
    ],
)
def test_freezing_says_what_is_trained(freeze, trained):
    model = answering()
    model.freeze(freeze)
    assert {name.split(".")[0] for name, weight in model.named_parameters() if weight.requires_grad} == trained


def test_the_teacher_follows_what_is_trained_and_shares_what_is_frozen():
    model = answering()
    model.freeze("vision")
    teacher = AnswerTeacher(model, momentum=0.9)
    before = model.text_decoder.cls.predictions.bias.detach().clone()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1.0)
    teacher.update()
    shared = zip(teacher.model.visual_encoder.parameters(), model.visual_encoder.parameters(), strict=True)
    assert all(theirs is ours for theirs, ours in shared)
    torch.testing.assert_close(teacher.model.text_decoder.cls.predictions.bias, before + 0.1)
    assert not any(weight.requires_grad for weight in teacher.model.text_decoder.parameters())
    assert model.text_decoder.cls.predictions.bias.requires_grad


def test_the_loss_sums_over_an_answer_and_averages_over_the_examples():
    logits = torch.zeros(5, 30)
    loss = answer_loss(logits, torch.arange(5), None, 0.4, 2)
    assert loss.item() == pytest.approx(5 / 2 * torch.tensor(30.0).log().item())


def test_distilling_from_a_certain_teacher_is_learning_its_token():
    logits = torch.randn(4, 30, generator=torch.Generator().manual_seed(3))
    target, told = torch.tensor([1, 2, 3, 4]), torch.tensor([5, 6, 7, 8])
    teacher = torch.nn.functional.one_hot(told, 30) * 200.0
    mixed = answer_loss(logits, target, teacher, 0.25, 4)
    expected = 0.75 * answer_loss(logits, target, None, 0.0, 4) + 0.25 * answer_loss(logits, told, None, 0.0, 4)
    torch.testing.assert_close(mixed, expected)


def test_only_learned_positions_reach_the_vocabulary():
    model = answering()
    ids, mask = tokens(ANSWERS[:3])
    learned = torch.zeros_like(mask, dtype=torch.bool)
    learned[1, 0] = True
    alone = model.answer_logits(states(model), QUESTION_MASK, ids, learned)
    every = model.answer_logits(states(model), QUESTION_MASK, ids, torch.ones_like(learned))
    torch.testing.assert_close(alone[0], every[ids.shape[1] - 1])
    assert alone.shape == (1, 30)
