"""The two apps in a real deployment on loopback: a SuperLink, two SuperNodes, and `flwr run`."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from configs.compose import compose
from configs.loader import load
from mumc_model.checkpoint import load_weights
from mumc_model.data.phantom import PhantomConfig, write_hospitals
from server import federation
from server.config import RunConfig
from simulations.engine import EngineConfig, open_engine
from simulations.grid import LocalGrid

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
APP = ("pyproject.toml", "README.md", "client", "configs", "mumc_model", "protocol", "server")
RUN = (
    "model=golden model.vision.image_size=32 model.text.vocab_size=0 run_id=trial seed=3 "
    "federation.rounds=2 federation.local_steps=1 federation.sites=2 "
    "pretrain.batch_size=4 finetune.steps=2 finetune.select_every=1"
)


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory):
    """Makes the same two hospitals anew in a folder of each caller."""

    def make(name):
        counts = {"images": 6, "train_questions": 12, "val_questions": 10, "test_questions": 12}
        folder = tmp_path_factory.mktemp(name)
        return write_hospitals(PhantomConfig(hospitals=2, image_size=32, **counts), folder, 0)

    return make


@pytest.fixture(scope="module")
def deployed(hospitals, tmp_path_factory):
    """The output folder of a run that a SuperLink and two SuperNodes have played, and what `flwr run` printed."""
    place = tmp_path_factory.mktemp("deployed")
    # `flwr build` accepts a folder only by a valid name, and whoever cloned this one chose its name.
    app = place / "app"
    app.mkdir()
    for name in APP:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, app / name)
    ports = free_ports(3)
    address = f"127.0.0.1:{ports[0]}"
    (place / "home").mkdir()
    (place / "home" / "config.toml").write_text(
        f'[superlink]\ndefault = "loop"\n[superlink.loop]\naddress = "{address}"\ninsecure = true\n'
    )
    environment = os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(place / "home"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "OMP_NUM_THREADS": "1",
    }
    processes = []

    def start(name, *arguments):
        with (place / f"{name}.log").open("wb") as log:
            command = [str(BIN / arguments[0]), *arguments[1:]]
            processes.append(
                subprocess.Popen(
                    command, env=environment, cwd=place, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
                )
            )

    try:
        link = ("flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(ports[0]))
        start("superlink", *link, "--disable-runtime-dependency-installation")
        wait_for(ports[0])
        for number, (site, port) in enumerate(zip(hospitals("sites"), ports[1:], strict=True)):
            node = ("flower-supernode", "--insecure", "--superlink", address, "--port", str(port))
            start(f"supernode-{number}", *node, "--node-config", f'site="{site}" trial=true')

        def run(folder, *overrides):
            line = " ".join([*overrides, f"output_dir={folder}"])
            done = subprocess.run(
                [str(BIN / "flwr"), "run", str(app), "loop", "--stream", "--run-config", f'hydra-overrides="{line}"'],
                env=environment,
                cwd=place,
                capture_output=True,
                text=True,
                timeout=280,
            )
            logs = {path.name: path.read_text(errors="replace")[-2000:] for path in place.glob("*.log")}
            assert (folder / "result.json").is_file(), f"{done.stdout}\n{done.stderr}\n{logs}"
            return done.stdout

        printed = run(place / "out", RUN)
        run(place / "again", RUN, "federation.rounds=0", "federation.final=evaluate")
        return place, printed
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGTERM)
        for process in processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.mark.e2e
def test_a_deployment_merges_every_round_and_every_site_fine_tunes(deployed):
    out, printed = deployed[0] / "out", deployed[1]
    rounds = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    assert [(line["round"], line["sites_merged"], line["refused"]) for line in rounds] == [(1, 2, {}), (2, 2, {})]
    assert printed.count("sites 2/2") == 2
    sites = metrics(out)
    assert sorted(sites) == ["hospital-1", "hospital-2"]
    assert all(site["tested"] == 12 for site in sites.values())


@pytest.mark.e2e
def test_a_later_run_finds_the_models_that_the_sites_kept(deployed):
    place, _ = deployed
    asked = ("accuracy", "tested")
    kept, again = metrics(place / "out"), metrics(place / "again")
    assert again == {site: {name: kept[site][name] for name in asked} for site in kept}


@pytest.mark.e2e
def test_a_deployment_gives_the_weights_that_a_simulation_gives(deployed, hospitals, tmp_path):
    engine = open_engine(EngineConfig(workers=1), tmp_path / "log")
    sites = dict(enumerate(hospitals("simulated"), start=101))
    config = load(RunConfig, compose("run", [*RUN.split(), f"output_dir={tmp_path / 'out'}"]))
    try:
        simulated = load_weights(federation.run(LocalGrid(sites, engine), config).weights)
    finally:
        engine.close()
    real = load_weights(deployed[0] / "out" / "weights.safetensors")
    torch.testing.assert_close(real, simulated, rtol=0, atol=1e-5)


def metrics(out):
    sites = json.loads((out / "result.json").read_text())["vqa"]["sites"]
    return {site: told["metrics"] for site, told in sites.items()}


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_for(port, timeout_s=60.0):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"nothing listens on port {port} after {timeout_s:.0f} s")
