import itertools
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import MessageError
from protocol.score_curve import (
    GRID,
    MOST_QUESTIONS,
    SHARE_METRICS,
    STEPS,
    VALIDATED,
    curve_metrics,
    fewest_questions,
    from_json,
    merged,
)

CURVES = st.lists(st.floats(0, 1), min_size=len(GRID), max_size=len(GRID)).map(sorted)


def told(share, questions):
    """The metrics of a site that has this many questions and tells of groups of any size."""
    return {**curve_metrics(share, STEPS, 1), VALIDATED: float(questions)}


def test_the_mean_weighs_sites_by_their_questions():
    low, high = [0.0] * 20, [0.8] * 20
    found = merged([told(low, 20), told(low, 10), told(high, 10), {"accuracy": 0.5}])
    assert found.share == (0.2,) * 20
    assert found.sites == 3


def test_no_site_outweighs_others_by_the_number_that_it_claims():
    found = merged([told([0.0] * 20, MOST_QUESTIONS - 10), told([0.0] * 20, 10), told([0.8] * 20, 10**9)])
    assert found.share == (0.4,) * 20


@given(CURVES, CURVES)
def test_a_mean_of_curves_is_a_curve_that_comes_back_from_its_file(one, other):
    found = merged([told(one, 10), told(other, 90), told(one, 20)])
    again = from_json(json.dumps(found.to_dict()))
    assert again.sites == 3
    assert list(again.share) == pytest.approx(list(found.share), abs=1e-4)


def test_the_mean_of_two_sites_is_told_to_nobody_since_each_could_subtract_its_own():
    assert merged([told([0.5] * 20, 50)] * 2) is None
    assert merged([told([0.5] * 20, 50)] * 3).share == (0.5,) * 20


@given(st.integers(1, 12), st.integers(0, 400))
def test_every_value_that_leaves_could_be_as_many_counts_as_the_smallest_group_has_questions(smallest, more):
    questions = fewest_questions(smallest) + more
    counts = Counter(
        curve_metrics([count / questions] * len(GRID), questions, smallest)[SHARE_METRICS[0]]
        for count in range(questions + 1)
    )
    assert len(counts) == STEPS
    assert min(counts.values()) >= smallest


@pytest.mark.parametrize(("smallest", "fewest"), [(0, 20), (1, 20), (10, 200), (41, 820)])
def test_with_fewer_questions_than_that_no_point_of_a_curve_leaves(smallest, fewest):
    assert curve_metrics([0.5] * 20, fewest - 1, smallest) == {}
    assert curve_metrics([0.5] * 20, fewest, smallest) == {**dict.fromkeys(SHARE_METRICS, 0.5), VALIDATED: fewest}
    assert curve_metrics((), fewest, smallest) == {}


def test_of_two_hundred_questions_no_pair_of_points_tells_a_count_between_them():
    """Ten counts of either point look alike, so one to nineteen questions between them make the same step."""
    between = {}
    for low, high in itertools.combinations(range(201), 2):
        left = curve_metrics([low / 200] * 19 + [high / 200], 200, 10)
        between.setdefault((left[SHARE_METRICS[0]], left[SHARE_METRICS[-1]]), set()).add(high - low)
    assert min(map(len, between.values())) >= 9


@given(CURVES)
def test_a_share_leaves_as_one_of_twenty_values_and_is_never_raised(share):
    left = [told(share, 20)[name] for name in SHARE_METRICS]
    assert all(round(20 * value, 9).is_integer() for value in left)
    assert all(-1e-9 <= exact - coarse <= 0.05 + 1e-9 for exact, coarse in zip(share, left, strict=True))


@pytest.mark.parametrize(
    "metrics",
    [
        {},
        told([0.5] * 19 + [0.4], 50),
        told([0.5] * 20, 50) | {SHARE_METRICS[-1]: 1.5},
        told([0.5] * 20, 0),
        dict.fromkeys(SHARE_METRICS, 0.5),
        dict.fromkeys(SHARE_METRICS[1:], 0.5) | {VALIDATED: 50.0},
    ],
)
def test_what_is_no_whole_curve_counts_for_nothing(metrics):
    assert merged([metrics]) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"grid": [0.5], "share": [0.5], "sites": 1}', "[" * 9000])
def test_a_damaged_file_is_refused(text):
    with pytest.raises(MessageError, match="export the run again"):
        from_json(text)
