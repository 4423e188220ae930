from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mumc_model.data.phantom_cases import CELLS, SEEN_IN, draw_cases, hospital_shares, pooled_shares


@pytest.mark.parametrize("column", [0, 1, 2])
def test_modalities_organs_and_findings_are_evenly_spread_over_all_hospitals(column: int) -> None:
    names = np.array([cell[column] for cell in CELLS])
    sums = [pooled_shares()[names == name].sum() for name in np.unique(names)]
    np.testing.assert_allclose(sums, 1 / len(sums), rtol=1e-6)


@given(st.integers(1, 8), st.floats(0, 1), st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_unlike_hospitals_of_equal_size_together_see_what_alike_ones_see(count: int, unlike: float, seed: int) -> None:
    shares_HC = hospital_shares(count, unlike, np.random.default_rng(seed))
    np.testing.assert_allclose(shares_HC.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(shares_HC.mean(axis=0), pooled_shares(), atol=0.005)


def test_the_more_unlike_the_fewer_cells_a_hospital_sees() -> None:
    def cells_in_use(unlike: float) -> float:
        shares_HC = hospital_shares(4, unlike, np.random.default_rng(0))
        return float(np.exp(-(shares_HC * np.log(shares_HC)).sum(axis=1)).mean())

    counts = [cells_in_use(unlike) for unlike in (0, 0.3, 0.6, 1)]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < 0.5 * counts[0]


def test_cases_keep_to_their_shares_as_near_as_whole_numbers_allow() -> None:
    cases = draw_cases(200, pooled_shares(), 0.1, np.random.default_rng(0))
    assert sum(case.normal for case in cases) in (20, 21)
    expected = 200 * pooled_shares().reshape(len(CELLS))
    drawn = Counter((case.modality, case.organ) for case in cases)
    for key in SEEN_IN:
        share = sum(n for cell, n in zip(CELLS, expected, strict=True) if cell[:2] == key)
        assert abs(drawn[key] - share) <= 1


def test_sides_and_sizes_and_places_are_balanced_and_independent() -> None:
    cases = draw_cases(160, pooled_shares(), 0.0, np.random.default_rng(0))
    assert set(Counter((case.side, case.size, case.place) for case in cases).values()) == {20}


def test_a_normal_case_has_no_side_size_or_place() -> None:
    (case,) = draw_cases(1, pooled_shares(), 1.0, np.random.default_rng(0))
    assert set(case.labels()) == {"modality", "organ", "finding"}
