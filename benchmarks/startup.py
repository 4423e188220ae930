"""How long a command takes to say what it does, and a site to begin training once an order is there.

help    `--help` of each command in a fresh process, in turns with an empty Python, medians: seconds, and the ratio
        to the empty one.
first   A site that has joined, with its pixel cache from an earlier start, is sent a sealed order of round 1 for
        each model. Seconds in a fresh process from the moment its imports are done, as in a deployment, where tasks
        come from a process that has imported everything: to read the message, and from there to the first forward
        pass of the first step, with what they go to. `numpy` fills as many float32 values with random numbers, in
        the same process.

python benchmarks/startup.py [--json] [--runs 3] [--models tiny,small,base] [--skip-help]
"""

import argparse
import gc
import importlib
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

COMMANDS = ("mumc-privacy", "mumc-site", "mumc-server", "mumc-sim")
BIN = Path(sys.executable).parent
PARTS = {
    "checks": ("client.seal:Door.accept", "client.gate:check_order"),
    "records": ("client.app:open_site",),
    "model": ("client.rounds:build_model",),
    "schema": ("client.rounds:shared_weights", "client.rounds:model_schema"),
    "digest": ("client.rounds:digest",),
    "loading": ("client.rounds:load_shared",),
    "trainer": ("client.pretrain:Pretrainer.__init__",),
    "captions": ("client.pretrain:caption_dataset",),
    "batch": ("mumc_model.data.collate:CaptionDataset._batch",),
}
"""What is timed, by the row that it counts to; a name that is gone is not timed."""
VOCABULARY = 30_522
"""BERT's, for the models that are not `tiny`."""
NODE = 101


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line in place of the table")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--models", default="tiny,small,base")
    parser.add_argument("--skip-help", action="store_true")
    parser.add_argument("--first", nargs=2, metavar=("SITE", "MESSAGE"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.first:
        print(json.dumps(first_step(Path(asked.first[0]), Path(asked.first[1]))))
        return
    found: dict[str, object] = {"benchmark": "startup", "cores": os.cpu_count(), "load_before": os.getloadavg()[0]}
    if not asked.skip_help:
        found["help"] = help_times(asked.runs)
    found["first"] = {name: starts(name, asked.runs) for name in asked.models.split(",") if name}
    found["load_after"] = os.getloadavg()[0]
    if asked.json:
        print(json.dumps(found))
    else:
        show(found)


def help_times(runs: int) -> dict[str, dict[str, float]]:
    """Seconds of `--help` by command, and how often an empty Python fits in."""
    empty = [sys.executable, "-c", "pass"]
    seconds: dict[str, list[float]] = {name: [] for name in ("python", *COMMANDS)}
    for _ in range(runs):
        for name in COMMANDS:
            seconds["python"].append(wall(empty))
            seconds[name].append(wall([str(BIN / name), "--help"]))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        name: {"seconds": round(median, 3), "over_empty_python": round(median / medians["python"], 1)}
        for name, median in medians.items()
    }


def wall(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def starts(model: str, runs: int) -> dict[str, object]:
    """Medians over fresh processes; the first start of all fills the pixel cache and does not count."""
    with tempfile.TemporaryDirectory(prefix="fedmumc-startup-") as place:
        site, messages = prepared(Path(place), model, runs + 1)
        rows = []
        for message in messages:
            command = [sys.executable, __file__, "--first", str(site), str(message)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            rows.append(json.loads(done.stdout))
            message.unlink()
    rows = rows[1:]
    return {
        "values": rows[0]["values"],
        **{name: round(statistics.median(row[name] for row in rows), 3) for name in ("imports", "read", "first")},
        "numpy": round(statistics.median(row["numpy"] for row in rows), 3),
        "parts": {name: round(statistics.median(row["parts"][name] for row in rows), 3) for name in rows[0]["parts"]},
    }


def prepared(place: Path, model: str, count: int) -> tuple[Path, list[Path]]:
    """A site that has joined a federation, and files with sealed orders for it, each of another run."""
    from configs.compose import compose
    from configs.loader import load
    from mumc_model.data.phantom import PhantomConfig, write_hospitals
    from mumc_model.data.tokenizer import vocabulary
    from mumc_model.model import build_model
    from mumc_model.sharing import shared_weights
    from protocol.codec import digest, pack
    from protocol.schema import WeightSchema
    from server.config import RunConfig
    from server.orders import Orders, fit_vocabulary
    from server.seal import Post
    from simulations.masked import join_all

    size = [] if model == "tiny" else [f"model.text.vocab_size={VOCABULARY}"]
    config = load(RunConfig, compose("run", [f"model={model}", "federation.local_steps=2", *size]))
    tokens = tuple(vocabulary(config.vocabulary).vocab)
    recipe = fit_vocabulary(config.recipe, len(tokens))
    pictures = PhantomConfig(hospitals=1, images=64, image_size=recipe.model.vision.image_size)
    (site,) = write_hospitals(pictures, place / "sites", 0)
    post = Post(join_all({NODE: site}, place / "hub"))
    weights = {name: weight.numpy() for name, weight in shared_weights(build_model(recipe.model, 1)).items()}
    schema = WeightSchema.of(weights)
    base = pack(weights, schema)
    files = []
    for number in range(count):
        order = Orders(config, f"run-{number}", recipe, tokens).pretrain(1, digest(base, schema))
        files.append(place / f"message-{number}")
        files[-1].write_bytes(sealed(post, order, base))
    limits = site / "site.yaml"
    limits.write_text(limits.read_text() + "policy: {runs: {secure_aggregation: allowed}}\n")
    return site, files


def sealed(post, order, base) -> bytes:
    """Message and context as bytes, the message's length before them."""
    from flwr.app import Context, Message, RecordDict
    from flwr.supercore.task_identity import TaskIdentity

    from client.gate import CODE_KEY, INSTALLED_KEY
    from protocol.envelope import payload_digest
    from protocol.records import to_record
    from simulations.worker import encode

    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, NODE, 1
    record = to_record(order, base, post.seal(order, NODE, payload_digest(order, base)))
    message = Message(record, NODE, order.action)
    message.metadata.__dict__["_message_id"] = "message-1"
    node = {CODE_KEY: "c" * 64, INSTALLED_KEY: "c" * 64}
    context = Context(run_id=1, node_id=NODE, node_config=node, state=RecordDict(), run_config={})
    frames = encode(message, context)
    return struct.pack("<Q", len(frames[0])) + b"".join(frames)


class FirstStepReached(BaseException):
    """The clock stops, and so does the process; no layer of the app answers this."""


def first_step(site: Path, message_file: Path) -> dict[str, object]:
    """Seconds until the first forward pass of an order's first step, in this fresh process."""
    begun = time.perf_counter()
    for module in ("client.task", "client.pretrain", "client.finetune"):
        importlib.import_module(module)
    import numpy as np
    from flwr.supercore.task_identity import TaskIdentity
    from torch.nn.modules.module import register_module_forward_pre_hook

    from client.app import app
    from client.site import SITE_KEY
    from mumc_model.vision import VisionEncoder
    from simulations.worker import decode_context, decode_message

    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, NODE, 1
    parts = clocks()
    gc.freeze()  # as client.task does
    imported = time.perf_counter()
    content = message_file.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    message, context = decode_message(content[8 : 8 + length]), decode_context(content[8 + length :])
    context.node_config[SITE_KEY] = str(site)
    read = time.perf_counter()

    def stop(module: object, _: object) -> None:
        # timm tries a convolutional stem out as it builds it, which is no step.
        if isinstance(module, VisionEncoder):
            raise FirstStepReached

    register_module_forward_pre_hook(stop)
    try:
        app(message, context)
    except FirstStepReached:
        reached = time.perf_counter()
    else:
        raise SystemExit("the order was refused; state/site.log of the site says why")
    values = sum(array.shape[0] for record in message.content.array_records.values() for array in record.values())
    gc.unfreeze()
    again = time.perf_counter()
    np.random.default_rng(0).standard_normal(values, dtype=np.float32)
    filled = time.perf_counter() - again
    parts["other"] = reached - read - sum(parts.values())
    return {
        "values": values,
        "imports": imported - begun,
        "read": read - imported,
        "first": reached - read,
        "numpy": filled,
        "parts": parts,
    }


def clocks() -> dict[str, float]:
    """Seconds spent in each row of `PARTS`, from now on."""
    spent = dict.fromkeys(PARTS, 0.0)
    for row, places in PARTS.items():
        for place in places:
            module, _, name = place.partition(":")
            owner = importlib.import_module(module)
            *path, last = name.split(".")
            for step in path:
                owner = getattr(owner, step)
            if hasattr(owner, last):
                setattr(owner, last, clocked(getattr(owner, last), spent, row))
    return spent


def clocked(function, spent: dict[str, float], row: str):
    """The same function, which adds its seconds to its row."""

    def timed(*arguments, **keywords):
        started = time.perf_counter()
        try:
            return function(*arguments, **keywords)
        finally:
            spent[row] += time.perf_counter() - started

    return timed


def show(found) -> None:
    for name, row in found.get("help", {}).items():
        print(f"{name:<13} --help {row['seconds']:6.2f} s  {row['over_empty_python']:5.1f} times an empty Python")
    for name, row in found["first"].items():
        print(
            f"{name:<6} {row['values'] / 1e6:6.1f} M values  reading the message {row['read']:5.2f} s, then to "
            f"the first step {row['first']:5.2f} s (random numbers by numpy {row['numpy']:.2f} s)"
        )
        print("       " + ", ".join(f"{part} {seconds:.3f}" for part, seconds in row["parts"].items()))


if __name__ == "__main__":
    main()
