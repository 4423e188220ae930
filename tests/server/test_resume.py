"""A server that ends at any step on the disk goes on to the same weights, and counts nobody twice."""

import contextlib
import dataclasses
import json
import os
import subprocess
from pathlib import Path

import pytest

from protocol.lock import exclusive
from server import federation
from server.checkpoint import saved_round
from server.config import SecaggConfig, StrategyConfig
from server.errors import FederationError, OutputError
from server.journal import read_journal
from tests.server.fake_grid import FakeGrid, site
from tests.server.test_federation import Enrolled

NODES = {11: site("north", 1.0, 10, 2.0), 12: site("south", 2.0, 30, 4.0), 13: site("east", 3.0, 20, 1.0)}
STEPS = ("replace", "fsync", "link", "unlink", "rmdir", "mkdir")


class KilledError(BaseException):
    """The process ends here."""


class Mortal:
    """Ends the process at its n-th step on the disk: nothing that it would have done after that is done."""

    def __init__(self, monkeypatch):
        self._monkeypatch, self.steps, self.last = monkeypatch, 0, None
        for name in STEPS:
            monkeypatch.setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, step):
        def counted(*args, **rest):
            self.steps += 1
            if self.last is not None and self.steps > self.last:
                raise KilledError
            return step(*args, **rest)

        return counted

    def dies_after(self, steps):
        self.steps, self.last = 0, steps

    def lives(self):
        self.last = None


@pytest.fixture
def mortal(monkeypatch):
    return Mortal(monkeypatch)


def several(configured, folder="run", **changes):
    strategy = StrategyConfig(optimizer="adam", lr=0.01)
    return configured(folder, strategy, run_id="r", **{"rounds": 2, "final": "finetune", **changes})


def known(journal):
    """What a journal says but for times and bytes."""
    return [
        dataclasses.replace(record, seconds=0, ended="", bytes_up=0, bytes_down=0) for record in read_journal(journal)
    ]


def test_a_run_that_ends_at_any_step_on_the_disk_comes_to_the_same_weights(configured, mortal):
    whole = federation.run(FakeGrid(NODES), several(configured, "whole"))
    steps = mortal.steps
    assert steps > 60
    for last in range(0, steps, 5):
        config = several(configured, f"dies-{last}")
        folder = Path(config.output_dir)
        mortal.dies_after(last)
        with pytest.raises(KilledError):
            federation.run(FakeGrid(NODES), config)
        mortal.lives()
        if not (folder / "result.json").exists():
            federation.run(FakeGrid(NODES), config, resume=(folder / "config.json").exists())
            assert not (folder / "round").exists()
        assert (folder / "weights.safetensors").read_bytes() == whole.weights.read_bytes(), f"ended after {last} steps"
        assert known(folder / "journal.jsonl") == known(whole.journal), f"ended after {last} steps"
        assert json.loads((folder / "result.json").read_text())["vqa"]["sites"].keys() == whole.vqa.keys()


def test_a_run_that_keeps_several_rounds_ends_in_the_same_files_wherever_it_broke_off(configured, mortal):
    changes = {"final": "none", "rounds": 4, "keep_weights": 3, "secagg": SecaggConfig(mode="off")}

    def tensors(folder):
        return {path.name: path.read_bytes() for path in Path(folder).glob("*.safetensors")}

    whole = federation.run(FakeGrid(NODES), several(configured, "whole", **changes))
    ended, steps = tensors(whole.weights.parent), mortal.steps
    assert ended.keys() == {
        "optimizer-0004.safetensors",
        "weights-0002.safetensors",
        "weights-0003.safetensors",
        "weights.safetensors",
    } | {name for name in ended if name.startswith("step-")}
    for last in range(steps - 30, steps, 2):
        config = several(configured, f"dies-{last}", **changes)
        mortal.dies_after(last)
        with pytest.raises(KilledError):
            federation.run(FakeGrid(NODES), config)
        mortal.lives()
        if not (Path(config.output_dir) / "result.json").exists():
            federation.run(FakeGrid(NODES), config, resume=True)
        assert tensors(config.output_dir) == ended, f"ended after {last} steps"


def test_a_site_whose_update_is_on_the_disk_is_not_asked_again(configured, monkeypatch):
    """Names are known before a site answers where sites are enrolled; one is asked after the other here."""
    monkeypatch.setattr("server.federation.installed_digest", lambda: "")

    def dies_at_south(order, base):
        if order.round == 2:
            raise KilledError
        return NODES[12](order, base)

    config = several(configured, final="none", at_once=1, secagg=SecaggConfig(mode="off"))
    with pytest.raises(KilledError):
        federation.run(FakeGrid(NODES | {12: dies_at_south}), config, post=Enrolled())
    assert saved_round(Path(config.output_dir)) == ("r", 1)
    later = FakeGrid(NODES)
    result = federation.run(later, config, post=Enrolled(), resume=True)
    assert [(node, order.round) for node, order in later.orders] == [(12, 2), (13, 2)]
    assert [record.merged for record in read_journal(result.journal)] == [["east", "north", "south"]] * 2


@pytest.fixture
def closed_round(configured, monkeypatch):
    """A run whose process ended after the deadline of its only round, before anything was merged."""
    config = several(configured, final="none", rounds=1)

    def dies(*args):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr("server.strategy.merge", dies)
        with pytest.raises(KilledError):
            federation.run(FakeGrid(NODES), config)
    return config


def test_a_closed_round_asks_nobody(closed_round):
    later = FakeGrid({})
    result = federation.run(later, closed_round, resume=True)
    assert later.orders == []
    assert read_journal(result.journal)[0].merged == ["east", "north", "south"]


