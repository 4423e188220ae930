"""The two apps of `benchmarks/transport.py`: a server that times how arrays come and go, a client that sends them back.

This file travels as a bundle of its own, named `transport_app.py`; what it imports is the installed code.
"""

import json
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from protocol.messages import Report
from protocol.records import arrays_to_record, reply_from_record, to_record
from server.exchange import exchange, wait_for_nodes
from server.spool import Spool

ARRAYS, ASKED = "arrays", "asked"
TIMEOUT_S = 3600.0
LOOK_S = 0.05
app = ServerApp()
client = ClientApp()


@app.main()
def main(grid, context):
    """Play the rounds of the plan and leave what was seen in its file."""
    plan = json.loads(context.run_config["plan"])
    nodes = wait_for_nodes(grid, wanted=plan["sites"], least=plan["sites"], wait_s=120)
    found = [play(grid, nodes, round, case, plan) for round, case in enumerate(plan["rounds"], start=1)]
    partial = Path(plan["result"]).with_suffix(".partial")
    partial.write_text(json.dumps(found))
    partial.rename(plan["result"])


def play(grid, nodes, round, case, plan):
    """Seconds and peaks of one round: the values go to every node, and as many as are asked come back from each."""
    peaks = {"superlink": Peak(plan["superlink"]), "serverapp": Peak(os.getpid())}
    flat = np.random.default_rng(round).standard_normal(case["values"], dtype=np.float32)
    spool = Spool(Path(plan["spool"]) / str(round))
    started = time.perf_counter()
    base = write(flat, case["layout"])
    asked = ConfigRecord({"layout": case["layout"], "values": case["back"]})

    def content(_):
        return RecordDict({ARRAYS: base, ASKED: asked})

    came = 0
    order = SimpleNamespace(action="train", round=round)
    for reply in exchange(grid, nodes, content, order, timeout_s=TIMEOUT_S, at_once=plan["at_once"]):
        if reply.content is None:
            raise RuntimeError(f"node {reply.node:016x} did not answer: {reply.fault}")
        came += take(reply, case, spool)
    seconds = time.perf_counter() - started
    spool.clear()
    if came != len(nodes) * case["back"]:
        raise RuntimeError(f"{came} values came back, {len(nodes) * case['back']} were asked for")
    return {**case, "seconds": seconds, "peaks": {name: peak.read() for name, peak in peaks.items()}}


def take(reply, case, spool):
    """How many values came; packed ones go to the disk as in a real round."""
    if case["layout"] == "per_tensor":
        return sum(array.size for array in reply.content[ARRAYS].to_numpy_ndarrays())
    report, arrays = reply_from_record(reply.content)
    spool.put(report, arrays)
    return sum(array.size for array in arrays.values())


@client.train()
def echo(message, context):
    """What came, a little changed and cut to what is asked for, in the same layout."""
    layout, count = message.content[ASKED]["layout"], message.content[ASKED]["values"]
    flat = read(message.content[ARRAYS], layout)[:count] + np.float32(context.node_id % 1000 + 1)
    record = write(flat, layout)
    if layout == "per_tensor":
        return Message(RecordDict({ARRAYS: record}), reply_to=message)
    return Message(to_record(report_of(message.metadata.dst_node_id), record), reply_to=message)


def report_of(node):
    """A report of a node that is named after its number."""
    return Report(run_id="transport", round=1, attempt=1, site=f"n{node}", examples=1, metrics={}, base_digest="0" * 64)


def write(flat, layout):
    """A flat vector as Flower's record, in one of the two layouts."""
    if layout == "packed":
        return arrays_to_record({"float32": flat})
    parts, start = [], 0
    for shape in shapes(flat.size):
        size = int(np.prod(shape))
        parts.append(flat[start : start + size].reshape(shape))
        start += size
    return ArrayRecord(parts)


def read(record, layout):
    """The flat vector in a record."""
    if layout == "packed":
        return np.frombuffer(record["float32"].data, np.float32)
    return np.concatenate([array.reshape(-1) for array in record.to_numpy_ndarrays()])


def shapes(values, layers=12):
    """Shapes of 200 tensors that hold so many values, split as an encoder of text or images with 12 layers is."""
    width = max(1, int((0.85 * values / (12 * layers)) ** 0.5))
    matrices = [(width, width)] * 4 + [(4 * width, width), (width, 4 * width)]
    layer = matrices + [(width,)] * 5 + [(4 * width,)] + [(width,)] * 4
    found = layer * layers + [(width,)] * 7
    rest = values - sum(int(np.prod(shape)) for shape in found)
    if rest <= 0:
        return [(values,)]
    return [*found, (rest,)]


class Peak:
    """The most memory that a process has held since this was made, beyond what it held then.

    Resident pages are the system's own account. SQLite maps its file into every connection, and such a page counts once
    for each although it lies in memory once, and only as long as nobody needs the room: so the process's own pages are
    watched too, by looking often.
    """

    def __init__(self, pid):
        self._folder = Path("/proc", str(pid))
        # 5 resets the peak so far.
        (self._folder / "clear_refs").write_text("5")
        self._before = self._status()
        self._own, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def read(self):
        """Bytes: of all resident pages, and of the process's own."""
        self._over.set()
        self._thread.join()
        return {
            "resident": self._status()["VmHWM"] - self._before["VmRSS"],
            "own": self._own - self._before["RssAnon"],
        }

    def _watch(self):
        while not self._over.wait(LOOK_S):
            self._own = max(self._own, self._status()["RssAnon"])

    def _status(self):
        lines = (self._folder / "status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        return {name: int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM", "RssAnon")}
