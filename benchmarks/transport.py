"""How long weights take to a site and back over TLS, and what memory many sites' updates take on the server.

A SuperLink and a SuperExec, started as `mumc-server start` does it, with a database and node authentication, on the
loopback. Two questions:

    seconds  one real SuperNode, and a ClientApp that sends back what it got: packed in one flat array, as we send it,
             and as an array a tensor (200 tensors, as an encoder of 12 layers has). `half` and `quarter` send back as
             many bytes as bfloat16 and int8 do. `empty` is a round with 1000 values: Flower's own time.
    memory   many light nodes, each with its own update and all at once; the ServerApp spools what comes, as in a real
             round. Peak memory of the SuperLink and of the ServerApp beyond what they held before the round, in units
             of one model: all resident pages, and the process's own without what it has mapped of files. Fresh
             processes for every number of sites.

    python benchmarks/transport.py [--json] [--values 100000000] [--runs 2] [--sites 2,8,32] [--memory-values 25000000]
                                   [--at-once 0]
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from flwr.cli.build import build_fab_from_files
from wire import app as wire_app

from protocol.flower import LOOPBACK, Keeper, Program, free_port, program_path, reason_in
from protocol.node_keys import new_node_key, private_bytes, public_pem
from server.errors import ControlError
from server.home import FederationFile
from server.joining import create
from server.start import control, programs

WIRE = Path(wire_app.__file__).parent
PYPROJECT = b"""\
[project]
name = "transport"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fedmumc"
fab-include = ["*.py"]

[tool.flwr.app.components]
serverapp = "transport_app:app"
clientapp = "transport_app:client"

[tool.flwr.app.config]
plan = ""
resume = false
"""
EMPTY = 1000
WAIT_S = 3600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line in place of the table")
    parser.add_argument("--values", type=int, default=100_000_000, help="float32 values of the model that is timed")
    parser.add_argument("--runs", type=int, default=2, help="rounds of each layout; 0 times nothing")
    parser.add_argument("--sites", default="2,8,32", help="numbers of sites whose memory is measured; may be empty")
    parser.add_argument("--memory-values", type=int, default=25_000_000, help="float32 values of the model for memory")
    parser.add_argument("--at-once", type=int, default=0, help="sites that hold an order at a time; 0: all")
    asked = parser.parse_args()

    def say(text: str) -> None:
        print(text, file=sys.stderr if asked.json else sys.stdout, flush=True)

    load = [round(value, 2) for value in os.getloadavg()]
    found: dict[str, object] = {"benchmark": "transport", "cores": os.cpu_count(), "load_before": load}
    if asked.runs:
        found |= timing(asked.values, asked.runs, say)
    if counts := [int(count) for count in asked.sites.split(",") if count]:
        found |= memory(asked.memory_values, counts, asked.at_once, say)
    found["load_after"] = [round(value, 2) for value in os.getloadavg()]
    if asked.json:
        print(json.dumps(found))


def timing(values: int, runs: int, say) -> dict[str, object]:
    """Medians of seconds a round; the layouts take turns, so that what else the machine does meets all of them."""
    kinds = {
        "empty": ("packed", EMPTY, EMPTY),
        "packed": ("packed", values, values),
        "per_tensor": ("per_tensor", values, values),
        "half": ("packed", values, values // 2),
        "quarter": ("packed", values, values // 4),
    }
    # The first round of all starts what later ones find at work.
    order = ["empty", *list(kinds) * runs]
    with server() as link, real_node(link):
        rows = play(link, 1, [kinds[name] for name in order])
    seconds: dict[str, list[float]] = {}
    for name, row in list(zip(order, rows, strict=True))[1:]:
        seconds.setdefault(name, []).append(row["seconds"])
        say(f"{name:>10} {row['seconds']:7.1f} s")
    ratio = statistics.median(b / a for a, b in zip(seconds["packed"], seconds["per_tensor"], strict=True))
    say(f"an array a tensor takes {ratio:.2f} times as long as packed")
    median = {name: round(statistics.median(times), 2) for name, times in seconds.items()}
    return {"values": values, "runs": runs, "seconds": median, "ratio": round(ratio, 3), "all_seconds": seconds}


def memory(values: int, counts: list[int], at_once: int, say) -> dict[str, object]:
    """Peaks in models, for each number of sites."""
    cells, model = [], 4 * values
    for sites in counts:
        with server() as link, light_nodes(link, sites):
            (row,) = play(link, sites, [("packed", values, values)], at_once)
            parts = link.home.database.parent.glob(f"{link.home.database.name}*")
            database = sum(path.stat().st_size for path in parts)
        peaks = {
            f"{name}_{kind}": round(size / model, 2)
            for name, peak in row["peaks"].items()
            for kind, size in peak.items()
        }
        cell = {"sites": sites, "seconds": round(row["seconds"], 1), "database": round(database / model, 2), **peaks}
        cells.append(cell)
        say("  ".join(f"{name} {value:g}" for name, value in cell.items()))
    return {"memory_values": values, "at_once": at_once, "peak_models": cells}


class Link:
    """A server at work in a folder of its own."""

    def __init__(self, place: Path, home, config: FederationFile, keeper: Keeper, interface) -> None:
        self.place, self.home, self.config, self.control = place, home, config, interface
        self.keepers = [keeper]

    @property
    def superlink(self) -> int:
        """The process that serves."""
        for process in psutil.Process().children(recursive=True):
            if any("server.superlink" in word for word in process.cmdline()):
                return process.pid
        raise RuntimeError("the SuperLink has ended")


@contextmanager
def server():
    """A SuperLink and what starts ServerApps, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="transport-") as folder:
        place, port = Path(folder), free_port()
        config = FederationFile(name="transport", address=f"{LOOPBACK}:{port}", port=port, health_port=free_port())
        home = create(place / "hub", config, 30)
        with Keeper(programs(home, config), restart=False, say=lambda _: None) as keeper, control(home) as interface:
            wait_for(lambda: answers(interface), 60)
            try:
                yield Link(place, home, config, keeper, interface)
            except BaseException as error:
                error.add_note(f"the SuperLink's last words: {reason_in(home.state / 'superlink.log')}")
                raise


