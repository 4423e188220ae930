"""A site that trains in several processes: the same update, one round's worth of processes, and no round that hangs."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from client.config import SiteConfig
from client.ranks import SiteRanks
from configs.loader import ConfigurationError
from mumc_model.device import choose_devices
from mumc_model.errors import DeviceError, DivergedError
from mumc_model.ranks import join
from mumc_model.train import Pretrainer


def share(folder, processes):
    settings = folder / "site.yaml"
    settings.write_text(f"{settings.read_text()}processes: {processes}\n")


JOINING = """
import json, os, pathlib, sys, time, torch
from mumc_model.ranks import join
place = json.loads(sys.stdin.readline())["place"]
folder = pathlib.Path(place["folder"])
(folder / "ready-1").touch()
group = join(torch.device("cpu"), rank=1, size=2, meeting=f"file://{folder}/meeting")
group.__enter__()
"""
"""A process that comes to the group as `client.rank_process` does, for a fraction of its imports."""


def with_others(monkeypatch, code):
    """Have a site start `python -c code(rank)` in place of its other processes; those that were started."""
    started = []

    def start(ranks, rank):
        with (ranks._folder / f"rank-{rank}.log").open("w") as log:
            command = [sys.executable, "-c", code(rank)]
            started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log, text=True))
        return started[-1]

    monkeypatch.setattr(SiteRanks, "_start", start)
    return started


def left_behind(folder):
    return [path.name for path in (folder / "state").glob("ranks-*")]


def test_two_processes_send_the_update_that_one_sends_to_rounding(server, folder, monkeypatch):
    alone = server.ask(folder, server.pretrain())
    for path in (folder / "state" / "runs").rglob("*.safetensors"):
        path.unlink()
    share(folder, 2)
    started, start = [], SiteRanks._start
    monkeypatch.setattr(SiteRanks, "_start", lambda ranks, rank: started.append(start(ranks, rank)) or started[-1])
    together = server.ask(folder, server.pretrain())
    assert together.message.metrics == pytest.approx(alone.message.metrics, rel=1e-5)
    assert together.message.examples == alone.message.examples
    # Not number by number: biases of attention keys have no gradient but rounding, of which Adam makes small steps.
    for dtype, flat in alone.arrays.items():
        assert np.linalg.norm(together.arrays[dtype] - flat) < 0.005 * np.linalg.norm(flat)
    assert [process.returncode for process in started] == [0]
    assert left_behind(folder) == []


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("os.kill(os.getpid(), 9)", "process 1 of 0 to 1, on cpu, ended with exit code -9; mend what it says"),
        (
            "time.sleep(60)",
            "a process of 2 did not answer the others within 1 s; see what else its device is busy with",
        ),
    ],
    ids=["dies", "hangs"],
)
def test_a_process_that_is_lost_in_a_round_ends_it_with_a_refusal_and_a_word_in_the_log(
    fault, told, server, folder, monkeypatch
):
    share(folder, 2)
    started = with_others(monkeypatch, lambda rank: JOINING + fault)
    monkeypatch.setattr(SiteRanks.__init__, "__defaults__", (1.0,))
    refused = server.ask(folder, server.pretrain()).message
    assert refused.code == "processes"
    assert refused.text == "a process of the site's training was lost; see the site's log"
    assert told in (folder / "state" / "site.log").read_text()
    assert [process.returncode for process in started] == [-9]
    assert left_behind(folder) == []


def test_a_round_that_fails_here_ends_the_others_before_it_leaves_the_group(server, folder, monkeypatch):
    """Over NCCL leaving waits for the others, and those for this process."""
    share(folder, 2)
    started = with_others(monkeypatch, lambda rank: JOINING + "time.sleep(60)")
    at_leaving, begun = [], []

    @contextmanager
    def group(*where, **how):
        with join(*where, **how) as ranks:
            try:
                yield ranks
            finally:
                at_leaving.extend(process.poll() for process in started)

    def diverges(*_, **__):
        begun.append(time.monotonic())
        raise DivergedError("the loss is nan")

    monkeypatch.setattr("client.ranks.join", group)
    monkeypatch.setattr(Pretrainer, "run", diverges)
    assert server.ask(folder, server.pretrain()).message.code == "diverged"
    assert time.monotonic() - begun[0] < 20
    assert at_leaving == [-9]
    assert left_behind(folder) == []


def test_a_real_process_that_refuses_its_job_is_told_with_its_own_error(server, folder, monkeypatch):
    share(folder, 2)
    monkeypatch.setattr("client.pretrain.captions_digest", lambda site: "of other captions")
    assert server.ask(folder, server.pretrain()).message.code == "processes"
    told = (folder / "state" / "site.log").read_text()
    assert "RanksError: process 1 of 0 to 1, on cpu, ended with exit code 1" in told
    assert "DataError: the site's captions changed while a round began; the next attempt reads them anew" in told
    assert left_behind(folder) == []


def test_a_process_that_cannot_start_is_told_with_its_own_words_and_old_meeting_places_go(server, folder, monkeypatch):
    share(folder, 3)
    faults = {1: "import time; time.sleep(60)", 2: "import sys; sys.exit('no room for it')"}
    started = with_others(monkeypatch, faults.get)
    for name, age_s in (("ranks-killed", 100_000), ("ranks-at-work", 1000)):
        (folder / "state" / name).mkdir(parents=True)
        os.utime(folder / "state" / name, (time.time() - age_s,) * 2)
    assert server.ask(folder, server.pretrain()).message.code == "processes"
    assert "ended with exit code 1; mend what it says, or set processes: 1 in site.yaml: no room for it" in (
        (folder / "state" / "site.log").read_text()
    )
    assert [process.returncode for process in started] == [-9, 1]
    assert left_behind(folder) == ["ranks-at-work"]


def test_a_device_for_each_process_is_one_gpu_after_another_or_the_cpu_and_a_single_one_is_refused(monkeypatch):
    with pytest.raises(DeviceError, match="nothing has been tried on the device 'meta'"):
        choose_devices("meta", 2)
    with monkeypatch.context() as two_gpus:
        two_gpus.setattr("mumc_model.device.choose_device", torch.device)
        with pytest.raises(DeviceError, match="set device to cuda"):
            choose_devices("cuda:1", 2)
    assert list(map(str, choose_devices("cpu", 3))) == ["cpu"] * 3
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert list(map(str, choose_devices("auto", 2))) == ["cuda:0", "cuda:1"]
    with pytest.raises(DeviceError, match="processes is 3, but there are 2 GPUs here"):
        choose_devices("auto", 3)


def test_no_process_at_all_is_refused():
    with pytest.raises(ConfigurationError, match=r"processes in site\.yaml is 0"):
        SiteConfig(name="north", processes=0)
