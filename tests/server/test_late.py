"""Updates that come after the deadline of their round: refused, or used in the next one with less weight."""

import numpy as np
import pytest

from server import federation
from server.checkpoint import load_arrays
from server.journal import read_journal
from tests.server.fake_grid import FakeGrid, difference, site

NORTH, SOUTH, EAST = site("north", 1.0, 10), site("south", 2.0, 30), site("east", 3.0, 20)


class SlowGrid(FakeGrid):
    """Holds the replies of chosen rounds and nodes back until a later round has begun."""

    def __init__(self, nodes, held):
        super().__init__(nodes)
        self._held, self.latest = {f"{round}-{node}": until for (round, node), until in held.items()}, 0

    def push_messages(self, messages):
        self.latest = max(int(message.metadata.group_id) for message in messages)
        return super().push_messages(messages)

    def pull_messages(self, message_ids):
        (message_id,) = message_ids
        return [] if self.latest < self._held.get(message_id, 0) else super().pull_messages(message_ids)


def flat(weights):
    return np.concatenate([weights[name].ravel() for name in sorted(weights)]).astype(float)


def played(configured, held, nodes=None, **changes):
    config = configured(**{"rounds": 2, "round_timeout_s": 0.3, "run_id": "r", **changes})
    grid = SlowGrid(nodes or {11: NORTH, 12: SOUTH, 13: EAST}, held)
    result = federation.run(grid, config)
    return read_journal(result.journal), flat(load_arrays(result.weights)), grid


def update_of(grid, round, shift, size):
    order = next(order for _, order in grid.orders if order.round == round)
    return difference(order, {"float32": np.zeros(size, "float32")}, shift)["float32"].astype(float)


def test_a_late_update_is_refused_unless_the_run_says_otherwise(configured):
    records, weights, _ = played(configured, {(1, 12): 2})
    _, alone, _ = played(configured, {(1, 12): 9}, folder="never")
    assert [record.merged for record in records] == [["east", "north"], ["east", "north", "south"]]
    assert records[0].refused == {"000000000000000c": "no_answer"}
    assert records[1].late == {}
    assert np.array_equal(weights, alone)


@pytest.mark.parametrize(("staleness", "share"), [(0.0, 1.0), (0.5, 2**-0.5), (1.0, 0.5)])
def test_a_late_update_counts_in_the_next_round_with_less_weight(configured, staleness, share):
    """South is slow in round 1 and silent in round 2: its update of round 1 is merged beside the others' of round 2."""
    records, weights, grid = played(configured, {(1, 12): 2, (2, 12): 9}, late="discount", staleness=staleness)
    first, second = records
    assert (first.merged, second.merged, second.late) == (["east", "north"], ["east", "north", "south"], {"south": 1})
    assert second.refused == {}
    size = len(weights)
    two = [update_of(grid, 2, 1.0, size), update_of(grid, 1, 2.0, size), update_of(grid, 2, 3.0, size)]
    mean = np.average(two, axis=0, weights=[10, 30 * share, 20])
    before = played(configured, {(1, 12): 9}, folder="one", rounds=1)[1]
    np.testing.assert_allclose(weights - before, mean, rtol=1e-4, atol=2e-6)


def test_a_site_that_answers_its_round_in_time_is_not_counted_with_its_late_update_too(configured):
    records, weights, _ = played(configured, {(1, 12): 2}, late="discount")
    _, refused, _ = played(configured, {(1, 12): 2}, folder="refuse", late="refuse")
    assert records[1].late == {}
    assert records[1].examples == 60
    assert np.array_equal(weights, refused)


def test_a_late_update_with_a_fault_costs_its_site_nothing_in_the_next_round(configured):
    def ill_at_first(order, base):
        record = SOUTH(order, base)
        if order.round == 1:
            record["arrays"]["float32"].data = b"\xff" * len(record["arrays"]["float32"].data)
        return record

    nodes = {11: NORTH, 12: ill_at_first, 13: EAST}
    records, _, _ = played(configured, {(1, 12): 2}, nodes, late="discount")
    assert records[1].merged == ["east", "north", "south"]
    assert (records[1].late, records[1].refused) == ({}, {})


def test_what_is_known_of_a_silent_site_is_said(configured):
    records, _, _ = played(configured, {(1, 12): 9, (2, 12): 9})
    why = "no answer within 0.3 s, and its node is online: it is slow, or its task hangs"
    assert records[0].reasons == {"000000000000000c": why}


def test_a_silent_site_whose_node_is_gone_is_said_to_be_offline(configured):
    grid = SlowGrid({11: NORTH, 12: SOUTH, 13: EAST}, {(1, 12): 9})

    def falls(message_ids, pull=grid.pull_messages):
        grid.nodes.pop(12, None)
        return pull(message_ids)

    grid.pull_messages = falls
    result = federation.run(grid, configured(round_timeout_s=0.3))
    (record,) = read_journal(result.journal)
    assert "its node is offline: the machine, its network or its client is down" in record.reasons["000000000000000c"]


class SlowerGrid(FakeGrid):
    """Gives the reply of a node to a round and attempt only once a later one has begun."""

    def __init__(self, nodes, held):
        super().__init__(nodes)
        self._waits, self._until, self.latest = held, {}, (0, 0)

    def push_messages(self, messages):
        for message in messages:
            # An attempt at a round has messages of its own.
            message_id = f"m{len(self.orders)}"
            message.metadata.__dict__["_message_id"] = message_id
            self._answer(message)
            node, order = self.orders[-1]
            self.latest = max(self.latest, (order.round, order.attempt))
            self._until[message_id] = self._waits.get((node, order.round, order.attempt), (0, 0))
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, message_ids):
        (message_id,) = message_ids
        return [] if self.latest < self._until[message_id] else super().pull_messages(message_ids)


def slower(configured, held, **changes):
    config = configured(**{"round_timeout_s": 0.3, "run_id": "r", "late": "discount", **changes})
    grid = SlowerGrid({11: NORTH, 12: SOUTH, 13: EAST}, held)
    return read_journal(federation.run(grid, config).journal), grid


def test_a_late_update_that_was_merged_in_its_own_round_is_not_merged_again(configured):
    """South's reply to attempt 1 makes attempt 2 whole; its reply to attempt 2, the same update, comes in round 2."""
    held = {(12, 1, 1): (1, 2), (12, 1, 2): (2, 1), (12, 2, 1): (9, 9), (12, 2, 2): (2, 2)}
    records, _ = slower(configured, held, rounds=2, min_sites=3)
    merged = [(r.round, r.attempt, r.late) for r in records if "south" in r.merged]
    assert merged == [(1, 2, {}), (2, 2, {})]


def test_of_two_late_updates_the_newer_one_counts(configured):
    held = {(12, 1, 1): (3, 1), (12, 2, 1): (3, 1), (12, 3, 1): (9, 9)}
    records, _ = slower(configured, held, rounds=3)
    assert [record.late for record in records] == [{}, {}, {"south": 1}]


def test_a_site_whose_late_update_is_there_is_asked_again_in_the_next_attempt(configured):
    held = {(12, 2, 1): (3, 1), (12, 3, 1): (9, 9), (13, 3, 1): (9, 9), (11, 3, 1): (9, 9)}
    records, grid = slower(configured, held, rounds=3)
    assert {node for node, order in grid.orders if (order.round, order.attempt) == (3, 2)} == {11, 12, 13}
    assert (records[-1].merged, records[-1].late) == (["east", "north", "south"], {})
