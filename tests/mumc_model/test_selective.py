import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from mumc_model.errors import CheckpointError
from mumc_model.selective import BIN_QUESTIONS, AccuracyTable, measured


@pytest.mark.parametrize(("right", "n"), [(0, 30), (30, 30), (17, 40), (1, 1)])
def test_the_interval_is_the_exact_one_of_scipy(right, n):
    theirs = binomtest(right, n).proportion_ci(method="exact")
    found = measured(right, n)
    assert found.ci95 == pytest.approx((theirs.low, theirs.high))
    assert found.share == right / n


def test_a_confidence_is_answered_by_the_questions_that_were_about_as_sure():
    sure = np.linspace(0, 1, 300)
    table = AccuracyTable.of(sure, sure > 0.5)
    assert sum(table.counts) == 300
    assert min(table.counts) >= BIN_QUESTIONS
    assert table.at(0.9).share == 1
    assert table.at(0.1).share == 0
    assert table.at(-1.0) == table.at(0.0)
    assert "n = 30" in str(table.at(0.9))


def test_equally_sure_answers_are_counted_together_in_whatever_order_they_stand():
    sure, right = np.full(90, 0.7), np.arange(90) % 3 == 0
    table = AccuracyTable.of(sure, right)
    assert (table.counts, table.right) == ((90,), (30,))
    assert AccuracyTable.of(sure, right[::-1]) == table


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=BIN_QUESTIONS, max_size=400))
@example([1] * 10 + [9] * 50)
def test_no_bin_has_fewer_questions_than_the_least_and_none_is_lost(sure):
    table = AccuracyTable.of(sure, [True] * len(sure))
    assert min(table.counts) >= BIN_QUESTIONS
    assert sum(table.counts) == sum(table.right) == len(sure)


def test_with_too_few_questions_nothing_is_said():
    assert AccuracyTable.of(np.linspace(0, 1, BIN_QUESTIONS - 1), np.ones(BIN_QUESTIONS - 1)).at(0.5) is None


def test_the_table_comes_back_from_plain_values():
    table = AccuracyTable.of(np.linspace(0, 1, 90), np.ones(90), "test")
    assert AccuracyTable.from_dict(table.to_dict()) == table


@pytest.mark.parametrize(
    "change", [{"floors": [0.1]}, {"right": [5]}, {"counts": [0]}, {"floors": [float("nan")]}, {"floors": None}]
)
def test_a_damaged_table_is_refused(change):
    table = {"floors": [0.2], "right": [1], "counts": [2], "split": "validation"} | change
    if change == {"floors": [0.1]}:
        table["right"] = [1, 2]
    with pytest.raises(CheckpointError, match="fine-tune again"):
        AccuracyTable.from_dict(table)
