import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import MessageError
from protocol.score_curve import GRID, MOST_QUESTIONS, NAMES, VALIDATED, from_json, merged, told

CURVES = st.lists(st.floats(0, 1), min_size=len(GRID), max_size=len(GRID)).map(sorted)


def test_the_mean_weighs_sites_by_their_questions():
    low, high = [0.0] * 20, [1.0] * 20
    found = merged([told(low, 20), told(low, 10), told(high, 10), {"accuracy": 0.5}])
    assert found.share == (0.25,) * 20
    assert found.sites == 3


def test_no_site_outweighs_others_by_the_number_that_it_claims():
    found = merged([told([0.0] * 20, MOST_QUESTIONS - 10), told([0.0] * 20, 10), told([1.0] * 20, 10**9)])
    assert found.share == (0.5,) * 20


@given(CURVES, CURVES)
def test_a_mean_of_curves_is_a_curve_that_comes_back_from_its_file(one, other):
    found = merged([told(one, 10), told(other, 90), told(one, 20)])
    again = from_json(json.dumps(found.to_dict()))
    assert again.sites == 3
    assert list(again.share) == pytest.approx(list(found.share), abs=1e-4)


def test_the_mean_of_two_sites_is_told_to_nobody_since_each_could_subtract_its_own():
    assert merged([told([0.5] * 20, 50)] * 2) is None
    assert merged([told([0.5] * 20, 50)] * 3).share == (0.5,) * 20


@given(CURVES)
def test_a_share_leaves_in_steps_of_a_twentieth_and_is_never_raised(share):
    left = [told(share, 10)[name] for name in NAMES]
    assert all(round(20 * value, 9).is_integer() for value in left)
    assert all(-1e-9 <= exact - coarse < 0.05 + 1e-9 for exact, coarse in zip(share, left, strict=True))


@pytest.mark.parametrize(
    "metrics",
    [
        {},
        told([0.5] * 19 + [0.4], 50),
        told([0.5] * 19 + [1.5], 50),
        told([0.5] * 20, 0),
        dict.fromkeys(NAMES, 0.5),
        dict.fromkeys(NAMES[1:], 0.5) | {VALIDATED: 50.0},
    ],
)
def test_what_is_no_whole_curve_counts_for_nothing(metrics):
    assert merged([metrics]) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"grid": [0.5], "share": [0.5], "sites": 1}', "[" * 9000])
def test_a_damaged_file_is_refused(text):
    with pytest.raises(MessageError, match="export the run again"):
        from_json(text)
