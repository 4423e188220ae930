import time

import httpx
import pytest
from flwr.app import RecordDict

from protocol.messages import Order, Refusal
from protocol.records import to_record
from server.errors import FederationError
from server.exchange import exchange, wait_for_nodes
from tests.server.fake_grid import FakeGrid

ORDER = Order(
    run_id="r",
    round=1,
    attempt=1,
    action="train.pretrain",
    recipe={},
    vocabulary=(),
    first_step=0,
    steps=1,
    total_steps=1,
    seed=0,
    base_digest="0" * 64,
)


def answers(order, base):
    return to_record(Refusal(code="data", text=""))


def silent(order, base):
    return None


def asked(grid, nodes, timeout_s=5.0, **settings):
    return exchange(grid, nodes, lambda node: to_record(ORDER), ORDER, timeout_s=timeout_s, **settings)


class LateGrid(FakeGrid):
    """Nodes come online one look after the other."""

    def get_node_ids(self):
        self.looks = getattr(self, "looks", 0) + 1
        return list(self.nodes)[: self.looks]


class BrokenGrid(FakeGrid):
    """Reading a reply fails as Flower does on malformed bytes, or as a network does."""

    def __init__(self, nodes, error):
        super().__init__(nodes)
        self.error = error

    def pull_messages(self, message_ids):
        if "-2" in next(iter(message_ids)):
            raise self.error
        return super().pull_messages(message_ids)


class OmittingGrid(FakeGrid):
    """Leaves out the ids of messages that it does not take, as Flower's in-memory grid does."""

    def push_messages(self, messages):
        return [message_id for message_id in super().push_messages(messages) if message_id]


def test_replies_come_in_the_order_of_arrival():
    grid = FakeGrid(dict.fromkeys((1, 2, 3), answers), arrival=[3, 1, 2])
    assert [reply.node for reply in asked(grid, [1, 2, 3])] == [3, 1, 2]


def test_a_reply_is_handed_on_before_the_others_are_there():
    grid = FakeGrid({1: silent, 2: answers, 3: silent})
    assert next(iter(asked(grid, [1, 2, 3], timeout_s=60.0))).node == 2


def test_silent_nodes_are_named_at_the_deadline_and_not_before():
    started = time.monotonic()
    replies = list(asked(FakeGrid({1: silent, 2: answers, 3: silent}), [1, 2, 3], timeout_s=0.15))
    assert [(reply.node, reply.fault) for reply in replies] == [(2, ""), (1, "no_answer"), (3, "no_answer")]
    assert 0.15 <= time.monotonic() - started < 1.0


def test_what_is_ready_at_the_deadline_is_still_taken():
    """The consumer is slow: merging the first reply takes longer than the deadline."""
    replies = asked(FakeGrid({1: answers, 2: answers}), [1, 2], timeout_s=0.05)
    first = next(replies)
    time.sleep(0.1)
    assert [first.fault, *(reply.fault for reply in replies)] == ["", ""]


@pytest.mark.parametrize("kind", [FakeGrid, OmittingGrid])
def test_a_node_whose_message_is_not_taken_is_named(kind):
    grid = kind({1: answers, 2: answers, 3: answers}, refused=[2])
    assert {reply.node: reply.fault for reply in asked(grid, [1, 2, 3])} == {1: "", 2: "not_sent", 3: ""}


def test_a_reply_that_flower_cannot_read_costs_its_site_alone():
    grid = BrokenGrid({1: answers, 2: answers}, ValueError("Unexpected set of `children`"))
    assert {reply.node: reply.fault for reply in asked(grid, [1, 2])} == {1: "", 2: "unreadable"}


class BusyGrid(FakeGrid):
    """The SuperLink fails at the first looks with this status."""

    def __init__(self, nodes, status, looks):
        super().__init__(nodes)
        self.status, self.looks = status, looks

    def pull_messages(self, message_ids):
        self.looks -= 1
        if self.looks >= 0:
            httpx.Response(self.status, request=httpx.Request("POST", "https://server")).raise_for_status()
        return super().pull_messages(message_ids)


def test_a_superlink_that_is_busy_is_asked_again(caplog):
    grid = BusyGrid({1: answers, 2: answers}, status=500, looks=3)
    assert {reply.node: reply.fault for reply in asked(grid, [1, 2])} == {1: "", 2: ""}
    assert caplog.text.count("500") == 3


def test_a_superlink_that_refuses_is_not_asked_again():
    with pytest.raises(httpx.HTTPStatusError):
        list(asked(BusyGrid({1: answers}, status=401, looks=1), [1]))


