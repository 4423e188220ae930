"""A site that trains in several processes: the same update, one round's worth of processes, and no round that hangs."""

import subprocess
import sys

import numpy as np
import pytest

from client.config import SiteConfig
from client.ranks import SiteRanks
from configs.loader import ConfigurationError
from mumc_model.device import choose_devices
from mumc_model.errors import DeviceError


def share(folder, processes):
    settings = folder / "site.yaml"
    settings.write_text(f"{settings.read_text()}processes: {processes}\n")


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


def test_a_process_that_dies_in_a_round_ends_it_with_a_refusal_and_a_word_in_the_log(server, folder, monkeypatch):
    share(folder, 2)
    started, join = [], SiteRanks.join

    def join_and_kill(ranks, job):
        group = join(ranks, job)
        ranks._others[0].kill()
        started.extend(ranks._others)
        return group

    monkeypatch.setattr(SiteRanks, "join", join_and_kill)
    refused = server.ask(folder, server.pretrain()).message
    assert (refused.code, refused.text) == (
        "processes",
        "a process of the site's training ended early; see the site's log",
    )
    assert "process 1 of 0 to 1, on cpu, ended with exit code -9" in (folder / "state" / "site.log").read_text()
    assert [process.returncode for process in started] == [-9]
    assert left_behind(folder) == []


def test_a_process_that_cannot_start_is_told_with_its_own_words(server, folder, monkeypatch):
    share(folder, 3)

    def start(ranks, rank):
        with (ranks._folder / f"rank-{rank}.log").open("w") as log:
            code = "import sys; sys.exit('no room for it')" if rank == 2 else "import time; time.sleep(60)"
            return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=log, text=True)

    monkeypatch.setattr(SiteRanks, "_start", start)
    assert server.ask(folder, server.pretrain()).message.code == "processes"
    assert "ended with exit code 1; mend what it says, or set processes: 1 in site.yaml: no room for it" in (
        folder / "state" / "site.log"
    ).read_text().replace("\n    ", " ")


def test_a_device_for_each_process_is_one_gpu_after_another_or_the_cpu_and_a_single_one_is_refused(monkeypatch):
    with pytest.raises(DeviceError, match="set device to cuda"):
        choose_devices("meta", 2)
    assert list(map(str, choose_devices("cpu", 3))) == ["cpu"] * 3
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert list(map(str, choose_devices("auto", 2))) == ["cuda:0", "cuda:1"]
    with pytest.raises(DeviceError, match="processes is 3, but there are 2 GPUs here"):
        choose_devices("auto", 3)


def test_no_process_at_all_is_refused():
    with pytest.raises(ConfigurationError, match=r"processes in site\.yaml is 0"):
        SiteConfig(name="north", processes=0)
