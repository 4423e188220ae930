"""Ray has a process of its own here: what it leaves to Python's collector would warn in whatever test comes next."""

import os
import select
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

from mumc_model.checkpoint import load_weights

WEIGHTS = Path("seed-0", "runs", "federated", "weights.safetensors")
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


@pytest.fixture
def sockets():
    """A short path, since the system limits how long a socket's may be."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        yield folder


def bearing(name, value):
    """Processes whose environment has this variable with this value."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"{name}={value}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def wait_for_end(process, timeout_s):
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(process)
        select.select([handle], [], [], timeout_s)
        os.close(handle)


@pytest.mark.e2e
def test_ray_merges_the_weights_that_one_process_merges_and_leaves_no_process(overrides, tmp_path, sockets, alone):
    command = [str(Path(sys.executable).with_name("mumc-sim")), "run", *overrides, f"output_root={tmp_path}"]
    on_ray = ["engine=ray", "engine.workers=2", "arms=[federated]"]
    environment = os.environ | QUIET | {"RAY_TMPDIR": sockets}
    done = subprocess.run([*command, *on_ray], env=environment, cwd=tmp_path, capture_output=True, timeout=280)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    ray, local = load_weights(tmp_path / "latest" / WEIGHTS), load_weights(alone[1] / WEIGHTS)
    assert ray.keys() == local.keys()
    assert max(float((ray[name] - local[name]).abs().max()) for name in local) <= 1e-5
    assert (tmp_path / "latest" / "report.html").is_file()
    for process in bearing("RAY_TMPDIR", sockets):
        wait_for_end(process, 10)
    # Ray's own processes may still start one that ends with them.
    deadline = time.monotonic() + 30
    while bearing("RAY_TMPDIR", sockets) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert bearing("RAY_TMPDIR", sockets) == []