@contextmanager
def real_node(link: Link):
    """A SuperNode that runs its ClientApp in a process of its own."""
    key = link.place / "node.key"
    write_key(link, key, "node")
    command = [
        program_path("flower-supernode"),
        *("--superlink", link.config.address),
        *("--root-certificates", str(link.home.ca_cert)),
        *("--auth-supernode-private-key", str(key)),
        *("--port", str(free_port())),
    ]
    own = {"FLWR_HOME": str(link.place / "flower")}
    with kept(link, Program(name="node", command=command, log=link.place / "node.log", environment=own)):
        yield


@contextmanager
def light_nodes(link: Link, count: int):
    """So many nodes that only fetch and send, in one process."""
    folder = link.place / "keys"
    folder.mkdir()
    for index in range(count):
        write_key(link, folder / f"{index:03}", f"node-{index}")
    command = [sys.executable, str(WIRE / "nodes.py"), link.config.address, str(link.home.ca_cert), str(folder)]
    with kept(link, Program(name="nodes", command=command, log=link.place / "nodes.log")):
        yield


@contextmanager
def kept(link: Link, program: Program):
    """A program that is looked after until the block ends."""
    with Keeper([program], restart=False, say=lambda _: None) as keeper:
        link.keepers.append(keeper)
        yield


def write_key(link: Link, path: Path, name: str) -> None:
    key = new_node_key()
    path.touch(mode=0o600)
    path.write_bytes(private_bytes(key))
    link.control.register(public_pem(key), name)


def play(link: Link, sites: int, rounds: list[tuple[str, int, int]], at_once: int = 0) -> list[dict]:
    """What the ServerApp saw in these rounds."""
    result = link.place / "result.json"
    plan = {
        "sites": sites,
        "at_once": at_once,
        "superlink": link.superlink,
        "rounds": [{"layout": layout, "values": values, "back": back} for layout, values, back in rounds],
        "result": str(result),
        "spool": str(link.place / "spool"),
    }
    files = {"pyproject.toml": PYPROJECT, "transport_app.py": (WIRE / "app.py").read_bytes()}
    flower_id = link.control.submit(bytes(build_fab_from_files(files)[0]), {"plan": json.dumps(plan)})

    def over() -> bool:
        for keeper in link.keepers:
            keeper.look()
        return result.is_file() or ended(link, flower_id)

    wait_for(over, WAIT_S, every_s=2.0)
    return json.loads(result.read_text())


def ended(link: Link, flower_id: int) -> bool:
    """False; a run that has ended without a result raises. A SuperLink that is busy with arrays may not answer."""
    try:
        run = next(run for run in link.control.runs() if run.flower_id == flower_id)
    except ControlError:
        return False
    if run.status.startswith("finished:failed"):
        raise RuntimeError(f"the run has failed: {run.details}")
    return False


def answers(interface) -> bool:
    try:
        interface.nodes()
    except ControlError:
        return False
    return True


def wait_for(condition, seconds: float, every_s: float = 0.5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing came within {seconds:g} s; the logs lie in the temporary folder")
        time.sleep(every_s)


if __name__ == "__main__":
    main()
