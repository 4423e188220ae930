import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mumc_model.candidates import AnswerTree, Candidates, candidate_answers
from mumc_model.data.tokenizer import Tokenizer
from mumc_model.errors import DataError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "left", "right", "lung", "lobe", "yes", "no"]
TOKENIZER = Tokenizer(WORDS)

answer_lists = st.lists(
    st.lists(st.integers(5, 10), min_size=1, max_size=4).map(tuple), min_size=1, max_size=12, unique=True
)


def padded(answers):
    rows = [[2, *answer, 3] for answer in answers]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    return ids, (ids != 0).long()


def test_answers_that_begin_alike_share_their_beginning():
    tree = AnswerTree.build([(2, 5, 7, 3), (2, 5, 8, 3), (2, 9, 3)])
    assert tree.token_N.tolist() == [2, 5, 7, 8, 9]
    assert tree.depth_N.tolist() == [0, 1, 2, 2, 1]
    assert tree.sees_NN[3].tolist() == [True, True, False, True, False]


@given(answer_lists)
def test_the_edges_of_an_answer_spell_it(answers):
    rows = [(2, *answer, 3) for answer in answers]
    tree = AnswerTree.build(rows)
    tokens = [*tree.edge_token_E.tolist(), None]
    for row, edges in zip(rows, tree.edges_CT.tolist(), strict=True):
        assert tuple(token for edge in edges if (token := tokens[edge]) is not None) == row[1:]


@given(answer_lists)
def test_a_node_sees_exactly_the_beginning_that_leads_to_it(answers):
    tree = AnswerTree.build([(2, *answer, 3) for answer in answers])
    assert torch.equal(tree.sees_NN.sum(1), tree.depth_N + 1)
    assert tree.sees_NN.diagonal().all()


@given(answer_lists)
def test_a_score_sums_its_own_answer_s_tokens_whatever_the_tree_s_order(answers):
    ids, mask = padded(answers)
    candidates = Candidates.build([str(answer) for answer in answers], ids, mask)
    (tree,) = candidates.trees
    cost = (10 * tree.edge_node_E + tree.edge_token_E).double()[None]
    total = candidates.scores(cost, "sum")[0]
    mean = candidates.scores(cost, "mean")[0]
    compat = candidates.scores(cost, "compat")[0]
    for place, answer in enumerate(answers):
        row = (2, *answer, 3)
        nodes = {prefix: node for node, prefix in enumerate(_prefixes(sorted((2, *a, 3) for a in answers)))}
        steps = [10 * nodes[row[:end]] + row[end] for end in range(1, len(row))]
        assert total[place] == sum(steps)
        assert mean[place] == pytest.approx(sum(steps) / len(steps))
        assert compat[place] == sum(steps) + steps[0]


def _prefixes(rows):
    return dict.fromkeys(row[:end] for row in rows for end in range(1, len(row)))


def test_candidates_are_the_distinct_answers_most_frequent_first():
    candidates = candidate_answers(["No", "left lung", "yes", "yes"], TOKENIZER, 8)
    assert candidates.texts == ("yes", "No", "left lung")
    assert candidates.token_counts_C.tolist() == [2, 2, 3]


def test_spellings_that_read_the_same_are_one_candidate_under_the_most_frequent():
    candidates = candidate_answers(["yes.", "Yes", "Yes", "no"], TOKENIZER, 8)
    assert candidates.texts == ("Yes", "no")


def test_many_candidates_are_spread_over_several_trees_in_the_same_order():
    answers = [(5 + i % 6, 5 + i // 6 % 6, 5 + i // 36 % 6, 5 + i // 216) for i in range(300)]
    candidates = Candidates.build([str(answer) for answer in answers], *padded(answers))
    assert len(candidates.trees) == 5
    tokens = torch.cat([tree.edge_token_E for tree in candidates.trees])
    assert torch.equal(tokens, candidates.forest.edge_token_E)
    assert candidates.scores(tokens.double()[None], "sum")[0].tolist() == [sum(answer) + 3 for answer in answers]


def test_a_site_without_training_answers_is_told_what_to_add():
    with pytest.raises(DataError, match="train split"):
        candidate_answers([], TOKENIZER, 8)