def test_an_update_that_is_gone_from_a_closed_round_is_missed(closed_round):
    (Path(closed_round.output_dir) / "round" / "updates" / "south.safetensors").unlink()
    with pytest.raises(OutputError, match=r"the updates of south are gone from .*, and the round was closed with them"):
        federation.run(FakeGrid(NODES), closed_round, resume=True)


def test_moments_that_are_gone_are_missed(configured):
    def dies_in_the_second(order, base):
        if order.round == 2:
            raise KilledError
        return NODES[13](order, base)

    config = several(configured, final="none")
    with pytest.raises(KilledError):
        federation.run(FakeGrid(NODES | {13: dies_in_the_second}), config)
    (Path(config.output_dir) / "optimizer-0001.safetensors").unlink()
    with pytest.raises(OutputError, match=r"the moments of round 1 in .* cannot be used: the saved optimiser"):
        federation.run(FakeGrid(NODES), config, resume=True)


def test_a_run_that_lost_too_many_sites_can_be_gone_on_with(configured):
    def silent(order, base):
        return None

    config = several(configured, round_timeout_s=0.1, attempts=2, final="none")
    with pytest.raises(FederationError, match="round 1, attempt 2 is void"):
        federation.run(FakeGrid({11: NODES[11], 12: silent, 13: silent}), config)
    grid = FakeGrid(NODES)
    result = federation.run(grid, config, resume=True)
    records = read_journal(result.journal)
    assert [(r.round, r.attempt, r.sites_merged) for r in records] == [(1, 1, 0), (1, 2, 0), (1, 3, 3), (2, 1, 3)]
    asked = [(order.round, order.attempt) for _, order in grid.orders]
    assert asked == [(1, 3)] * 3 + [(2, 1)] * 3


def test_an_attempt_asks_only_those_whose_update_is_missing(configured):
    """Names are known before a site answers where sites are enrolled; here they are learnt in the first attempt."""
    answers = {12: 0}

    def silent_at_first(order, base):
        answers[12] += 1
        return None if answers[12] == 1 else NODES[12](order, base)

    grid = FakeGrid({11: NODES[11], 12: silent_at_first})
    config = several(configured, round_timeout_s=0.1, rounds=1, sites=2, final="none")
    result = federation.run(grid, config)
    assert [(node, order.attempt) for node, order in grid.orders] == [(11, 1), (12, 1), (12, 2)]
    records = read_journal(result.journal)
    assert [(r.attempt, r.sites_merged) for r in records] == [(1, 0), (2, 2)]


def test_a_finished_run_and_a_folder_without_one_cannot_be_gone_on_with(configured):
    config = several(configured, rounds=1)
    with pytest.raises(OutputError, match=r"holds no run to go on with \(no config\.json\); check the name"):
        federation.run(FakeGrid(NODES), config, resume=True)
    federation.run(FakeGrid(NODES), config)
    with pytest.raises(OutputError, match="already holds a finished run"):
        federation.run(FakeGrid(NODES), config, resume=True)


def test_two_processes_do_not_play_one_run(configured):
    config = several(configured)
    folder = Path(config.output_dir)
    folder.mkdir()
    with exclusive(folder / ".lock", OutputError), pytest.raises(OutputError, match="another process has held"):
        federation.run(FakeGrid(NODES), config)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 600 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a disk of its own cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(path):
    """Let the file take all that is left of its disk."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(512))


def test_a_full_disk_is_named_and_the_run_goes_on_once_there_is_room(configured, small_disk):
    whole = federation.run(FakeGrid(NODES), several(configured, "whole"))
    config = dataclasses.replace(several(configured), output_dir=str(small_disk / "run"))
    filler = small_disk / "filler"

    def fills_the_disk(order, base):
        if order.round == 2:
            fill(filler)
        return NODES[12](order, base)

    full = r"No space left on device \(0\.00 of 0\.00 GB free\); the last checkpoint stands: free some space"
    with pytest.raises(OutputError, match=full):
        federation.run(FakeGrid(NODES | {12: fills_the_disk}), config)
    assert saved_round(small_disk / "run") == ("r", 1)
    filler.unlink()
    again = federation.run(FakeGrid(NODES), config, resume=True)
    assert again.weights.read_bytes() == whole.weights.read_bytes()


def test_a_disk_that_became_read_only_is_named_and_keeps_the_last_checkpoint(configured, small_disk):
    config = dataclasses.replace(several(configured), output_dir=str(small_disk / "run"))

    def remount(how):
        subprocess.run(["mount", "-o", f"remount,{how}", str(small_disk)], check=True)

    def locks_the_disk(order, base):
        if order.round == 2:
            remount("ro")
        return NODES[12](order, base)

    try:
        with pytest.raises(OutputError, match=r"Read-only file system .*: mount it for writing, and go on"):
            federation.run(FakeGrid(NODES | {12: locks_the_disk}), config)
        assert saved_round(small_disk / "run") == ("r", 1)
    finally:
        remount("rw")
    assert federation.run(FakeGrid(NODES), config, resume=True).vqa


def test_the_journal_goes_on_after_a_line_that_a_crash_has_cut_off(configured):
    def fails(order, base):
        raise KilledError

    config = several(configured, final="none")
    with pytest.raises(KilledError):
        federation.run(
            FakeGrid(
                NODES | {13: lambda order, base: fails(order, base) if order.round == 2 else NODES[13](order, base)}
            ),
            config,
        )
    journal = Path(config.output_dir) / "journal.jsonl"
    with journal.open("a") as file:
        file.write('{"schema_version": 4, "run_')
    result = federation.run(FakeGrid(NODES), config, resume=True)
    assert [json.loads(line)["round"] for line in result.journal.read_text().splitlines()] == [1, 2]
