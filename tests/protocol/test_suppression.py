"""What a table gives away: every table that could have been published the same way is tried, one by one."""

import itertools
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.suppression import WITHHELD, Cell, is_small, publish_count, publish_table, withheld

K = 3
"""The smallest count of the small tables."""
CELLS = st.builds(
    lambda count, units: Cell(count=count, units=min(count, units)), st.integers(0, 40), st.integers(1, 40)
)


def table(values):
    cells = (
        Cell(count=value, units=value) if isinstance(value, int) else Cell(count=value[0], units=value[1])
        for value in values
    )
    return {f"label {place}": cell for place, cell in enumerate(cells)}


def total(cells):
    """Units are those of other patients in each cell, so that they add up."""
    found = [(cell.count, cell.units) for cell in cells.values()]
    return Cell(count=sum(count for count, _ in found), units=sum(units for _, units in found))


def all_tables(labels, most):
    """Every table with so many labels, each with up to `most` records of up to as many patients."""
    cells = [(count, units) for count in range(most + 1) for units in range(min(count, 1), count + 1)]
    return [table(values) for values in itertools.product(cells, repeat=labels)]


def told(cells, exact_total):
    """What an attacker sees; the stronger one has the exact total from elsewhere."""
    known = total(cells).count if exact_total else publish_count(total(cells), K)
    return tuple(publish_table(cells, K).values()), known


def worked_out(tables, exact_total):
    """Withheld cells that have one value only in all tables that look alike, with the table."""
    alike = defaultdict(list)
    for cells in tables:
        alike[told(cells, exact_total)].append(cells)
    for (shown, _), same in alike.items():
        for place, value in enumerate(shown):
            if value == WITHHELD and len({list(cells.values())[place].count for cells in same}) == 1:
                yield shown, same[0]


@pytest.mark.parametrize(("labels", "most"), [(2, 8), (3, 5)])
def test_no_withheld_cell_can_be_worked_out_from_what_is_published(labels, most):
    # The largest values have neighbours beyond the edge of what is tried, which an attacker would have to reckon with.
    found = [
        (shown, cells)
        for shown, cells in worked_out(all_tables(labels, most), exact_total=False)
        if all(cell.count < most for cell in cells.values())
    ]
    assert found == []


@pytest.mark.parametrize(("labels", "most"), [(3, 9), (4, 6)])
def test_nor_by_who_knows_the_exact_total_wherever_a_larger_cell_is_withheld_too(labels, most):
    tables = [table(values) for values in itertools.product(range(most + 1), repeat=labels)]
    found = [
        cells
        for _, cells in worked_out(tables, exact_total=True)
        if any(not is_small(cells[label], K) for label in withheld(cells, K))
        and max(c.count for c in cells.values()) < most
    ]
    assert found == []


def test_the_solver_sees_a_lone_withheld_cell(monkeypatch):
    monkeypatch.setattr(
        "protocol.suppression.withheld",
        lambda cells, smallest: {label for label, cell in cells.items() if cell.count and is_small(cell, smallest)},
    )
    tables = [table(values) for values in itertools.product(range(7), repeat=3)]
    assert list(worked_out(tables, exact_total=True))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((50, 30, 20), [50, 30, 20]),
        ((57, 38, 21), [50, 30, 20]),
        ((50, 30, 4), [50, WITHHELD, WITHHELD]),
        ((50, 30, 30, 4), [50, WITHHELD, WITHHELD, WITHHELD]),
        ((50, 30, 4, 3), [50, WITHHELD, WITHHELD, WITHHELD]),
        ((50, 0, 30), [50, 0, 30]),
        ((50, (30, 2), 20, 40), [50, WITHHELD, WITHHELD, 40]),
        ((4, 3), [WITHHELD, WITHHELD]),
        ((), []),
    ],
)
def test_small_cells_and_the_least_larger_one_are_withheld_and_the_rest_rounded_down(values, expected):
    assert list(publish_table(table(values), 10).values()) == expected


@settings(deadline=None)
@given(st.lists(CELLS, min_size=2, max_size=6), st.randoms())
def test_exchanging_what_withheld_cells_hold_changes_nothing_that_is_published(cells, random):
    before = table([(cell.count, cell.units) for cell in cells])
    hidden = sorted(withheld(before, 10))
    moved = random.sample(hidden, len(hidden))
    after = before | {label: before[other] for label, other in zip(hidden, moved, strict=True)}
    assert publish_table(after, 10) == publish_table(before, 10)
    assert total(after).count == total(before).count


@settings(deadline=None)
@given(st.lists(CELLS, max_size=6))
def test_no_number_that_is_published_is_about_fewer_than_the_smallest_count(cells):
    for label, shown in publish_table(table([(cell.count, cell.units) for cell in cells]), 10).items():
        cell = cells[int(label.split()[1])]
        assert shown == WITHHELD or shown == 0 == cell.count or (shown >= 10 and min(cell.count, cell.units) >= 10)


@pytest.mark.parametrize(
    ("count", "units", "shown"),
    [(0, 0, "fewer than 10"), (9, 9, "fewer than 10"), (40, 9, "fewer than 10"), (10, 10, 10), (59, 12, 50)],
)
def test_a_single_count_is_rounded_down_or_not_told(count, units, shown):
    assert publish_count(Cell(count=count, units=units), 10) == shown
