"""What is counted everywhere, summed exactly, and published without small cells."""

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import MessageError
from protocol.labels import TABLES
from protocol.secagg.fixed_point import decode
from protocol.secagg.packed import encode_packed
from protocol.secagg.session import threshold_for
from protocol.statistics import CELLS, DIGEST, LARGEST, VALUES, Statistics, fixed_point, flat, folded, total
from protocol.suppression import SMALLEST, Cell, is_small, withheld

UNTIMED = settings(deadline=None, max_examples=60)
COUNT = st.one_of(st.integers(0, 40), st.integers(0, LARGEST), st.just(LARGEST))
NUMBERS = st.lists(COUNT, min_size=VALUES, max_size=VALUES)


def published(numbers, sites=3):
    return Statistics.of(folded(numbers), run_id="run-1", sites=sites, made="2026-11-27")


def test_the_lists_are_those_that_every_site_of_this_version_knows():
    assert (CELLS, VALUES) == (41, 82)
    assert DIGEST == "a224d843fd4abce759c6d082b46246068495a18dd5676706d03cf81db77ee859", "new lists need a new VERSION"


@UNTIMED
@given(NUMBERS)
def test_the_numbers_are_the_tables(numbers):
    assert flat(folded(numbers)) == numbers


@UNTIMED
@given(st.data(), st.integers(3, 40))
def test_whoever_survives_the_sum_is_exact(data, sites):
    """The words of every format that a session of counts can have, added as the server adds them."""
    threshold = data.draw(st.integers(threshold_for(sites, 0), sites))
    fixed, survivors = fixed_point(sites, threshold), data.draw(st.integers(threshold, sites))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    counts = rng.integers(0, data.draw(st.sampled_from([3, 1000, LARGEST])), (survivors, VALUES), endpoint=True)
    counts[:, 0], counts[:, 1] = LARGEST, 1
    words = np.zeros(VALUES, fixed.dtype)
    for own in counts:
        encoded, clipped = encode_packed({"float64": own.astype(np.float64)}, VALUES, fixed, Fraction(1, sites))
        assert clipped == 0
        words += encoded
    mean = decode(words, fixed, Fraction(survivors, sites))
    assert flat_sum(total(mean, survivors)) == counts.sum(axis=0).tolist()


def flat_sum(tables):
    """The numbers of summed tables, which may be above what one site may count."""
    cells = [tables[name][label] for name, labels in TABLES.items() for label in labels]
    return [cell.count for cell in cells] + [cell.units for cell in cells]


@UNTIMED
@given(NUMBERS)
def test_no_small_count_of_a_sum_is_told_and_no_other_is_told_exactly(numbers):
    found, summed = published(numbers), folded(numbers)
    for name, cells in summed.items():
        hidden = withheld(cells, SMALLEST)
        assert set(found.withheld.get(name, ())) == hidden
        for label, cell in cells.items():
            if cell.count and is_small(cell, SMALLEST):
                assert label in hidden
            if label not in hidden:
                assert found.counts[name][label] == cell.count - cell.count % 10


def test_a_cell_of_many_records_and_few_patients_is_withheld_with_the_least_of_the_others():
    tables = {name: dict.fromkeys(labels, Cell(count=0, units=0)) for name, labels in TABLES.items()}
    tables["questions by split"] = {
        "train": Cell(count=500, units=9),
        "val": Cell(count=60, units=30),
        "test": Cell(count=75, units=31),
    }
    found = published(flat(tables))
    assert found.counts["questions by split"] == {"test": 70}
    assert found.withheld == {"questions by split": ["train", "val"]}


@UNTIMED
@given(NUMBERS, st.integers(3, 256))
def test_what_was_published_survives_its_file_and_its_message(numbers, sites):
    found = published(numbers, sites)
    assert Statistics.from_file(found.to_file()) == found
    assert Statistics.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sites", 2),
        ("sites", 257),
        ("sites", True),
        ("labels", "0" * 64),
        ("run_id", "../run"),
        ("made", "yesterday"),
        ("counts", {}),
        ("counts", {**{name: {} for name in TABLES}, "images by name": {}}),
        ("counts", {**{name: {} for name in TABLES}, "images by organ": {"Dr. X": 10}}),
        ("counts", {**{name: {} for name in TABLES}, "images by organ": {"head": 11}}),
        ("counts", {**{name: {} for name in TABLES}, "images by organ": {"head": -10}}),
        ("counts", {**{name: {} for name in TABLES}, "images by organ": {"head": 10.0}}),
        ("counts", {**{name: {} for name in TABLES}, "images by organ": {"head": 3 * LARGEST + 10}}),
    ],
)
def test_what_no_honest_server_publishes_is_refused(name, value):
    plain = published([20] * VALUES).to_dict()
    with pytest.raises(MessageError):
        Statistics.from_dict(plain | {name: value})


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"1", b'{"kind": "federation-statistics", "version": 2}'])
def test_a_file_of_another_kind_is_refused(content):
    with pytest.raises(MessageError):
        Statistics.from_file(content)


def test_counts_that_no_site_may_have_do_not_become_a_vector():
    tables = folded([0] * VALUES)
    with pytest.raises(MessageError, match="has not exactly the labels"):
        flat(tables | {"questions by split": {"train": Cell(count=1, units=1)}})
    for count in (LARGEST + 1, -1):
        few = tables["questions by split"] | {"val": Cell(count=count, units=1)}
        with pytest.raises(MessageError, match="no count from 0 to 10,000,000"):
            flat(tables | {"questions by split": few})
