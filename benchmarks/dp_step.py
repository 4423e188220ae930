"""What a step under differential privacy costs over the same step without it: time, and peak memory.

Both train the same model on the same random records, in one process and in turns; the private step includes sampling,
clipping, noise and its share of encoding the public bank. Peak memory is that of a process that does only the one or
the other, less what it held before the model was built.

    python benchmarks/dp_step.py [--json] [--shapes tiny,mid,small] [--batches 16,64] [--ways hooks,opacus,loop]
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from client.privacy.bank import open_bank
from client.privacy.train import PrivatePretrainer, PrivateSite
from configs.compose import compose
from configs.loader import load
from mumc_model.config import Recipe
from mumc_model.data.collate import PretrainBatch
from mumc_model.data.tokenizer import vocabulary
from mumc_model.model import build_model
from mumc_model.privacy import PrivacyConfig
from mumc_model.train import Pretrainer
from server.config import RunConfig
from server.orders import fit_vocabulary

CPU = torch.device("cpu")
WORDS = {"tiny": 0, "mid": 30_522, "small": 30_522}
TOKENS = {"tiny": 16, "mid": 25, "small": 25}
PAIRS_OF_RUNS = 3


class Records:
    """Random captioned images that fill every token, dealt whole in each step."""

    tokenizer = SimpleNamespace(cls_id=1, mask_id=2)

    def __init__(self, recipe: Recipe, batch: int) -> None:
        generator = torch.Generator().manual_seed(0)
        side, tokens = recipe.model.vision.image_size, recipe.pretrain.caption_tokens
        ids_BL = torch.randint(5, recipe.model.text.vocab_size, (batch, tokens), generator=generator)
        image_BCHW = torch.randn(batch, 3, side, side, generator=generator)
        self._pairs = PretrainBatch(image_BCHW, ids_BL, torch.ones_like(ids_BL), torch.arange(batch))

    def pairs(self, row_B: torch.Tensor, generator: torch.Generator) -> PretrainBatch:
        """What a private step asks for."""
        return PretrainBatch(*(tensor[row_B] for tensor in vars(self._pairs).values()))

    def batches(self, batch_size: int, seed: int, start_step: int = 0):
        """What a plain step asks for."""
        while True:
            yield self._pairs


def recipe_of(shapes: str, batch: int, way: str) -> Recipe:
    """The recipe of a preset at full captions, without queue and dropout, so that both do the same work."""
    overrides = [f"model={shapes}", "model.queue_size=0", "model.text.dropout=0.0", f"pretrain.batch_size={batch}"]
    overrides += [f"pretrain.caption_tokens={TOKENS[shapes]}", f"model.text.vocab_size={WORDS[shapes]}"]
    recipe = load(RunConfig, compose("run", overrides)).recipe
    recipe = fit_vocabulary(recipe, len(vocabulary("phantom").vocab))
    privacy = PrivacyConfig(unit="patient", expected_batch=batch, physical_batch=batch, grad_sample=way)
    return replace(recipe, privacy=privacy)


def plain(recipe: Recipe, batch: int):
    """A function that takes steps without privacy."""
    records, trainer = Records(recipe, batch), Pretrainer(build_model(recipe.model, 0), recipe, CPU)
    return lambda steps: trainer.run(records, first_step=0, steps=steps, total_steps=1000, seed=0)


def private(recipe: Recipe, batch: int):
    """A function that takes private steps; every unit is in each, so that the batch is what it says."""
    with tempfile.TemporaryDirectory() as folder:
        bank = open_bank(recipe.privacy.bank, recipe, vocabulary("phantom"), Path(folder), "", CPU)
    trainer = PrivatePretrainer(build_model(recipe.model, 0), recipe, bank, CPU)
    units = tuple(map(str, range(batch)))
    records = PrivateSite(
        records=Records(recipe, batch),
        rows=torch.arange(batch),
        units=units,
        patients=frozenset(units),
        sample_rate=1.0,
    )
    return lambda steps: trainer.run(records, first_step=0, steps=steps, total_steps=1000)


def seconds(run, steps: int) -> float:
    started = time.perf_counter()
    run(steps)
    return (time.perf_counter() - started) / steps


def measure_time(shapes: str, batch: int, way: str) -> dict[str, float]:
    """Median seconds of a step of each kind, taken in turns, and their median ratio."""
    recipe = recipe_of(shapes, batch, way)
    steps = recipe.privacy.bank.refresh_steps if shapes == "tiny" else 5
    without, within = plain(recipe, batch), private(recipe, batch)
    without(1), within(1)
    pairs = [(seconds(without, steps), seconds(within, steps)) for _ in range(PAIRS_OF_RUNS)]
    # A run of fewer steps than one encoding of the bank lasts holds one encoding too many; its share is what counts.
    encode = encoding_seconds(recipe)
    share = encode / steps - encode / recipe.privacy.bank.refresh_steps
    ratios = [(after - share) / before for before, after in pairs]
    return {
        "plain_s": statistics.median(before for before, _ in pairs),
        "private_s": statistics.median(after - share for _, after in pairs),
        "bank_s": encode / recipe.privacy.bank.refresh_steps,
        "time_ratio": statistics.median(ratios),
    }


def encoding_seconds(recipe: Recipe) -> float:
    with tempfile.TemporaryDirectory() as folder:
        bank = open_bank(recipe.privacy.bank, recipe, vocabulary("phantom"), Path(folder), "", CPU)
    model = build_model(recipe.model, 0)
    return min(_seconds_of(lambda: bank.encode(model)) for _ in range(2))


def _seconds_of(action) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def peak(shapes: str, batch: int, way: str) -> float:
    """Mebibytes that a process of its own takes for two steps, beyond its imports."""
    command = [sys.executable, "-W", "ignore", __file__, "--peak", way, "--shapes", shapes, "--batches", str(batch)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(shapes: str, batch: int, way: str) -> None:
    recipe = recipe_of(shapes, batch, "hooks" if way == "plain" else way)
    before = psutil.Process().memory_info().rss / 2**20
    (plain if way == "plain" else private)(recipe, batch)(2)
    # Not ru_maxrss: that of a child starts at its parent's.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    print(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024 - before)


def measure(shapes: str, batch: int, way: str) -> dict[str, float]:
    row = measure_time(shapes, batch, way)
    plain_mib, private_mib = peak(shapes, batch, "plain"), peak(shapes, batch, way)
    return row | {"plain_mib": plain_mib, "private_mib": private_mib, "memory_ratio": private_mib / plain_mib}


_OF = "with commas between, of {}; by default %(default)s"


def names(*known: str):
    """What reads a list of these names."""

    def read(text: str) -> list[str]:
        found = text.split(",")
        if unknown := [name for name in found if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return found

    return read


def sizes(text: str) -> list[int]:
    """A list of batch sizes."""
    if not all(part.isdecimal() and int(part) for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of batch sizes like 16,64")
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one line of JSON at the end, and nothing before it")
    parser.add_argument(
        "--shapes",
        type=names("tiny", "mid", "small"),
        default="tiny,mid",
        help=_OF.format("tiny, mid and small, which takes far longer"),
    )
    parser.add_argument("--batches", type=sizes, default="16,64", help="with commas between; by default %(default)s")
    parser.add_argument(
        "--ways", type=names("hooks", "opacus", "loop"), default="hooks", help=_OF.format("hooks, opacus and loop")
    )
    parser.add_argument("--peak", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    shapes, batches = asked.shapes, asked.batches
    if asked.peak:
        print_peak(shapes[0], batches[0], asked.peak)
        return
    found: dict[str, dict[str, object]] = {}
    for name in shapes:
        for way in asked.ways:
            for batch in batches:
                row = measure(name, batch, way)
                place = found.setdefault(name, {})
                # The first batch and the shipped way stand at the top; everything stands under `runs`.
                for key in ("time_ratio", "memory_ratio"):
                    place.setdefault(key, round(row[key], 3))
                runs = place.setdefault("runs", [])
                assert isinstance(runs, list)
                runs.append({"batch": batch, "grad_sample": way, **{key: round(v, 4) for key, v in row.items()}})
                if not asked.json:
                    print(
                        f"{name:<6} batch {batch:<3} {way:<7} time x{row['time_ratio']:.2f}  memory "
                        f"x{row['memory_ratio']:.2f}  ({row['plain_s']:.3f} s and {row['plain_mib']:,.0f} MiB without)",
                        flush=True,
                    )
    if asked.json:
        print(json.dumps({"benchmark": "dp_step", "threads": torch.get_num_threads(), "shapes": found}))


if __name__ == "__main__":
    main()
