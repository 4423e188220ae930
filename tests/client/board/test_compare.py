"""Two models on the same questions, against what can be said beforehand."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.board.compare import Marks, compare, too_small
from client.board.facts import NotMeasured
from mumc_model.statistics import bootstrap_mean, paired_difference

MISSING = NotMeasured("accuracy of a local-only model", "none was evaluated")


def marked(federated, local, types=None, kinds=None):
    n = len(federated if not isinstance(federated, NotMeasured) else local)
    columns = [v if isinstance(v, NotMeasured) else np.array(v, dtype=np.float64) for v in (federated, local)]
    return Marks(
        images=[f"image-{number // 2}" for number in range(n)],
        answer_types=kinds or ["OPEN"] * n,
        question_types=types or ["organ"] * n,
        federated=columns[0],
        local=columns[1],
    )


def compared(*arguments, smallest=10, **more):
    return compare(marked(*arguments, **more), smallest, np.random.default_rng(0))


def test_shares_and_their_difference_are_those_of_the_answers():
    found = compared([1] * 30 + [0] * 10, [1] * 20 + [0] * 20).overall
    assert (found.answers, found.images) == (40, 20)
    assert (found.federated.mean, found.local.mean, found.gap.mean) == (0.75, 0.5, 0.25)
    assert found.gap.low <= 0.25 <= found.gap.high


def test_intervals_are_those_of_the_house_in_the_same_order_of_draws():
    rng = np.random.default_rng(5)
    federated, local = (rng.random(60) < 0.6).astype(float), (rng.random(60) < 0.5).astype(float)
    question = marked(federated, local)
    found, same = compare(question, 10, np.random.default_rng(1)).overall, np.random.default_rng(1)
    assert tuple(vars(found.federated).values()) == bootstrap_mean(federated, question.images, same)
    assert tuple(vars(found.local).values()) == bootstrap_mean(local, question.images, same)
    assert tuple(vars(found.gap).values()) == paired_difference(federated, local, question.images, same)


@pytest.mark.parametrize(("value", "low", "high"), [(1, 0.025 ** (1 / 20), 1.0), (0, 0.0, 1 - 0.025 ** (1 / 20))])
def test_where_all_are_right_or_none_the_interval_is_the_exact_one_for_as_many_images(value, low, high):
    found = compared([value] * 40, [1, 0] * 20).overall.federated
    assert (found.mean, found.low, found.high) == pytest.approx((value, low, high))


def test_a_model_that_was_not_evaluated_is_not_measured_anywhere():
    found = compared([1, 0] * 20, MISSING, types=["organ"] * 20 + ["plane"] * 20)
    for group in (found.overall, *found.question_types):
        assert group.local is MISSING
        assert group.gap is MISSING
        assert group.federated.mean == 0.5


def test_the_worst_group_is_that_with_the_lowest_share_and_never_a_pooled_one():
    types = ["organ"] * 20 + ["plane"] * 20 + ["rare"] * 6 + ["seldom"] * 6
    federated = [1] * 15 + [0] * 5 + [1] * 12 + [0] * 8 + [0] * 12
    found = compared(federated, federated, types=types)
    assert [group.name for group in found.question_types] == ["organ", "plane", "2 smaller groups together"]
    assert found.question_types[-1].pooled
    assert found.question_types[-1].answers == 12
    assert found.worst.name == "plane"


def test_without_two_groups_there_is_no_worst_one():
    found = compared([1, 0] * 20, [1, 0] * 20, types=["organ"] * 36 + ["odd"] * 4)
    assert found.question_types == ()
    assert found.worst is None


def test_open_and_closed_questions_are_told_apart_where_both_are_many():
    found = compared([1] * 20 + [0] * 20, [0] * 40, kinds=["OPEN"] * 20 + ["CLOSED"] * 20)
    assert {group.name: group.federated.mean for group in found.answer_types} == {
        "closed questions": 0.0,
        "open questions": 1.0,
    }


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=3), st.integers(1, 30), min_size=1, max_size=8), st.integers(1, 20))
def test_what_is_not_shown_by_itself_is_never_a_group_that_could_be_told_from_the_rest(sizes, smallest):
    pooled = too_small(Counter(sizes), smallest)
    hidden = sum(sizes[name] for name in pooled)
    assert all(sizes[name] >= smallest for name in sizes.keys() - pooled)
    assert hidden == 0 or hidden >= smallest or pooled == sizes.keys()