def test_a_failing_network_is_not_put_down_to_a_site():
    with pytest.raises(ConnectionError):
        list(asked(BrokenGrid({1: answers, 2: answers}, ConnectionError()), [1, 2]))


def test_no_more_nodes_hold_an_order_at_once_than_was_said():
    grid = FakeGrid(dict.fromkeys(range(1, 6), answers))
    sent = []
    for taken, reply in enumerate(asked(grid, range(1, 6), at_once=2)):
        assert reply.fault == ""
        sent.append(len(grid.orders) - taken)
    assert max(sent) == 2
    assert [node for node, _ in grid.orders] == [1, 2, 3, 4, 5]


def test_a_silent_node_makes_room_for_the_next_when_its_time_is_up():
    started = time.monotonic()
    replies = list(asked(FakeGrid({1: silent, 2: silent, 3: answers}), [1, 2, 3], timeout_s=0.1, at_once=1))
    assert [(reply.node, reply.fault) for reply in replies] == [(1, "no_answer"), (2, "no_answer"), (3, "")]
    assert 0.2 <= time.monotonic() - started < 1.0


def test_a_node_that_could_not_be_asked_makes_room_at_once():
    grid = FakeGrid(dict.fromkeys((1, 2, 3), answers), refused=[1])
    assert {reply.node: reply.fault for reply in asked(grid, [1, 2, 3], at_once=1)} == {1: "not_sent", 2: "", 3: ""}


def test_a_message_outlives_the_deadline_and_no_more():
    grid, ttls = FakeGrid({1: answers}), []
    push = grid.push_messages
    grid.push_messages = lambda messages: push([ttls.append(m.metadata.ttl) or m for m in messages])
    list(asked(grid, [1], timeout_s=5.0))
    assert ttls == [65.0]


def test_the_expected_nodes_are_waited_for():
    grid = LateGrid(dict.fromkeys((3, 1, 2), lambda order, base: RecordDict()))
    assert wait_for_nodes(grid, wanted=3, least=1, wait_s=5.0) == [1, 2, 3]


def test_enough_nodes_go_on_after_the_wait_and_too_few_do_not(caplog):
    grid = FakeGrid({1: answers, 2: answers})
    assert wait_for_nodes(grid, wanted=3, least=2, wait_s=0.05) == [1, 2]
    assert "sites 2/3 online after" in caplog.text
    with pytest.raises(FederationError, match=r"2 sites came online within 0\.05 s, but at least 3"):
        wait_for_nodes(grid, wanted=3, least=3, wait_s=0.05)


def test_a_wait_for_sites_is_told_once_and_only_where_it_lasts(caplog, monkeypatch):
    grid = FakeGrid({1: answers, 2: answers})
    wait_for_nodes(grid, wanted=3, least=2, wait_s=0.1)
    assert "waiting for the others" not in caplog.text
    monkeypatch.setattr("server.exchange._SILENT_S", 0.0)
    wait_for_nodes(grid, wanted=3, least=2, wait_s=0.1)
    assert caplog.text.count("sites 2/3 online; waiting for the others, at most 0.1 s") == 1


def test_a_lost_site_gets_a_moment_to_come_back():
    class Grid:
        looks = 0

        def get_node_ids(self):
            self.looks += 1
            return [1, 2, 3] if self.looks > 3 else [1, 2]

    assert wait_for_nodes(Grid(), wanted=3, least=2, wait_s=5.0, rejoin_s=5.0) == [1, 2, 3]
    assert wait_for_nodes(Grid(), wanted=3, least=2, wait_s=5.0, rejoin_s=0.0) == [1, 2]
    assert wait_for_nodes(Grid(), wanted=3, least=3, wait_s=5.0, rejoin_s=0.0) == [1, 2, 3]


def test_a_grid_that_can_wait_for_replies_is_asked_to_and_nobody_sleeps(monkeypatch):
    class WaitingGrid(FakeGrid):
        """Its second reply is there only after a wait."""

        def __init__(self, nodes):
            super().__init__(nodes)
            self.waits = []

        def pull_messages(self, message_ids):
            return super().pull_messages(message_ids) if self.waits or "1-1" in message_ids else []

        def wait_for_any(self, message_ids, seconds):
            self.waits.append((set(message_ids), seconds))

    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it slept"))
    grid = WaitingGrid({1: answers, 2: answers})
    assert [reply.node for reply in asked(grid, [1, 2])] == [1, 2]
    # It gave one reply, and looked again before it waited for the other.
    assert [ids for ids, _ in grid.waits] == [{"1-2"}]
    assert 0 < grid.waits[0][1] <= 0.25
