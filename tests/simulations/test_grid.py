import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from simulations.grid import LocalGrid


class Echo:
    """An engine that answers at once with the site it was asked at."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.fail_at = fail_at

    def submit(self, message, context):
        future = Future()
        if context.node_id == self.fail_at:
            future.set_exception(ValueError("patient Smith"))
        else:
            content = RecordDict({"answer": ConfigRecord({"site": context.node_config["site"]})})
            future.set_result(Message(content, reply_to=message))
        return future

    def close(self):
        pass


@pytest.fixture
def grid():
    return LocalGrid({101: Path("/a"), 102: Path("/b")}, Echo())


def ask(grid, node):
    return grid.create_message(RecordDict(), "train.pretrain", node, "1")


def test_each_message_reaches_the_site_of_its_node(grid):
    replies = grid.send_and_receive([ask(grid, 101), ask(grid, 102)])
    assert sorted(reply.content["answer"]["site"] for reply in replies) == ["/a", "/b"]
    assert {reply.metadata.src_node_id for reply in replies} == {101, 102}


def test_a_reply_is_handed_out_once(grid):
    ids = grid.push_messages([ask(grid, 101)])
    assert len(grid.pull_messages(ids)) == 1
    assert grid.pull_messages(ids) == []


def test_a_client_that_raises_answers_with_an_error_that_names_no_detail():
    grid = LocalGrid({101: Path("/a")}, Echo(fail_at=101))
    (reply,) = grid.send_and_receive([ask(grid, 101)])
    assert reply.has_error()
    assert reply.error.reason == "ValueError"


def test_progress_counts_the_replies_taken():
    taken = []
    grid = LocalGrid({101: Path("/a")}, Echo(), on_reply=lambda: taken.append(1))
    grid.send_and_receive([ask(grid, 101)])
    assert taken == [1]


def test_a_wait_ends_with_the_first_reply_and_not_with_the_seconds_it_may_last():
    late = {101: Future(), 102: Future()}

    class Slow(Echo):
        def submit(self, message, context):
            return late[context.node_id]

    grid = LocalGrid({101: Path("/a"), 102: Path("/b")}, Slow())
    ids = grid.push_messages([ask(grid, 101), ask(grid, 102)])
    timer = threading.Timer(0.05, late[102].set_exception, [ValueError()])
    timer.start()
    started = time.monotonic()
    grid.wait_for_any(ids, 60.0)
    assert time.monotonic() - started < 30
    assert [reply.metadata.src_node_id for reply in grid.pull_messages(ids)] == [102]
    timer.join()


def test_a_wait_for_replies_that_do_not_come_lasts_its_seconds(grid):
    started = time.monotonic()
    grid.wait_for_any(["message-of-nobody"], 0.05)
    assert time.monotonic() - started >= 0.05
