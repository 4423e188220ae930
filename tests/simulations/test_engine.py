"""An engine that is abandoned, because a run failed or somebody pressed Ctrl-C, keeps nobody waiting."""

import time
from threading import Event

import pytest
from flwr.app import RecordDict
from rich.console import Console

from server.errors import FederationError
from simulations import run, seed
from simulations.engine import EngineConfig, open_engine
from simulations.grid import LocalGrid


@pytest.fixture
def workers(tmp_path):
    engine = open_engine(EngineConfig(workers=2), tmp_path / "log")
    yield engine
    engine.close()


def test_abandoned_workers_answer_with_an_error_and_take_no_more_messages(workers, tmp_path):
    grid = LocalGrid({101: tmp_path}, workers)
    message = grid.create_message(RecordDict(), "train.pretrain", 101, "1")
    ids = grid.push_messages([message])
    workers.abandon()
    deadline = time.monotonic() + 60
    while not (replies := grid.pull_messages(ids)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert replies[0].has_error()
    with pytest.raises(RuntimeError, match="shutdown"):
        grid.push_messages([message])


class Idle:
    """An engine whose clients never answer until it is abandoned."""

    def __init__(self):
        self.abandoned = Event()

    def abandon(self):
        self.abandoned.set()

    def close(self):
        pass


@pytest.mark.parametrize("failure", [FederationError("void"), KeyboardInterrupt()], ids=["failure", "ctrl-c"])
def test_an_arm_that_fails_ends_the_others(tiny, tmp_path, monkeypatch, failure):
    engine = Idle()

    def app(grid, context):
        if grid.get_node_ids() == [101]:  # one hospital, or the pool
            assert engine.abandoned.wait(60)
            raise FederationError("abandoned")
        raise failure

    monkeypatch.setattr(run, "open_engine", lambda config, log: engine)
    monkeypatch.setattr(seed, "server_app", app)
    with pytest.raises(type(failure)):
        run.simulate(tiny(tmp_path, "arms=[local,federated]"), "pytest", Console(quiet=True))
