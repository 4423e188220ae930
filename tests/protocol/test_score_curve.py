import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import MessageError
from protocol.score_curve import GRID, MOST_QUESTIONS, NAMES, VALIDATED, from_json, merged, told

CURVES = st.lists(st.floats(0, 1), min_size=len(GRID), max_size=len(GRID)).map(sorted)


def test_the_mean_weighs_sites_by_their_questions():
    low, high = [0.0] * 20, [1.0] * 20
    found = merged([told(low, 30), told(high, 10), {"accuracy": 0.5}])
    assert found.share == (0.25,) * 20
    assert found.sites == 2


def test_no_site_outweighs_others_by_the_number_that_it_claims():
    found = merged([told([0.0] * 20, MOST_QUESTIONS), told([1.0] * 20, 10**9)])
    assert found.share == (0.5,) * 20


@given(CURVES, CURVES)
def test_a_mean_of_curves_is_a_curve_that_comes_back_from_its_file(one, other):
    found = merged([told(one, 10), told(other, 90)])
    again = from_json(json.dumps(found.to_dict()))
    assert again.sites == 2
    assert list(again.share) == pytest.approx(list(found.share), abs=1e-4)


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
