"""Every rule by name: against Flower's own, under attack, and in any order."""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.server.strategy.aggregate import aggregate_krum, aggregate_median
from flwr.serverapp.strategy.fedtrimmedavg import trim_mean
from flwr.serverapp.strategy.multikrum import select_multikrum
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from hypothesis import given, settings
from hypothesis import strategies as st

from mumc_model.errors import ConfigError
from server.config import MergeConfig
from server.merge import weighted_mean
from server.rules import RULES, check_rule, krum_scores, merge, table
from server.spool import BLOCK
from tests.server.spooled import in_memory, resident, spooled

DOCS = Path(__file__).parents[2] / "docs" / "robustness.md"
UNTIMED = settings(deadline=None, max_examples=40)
ROBUST = ("median", "trimmed_mean", "krum")
SIZE = BLOCK + 501


def rows_of(count, seed=0, size=SIZE):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=size)
    return [(truth + 0.3 * rng.normal(size=size)).astype("float32") for _ in range(count)]


def by(rule, rows, weights=None, faulty=1, **settings_):
    weights = weights or [1] * len(rows)
    found = merge(in_memory(rows), weights, MergeConfig(rule=rule, faulty=faulty, **settings_))
    return found[rows[0].dtype.name]


def record(row, weight):
    return RecordDict({"arrays": ArrayRecord({"w": Array(row)}), "metrics": MetricRecord({"num-examples": weight})})


def test_the_table_of_the_documentation_is_that_of_the_code():
    assert table() in DOCS.read_text(encoding="utf-8")
    assert set(RULES) == set(MergeConfig.__annotations__["rule"].__args__)


def test_the_mean_is_the_weighted_mean():
    rows, weights = rows_of(4), [1, 2, 3, 4]
    assert by("mean", rows, weights).tobytes() == weighted_mean(in_memory(rows), weights)["float32"].tobytes()


@pytest.mark.parametrize("count", [5, 6])
def test_the_median_is_flowers(count):
    rows = rows_of(count)
    theirs = aggregate_median([([row], 1) for row in rows])[0]
    np.testing.assert_allclose(by("median", rows), theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("count", "faulty"), [(10, 2), (9, 1)])
def test_the_trimmed_mean_is_flowers(count, faulty):
    rows = rows_of(count)
    theirs = trim_mean(np.stack(rows).astype("float64"), (faulty + 0.5) / count)
    np.testing.assert_allclose(by("trimmed_mean", rows, faulty=faulty), theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_krum_takes_the_update_that_flower_takes(seed):
    rows = rows_of(9, seed, 501)
    (theirs,) = select_multikrum([record(row, 1) for row in rows], 2, 1)
    assert by("krum", rows, faulty=2).tobytes() == theirs["arrays"]["w"].numpy().tobytes()
    older = aggregate_krum([([row.astype("float64")], 1) for row in rows], 2, 0)[0]
    assert (by("krum", rows, faulty=2) == older).all()


@pytest.mark.parametrize("seed", range(5))
def test_multi_krum_merges_the_updates_that_flower_merges(seed):
    rows, weights = rows_of(9, seed, 501), [5, 1, 2, 9, 4, 3, 8, 1, 6]
    chosen = select_multikrum([record(row, weight) for row, weight in zip(rows, weights, strict=True)], 2, 7)
    theirs = aggregate_arrayrecords(chosen, "num-examples")["w"].numpy()
    np.testing.assert_allclose(by("multi_krum", rows, weights, faulty=2), theirs, rtol=0, atol=5e-6)


def test_krums_scores_on_a_line_are_those_done_by_hand():
    places = np.array([0.0, 1.0, 3.0, 7.0, 100.0])
    distances = (places[:, None] - places) ** 2
    assert krum_scores(distances, 1).tolist() == [1 + 9, 1 + 4, 4 + 9, 16 + 36, 93**2 + 97**2]


def test_the_norm_bounded_mean_shortens_what_is_longer_than_the_bound_and_nothing_else():
    rows = [np.array([3.0, 4.0]), np.array([0.3, -0.4]), np.array([-60.0, 80.0]), np.array([0.0, 0.0])]
    weights = [1, 2, 3, 4]
    short = [row * min(1, 1 / max(np.linalg.norm(row), 1e-9)) for row in rows]
    np.testing.assert_allclose(
        by("norm_bounded", rows, weights, norm_bound=1.0), np.average(short, axis=0, weights=weights), atol=1e-14
    )


def test_without_a_bound_the_median_norm_is_the_bound():
    rows = [np.array([1.0, 0.0]), np.array([0.0, 2.0]), np.array([1000.0, 0.0])]
    np.testing.assert_allclose(by("norm_bounded", rows), [1.0, 2 / 3], rtol=1e-14)


def test_an_update_whose_norm_overflows_counts_as_nothing_in_the_norm_bounded_mean():
    rows = [np.array([1.0]), np.array([1.0]), np.array([1e300])]
    np.testing.assert_allclose(by("norm_bounded", rows), [2 / 3], rtol=1e-14)


@pytest.mark.parametrize("rule", RULES)
@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32 - 1), st.permutations(range(7)), st.sampled_from(["float16", "float32", "float64"]))
def test_the_order_of_the_sites_changes_no_bit_of_any_rule(rule, seed, order, kind):
    rng = np.random.default_rng(seed)
    rows, weights = rng.normal(size=(7, 50)).astype(kind), rng.integers(1, 100, 7).tolist()
    rows[rng.random((7, 50)) < 0.2] *= 0
    updates, config = in_memory(list(rows)), MergeConfig(rule=rule, faulty=2)
    first = merge(updates, weights, config)[kind]
    second = merge([updates[i] for i in order], [weights[i] for i in order], config)[kind]
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("rule", RULES)
@UNTIMED
@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=9), st.integers(5, 9))
def test_of_equal_updates_every_rule_makes_that_update(rule, values, count):
    row = np.array(values, "float32")
    found = by(rule, [row] * count)
    if rule in ROBUST:
        assert (found == row).all()
    np.testing.assert_allclose(found, row, rtol=0, atol=2**-21 * np.abs(row).max() + 2.0**-100)


