"""What answering costs, counted by torch while it runs, against closed forms: what is shared is computed once.

In the comments: N nodes of all trees, Q questions, L question tokens, D width, V vocabulary.
"""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mumc_model.answering import answer_questions, rank_questions
from mumc_model.candidates import Candidates
from mumc_model.config import FinetuneConfig
from mumc_model.model import build_model
from mumc_model.views import ImageTokens, by_image
from mumc_model.vqa import VqaModel
from tests.mumc_model.test_finetune import CPU, samples_of, tuned, write_site
from tests.mumc_model.test_vqa import CONFIG

QUESTION_TOKENS, WIDTH = 7, CONFIG.text.width
LENGTH = 6
"""Tokens of each answer, [CLS] and [SEP] included."""


def flops(action):
    with FlopCounterMode(display=False) as counter:
        action()
    return counter.get_total_flops()


def answering(vocabulary=CONFIG.text.vocab_size):
    config = replace(CONFIG, text=replace(CONFIG.text, vocab_size=vocabulary))
    return VqaModel.of_encoders(build_model(config, 0), FinetuneConfig()).eval()


def alike(count):
    """Answers that differ in their last word alone."""
    rows = torch.tensor([[2, 5, 6, 7, 8 + last, 3] for last in range(count)])
    return Candidates.build([str(row) for row in range(count)], rows, torch.ones_like(rows))


def unlike(count):
    """Answers that share [CLS] alone."""
    rows = torch.tensor([[2, *[5 + first] * (LENGTH - 2), 3] for first in range(count)])
    return Candidates.build([str(row) for row in range(count)], rows, torch.ones_like(rows))


def ranking(candidates, questions, vocabulary=CONFIG.text.vocab_size, tokens=QUESTION_TOKENS):
    model = answering(vocabulary)
    state = torch.randn(questions, tokens, WIDTH, generator=torch.Generator().manual_seed(0))
    return flops(lambda: model.rank(state, torch.ones(questions, tokens), candidates))


def closed_form(candidates, questions, vocabulary=CONFIG.text.vocab_size):
    """Operations in matrix products.

    Per question and node: self-attention's four projections (8 D^2; the first layer's once for all questions),
    cross-attention's two (4 D^2), the feed-forward part (16 D^2), the head's own layer (2 D^2), the vocabulary (2 D V);
    attention to the nodes of the tree and to the
    question (4 D each). Per question and layer: its keys and values (4 D^2 a token).
    """
    sizes = [len(tree.token_N) for tree in candidates.trees]
    nodes, layers, square = sum(sizes), len(answering().text_decoder.fusion), WIDTH**2
    own = 8 * square * nodes + 4 * WIDTH * sum(size**2 for size in sizes)
    crossing = nodes * (4 * square + 16 * square + 4 * WIDTH * QUESTION_TOKENS) + 4 * square * QUESTION_TOKENS
    head = nodes * (2 * square + 2 * WIDTH * vocabulary)
    return own + questions * ((layers - 1) * own + layers * crossing + head)


@pytest.mark.parametrize("questions", [1, 5])
@pytest.mark.parametrize("vocabulary", [30, 90])
@pytest.mark.parametrize("candidates", [alike(12), unlike(12)], ids=["alike", "unlike"])
def test_ranking_costs_the_nodes_of_the_trees(candidates, questions, vocabulary):
    assert ranking(candidates, questions, vocabulary) == closed_form(candidates, questions, vocabulary)


def test_an_answer_that_differs_in_one_word_costs_one_node_and_not_its_length():
    assert [len(alike(count).trees[0].token_N) for count in (1, 13)] == [LENGTH - 1, LENGTH - 1 + 12]
    assert [len(unlike(count).trees[0].token_N) for count in (1, 13)] == [LENGTH - 1, 1 + 13 * (LENGTH - 2)]


def test_a_question_s_keys_and_values_are_computed_once_however_many_answers_there_are():
    """A longer question costs its own keys and values, and that every node looks at it; no candidate adds to that."""
    layers = len(answering().text_decoder.fusion)
    for candidates in (alike(1), unlike(20)):
        nodes = sum(len(tree.token_N) for tree in candidates.trees)
        longer, shorter = (ranking(candidates, 1, tokens=count * QUESTION_TOKENS) for count in (2, 1))
        looking = layers * nodes * 4 * WIDTH * QUESTION_TOKENS
        assert longer - shorter - looking == layers * QUESTION_TOKENS * 4 * WIDTH**2


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return samples_of(write_site(tmp_path_factory.mktemp("site")))


@pytest.fixture(scope="module")
def result(data):
    return tuned(data, steps=1)


class Counting:
    """Counts what goes through a module."""

    def __init__(self, monkeypatch, module, method="forward"):
        self.rows, real = 0, getattr(module, method)

        def counted(*tensors):
            self.rows += len(tensors[0])
            return real(*tensors)

        monkeypatch.setattr(module, method, counted)


@pytest.mark.parametrize("size", [2, 5, 128])
def test_evaluation_encodes_each_image_and_each_question_once(data, result, monkeypatch, size):
    monkeypatch.setattr("mumc_model.views._QUESTIONS", size)
    images = Counting(monkeypatch, result.model.visual_encoder)
    questions = Counting(monkeypatch, result.model.text_encoder, "encode")
    rows = answer_questions(result.model, result.candidates, data.test, device=CPU)
    assert (images.rows, questions.rows) == (len(data.test.unique_image_keys), len(rows))
    assert len(rows) == 2 * images.rows


def test_without_images_one_is_encoded_and_questions_that_read_alike_are_asked_once(data, result, monkeypatch):
    images = Counting(monkeypatch, result.model.visual_encoder)
    questions = Counting(monkeypatch, result.model.text_encoder, "encode")
    rows = answer_questions(result.model, result.candidates, data.test, device=CPU, view="blank")
    assert (images.rows, questions.rows) == (1, len(set(data.test.questions)))
    assert len(rows) == len(data.test)


@pytest.mark.parametrize("view", ["real", "blank", "shuffled"])
def test_answers_side_by_side_are_those_given_one_at_a_time(data, result, monkeypatch, view):
    tokens = ImageTokens(result.model, data.test, CPU, view=view)
    together = rank_questions(result.model, result.candidates, data.test, tokens)
    monkeypatch.setattr("mumc_model.views._QUESTIONS", 1)
    alone = rank_questions(result.model, result.candidates, data.test, tokens)
    torch.testing.assert_close(together, alone)


def test_an_image_with_more_questions_than_a_block_holds_is_in_several(data, result):
    tokens = ImageTokens(result.model, data.test, CPU, view="blank")
    blocks = list(by_image(data.test, tokens, size=5))
    assert [len(block.index_B) for block in blocks] == [5, 5, 5, 5, 4]
    assert sorted(torch.cat([block.index_B for block in blocks]).tolist()) == list(range(len(data.test)))


def test_no_block_holds_questions_of_two_owners_even_where_they_read_alike(data, result):
    tokens = ImageTokens(result.model, data.test, CPU, view="blank")
    owners = [str(index % 2) for index in range(len(data.test))]
    for block in by_image(data.test, tokens, apart=owners):
        assert len({owners[index] for index in block.index_B.tolist()}) == 1
        assert set(block.asked_A.tolist()) <= set(block.index_B.tolist())