ATTACKS = {
    "scaled": lambda honest, rng: honest[0] * np.float32(100),
    "flipped": lambda honest, rng: -np.mean(honest, axis=0),
    "huge": lambda honest, rng: np.full_like(honest[0], 1e30),
    "mixed": lambda honest, rng: rng.choice([-1, 1], honest[0].size) * 10.0 ** rng.uniform(-3, 38, honest[0].size),
}


@pytest.mark.parametrize("rule", ROBUST)
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize(("count", "faulty"), [(5, 1), (7, 2), (11, 4)])
def test_hostile_updates_move_no_coordinate_beyond_the_honest_ones(rule, attack, count, faulty):
    rng = np.random.default_rng(count)
    honest = rows_of(count - faulty, count, 501)
    hostile = [ATTACKS[attack](honest, rng).astype("float32") for _ in range(faulty)]
    found = by(rule, [*hostile, *honest], faulty=faulty, weights=[10**6] * faulty + [1] * (count - faulty))
    assert (found >= np.min(honest, axis=0)).all()
    assert (found <= np.max(honest, axis=0)).all()
    mean = np.average(np.stack([*hostile, *honest]).astype("float64"), axis=0)
    assert np.linalg.norm(found - np.mean(honest, axis=0)) < np.linalg.norm(mean - np.mean(honest, axis=0))


@pytest.mark.parametrize("attack", ["scaled", "flipped", "huge"])
def test_multi_krum_leaves_out_what_lies_far_away(attack):
    honest = rows_of(6, 1, 501)
    hostile = ATTACKS[attack](honest, np.random.default_rng(0)).astype("float32")
    found = by("multi_krum", [hostile, *honest], weights=[50, 1, 2, 3, 4, 5, 6])
    assert found.tobytes() == by("mean", honest, [1, 2, 3, 4, 5, 6]).tobytes()


@UNTIMED
@given(st.integers(0, 2**32 - 1), st.floats(1, 1e30))
def test_the_norm_bounded_mean_is_moved_by_no_more_than_a_share_of_the_bound(seed, size):
    rng = np.random.default_rng(seed)
    honest, hostile = list(rng.normal(size=(4, 20))), rng.normal(size=20) * size
    moved = by("norm_bounded", [hostile, *honest], [1] * 5, norm_bound=2.0)
    without = by("norm_bounded", [np.zeros(20), *honest], [1] * 5, norm_bound=2.0)
    assert np.linalg.norm(moved - without) <= 2.0 / 5 * (1 + 1e-12)


@pytest.mark.parametrize(
    ("rule", "faulty", "fewest"),
    [
        ("mean", 3, 1),
        ("norm_bounded", 1, 3),
        ("median", 2, 5),
        ("trimmed_mean", 2, 5),
        ("krum", 1, 5),
        ("multi_krum", 2, 7),
    ],
)
def test_a_rule_is_refused_where_a_round_may_have_too_few_updates(rule, faulty, fewest):
    config = MergeConfig(rule=rule, faulty=faulty)
    check_rule(config, fewest)
    if fewest > 1:
        with pytest.raises(ConfigError, match=f"at least {fewest} updates.*min_sites to {fewest}"):
            check_rule(config, fewest - 1)
        with pytest.raises(ConfigError, match="as few as"):
            merge(in_memory(rows_of(fewest - 1, size=3)), [1] * (fewest - 1), config)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_merges_all_types_from_the_disk_and_leaves_no_update_in_memory(tmp_path, rule):
    packed = [{"float32": row, "float64": row[:7].astype("float64")} for row in rows_of(5, size=30 * BLOCK)]
    updates = spooled(tmp_path, packed)
    found = merge(updates, [1] * 5, MergeConfig(rule=rule))
    in_core = merge(in_memory(packed), [1] * 5, MergeConfig(rule=rule))
    assert {dtype: flat.tobytes() for dtype, flat in found.items()} == {
        dtype: flat.tobytes() for dtype, flat in in_core.items()
    }
    assert resident(tmp_path) == 0
