"""How near a pre-training step comes to the machine's limit: its useful operations a second over a matrix product's.

A step is one of `Pretrainer.run`: batch, losses, gradients, clipping, AdamW, teacher and queue. Useful are the
operations of `mumc_model/flops.py`, which counts what MUMC asks for and nothing that is computed twice or in vain. The
limit is a plain product of two square matrices in the step's precision, by the same threads in the same process.

On a CPU the product is timed before and after every step, and shares are medians over steps. An accelerator works on
one step while the program prepares the next, so there steps are timed as they come, from one's losses to the next
one's, and products before and after them all.

    python benchmarks/step.py [--json] [--shapes golden,mid,base] [--steps 7] [--threads 2] [--precision fp32]
                              [--kernels eager] [--profile]
"""

import argparse
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.compose import compose
from configs.loader import load
from mumc_model.config import Recipe
from mumc_model.data.collate import PretrainBatch
from mumc_model.device import choose_device
from mumc_model.flops import StepWork, step_flops
from mumc_model.kernels import Kernels
from mumc_model.model import build_model
from mumc_model.train import Pretrainer
from server.config import RunConfig

MATRIX = {"cpu": 2048, "cuda": 8192}
"""Side of the matrices whose product is the limit."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
WARMUP = {"cpu": 2, "cuda": 5}
"""Steps that are not timed: the first makes the optimiser's moments, the second fills the queue; parts are recorded."""


@dataclass(frozen=True)
class Shape:
    """A preset at its batch."""

    batch: int
    tokens: int
    vocabulary: int


SHAPES = {
    "golden": Shape(batch=16, tokens=25, vocabulary=200),
    "tiny": Shape(batch=16, tokens=25, vocabulary=400),
    "mid": Shape(batch=8, tokens=25, vocabulary=30_522),
    "small": Shape(batch=8, tokens=25, vocabulary=30_522),
    "base": Shape(batch=4, tokens=25, vocabulary=30_522),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line in place of the table")
    parser.add_argument("--shapes", default="golden,mid,base", help=f"presets out of {', '.join(SHAPES)}")
    parser.add_argument("--steps", type=int, default=7, help="steps that are timed, after some that are not")
    parser.add_argument("--batch", type=int, help="pairs a step in place of the preset's")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch")
    parser.add_argument("--device", default="auto", help="where it runs")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"), help="of the encoders")
    parser.add_argument("--kernels", default="eager", choices=("eager", "graphs", "compiled"), help="on an accelerator")
    parser.add_argument("--profile", action="store_true", help="show what the time goes to, by operation")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    device = choose_device(asked.device)
    found: dict[str, object] = {
        "benchmark": "step",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "precision": asked.precision,
        "kernels": asked.kernels,
        "load": [round(value, 2) for value in os.getloadavg()],
    }
    shapes = {}
    for name in asked.shapes.split(","):
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        shape = SHAPES[name] if asked.batch is None else replace(SHAPES[name], batch=asked.batch)
        step = Step(name, shape, device, asked.precision, kernels=asked.kernels)
        shapes[name] = row = measure(step, asked.steps)
        if not asked.json:
            print(f"{name:>7}  " + "  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        if asked.profile:
            profile(step)
    if asked.json:
        print(json.dumps(found | {"shapes": shapes}))


class Records:
    """The same random pairs at every step; every token is a word."""

    tokenizer = SimpleNamespace(cls_id=1, mask_id=2)

    def __init__(self, recipe: Recipe, shape: Shape) -> None:
        generator = torch.Generator().manual_seed(0)
        side = recipe.model.vision.image_size
        ids_BL = torch.randint(5, shape.vocabulary, (shape.batch, shape.tokens), generator=generator)
        image_BCHW = torch.randn(shape.batch, 3, side, side, generator=generator)
        caption_id_B = torch.arange(shape.batch)
        self._pairs = PretrainBatch(image_BCHW, ids_BL, torch.ones_like(ids_BL), caption_id_B)

    def batches(self, batch_size: int, seed: int, start_step: int = 0):
        """Without end."""
        while True:
            yield self._pairs


class Step:
    """A trainer in the midst of its round: a full queue, a teacher whose targets count."""

    def __init__(
        self,
        name: str,
        shape: Shape,
        device: torch.device,
        precision: str,
        further: Sequence[str] = (),
        kernels: Kernels = "eager",
    ) -> None:
        overrides = [
            f"model={name}",
            "pretrain=mumc",
            "objective=mumc",
            f"model.text.vocab_size={shape.vocabulary}",
            "objective.distill_ramp_steps=0",
        ]
        overrides += [f"pretrain.batch_size={shape.batch}", f"pretrain.caption_tokens={shape.tokens}", *further]
        self.recipe = recipe = load(RunConfig, compose("run", overrides)).recipe
        self.shape, self.device, self.precision = shape, device, precision
        self._trainer = Pretrainer(build_model(recipe.model, 0), recipe, device, precision, kernels=kernels)
        self._records = Records(recipe, shape)

    def take(self, steps: int, after) -> None:
        """Take that many steps of one round; `after` is called with the seconds of each."""
        started = time.perf_counter()

        def on_step(step: int, losses) -> None:
            nonlocal started
            after(time.perf_counter() - started)
            self._fill_queue()
            started = time.perf_counter()

        self._trainer.run(self._records, first_step=0, steps=steps, total_steps=10_000, seed=0, on_step=on_step)

    @property
    def gflop(self) -> float:
        """Useful work of a mean step: as many masked tokens as the objective asks for."""
        objective, shape = self.recipe.objective, self.shape
        masked = round(objective.mlm_probability * shape.batch * shape.tokens)
        keys = shape.batch + self.recipe.model.queue_size
        work = StepWork(batch=shape.batch, tokens=shape.tokens, masked=masked, keys=keys)
        return sum(step_flops(self.recipe.model, objective, work).values()) / 1e9

    def _fill_queue(self) -> None:
        queue = self._trainer.queue
        if queue is not None and queue.filled < queue.size:
            features = torch.nn.functional.normalize(torch.ones_like(queue.image_QE), dim=1)
            queue.enqueue(features, features, torch.arange(queue.size, device=self.device) + self.shape.batch)


def measure(step: Step, steps: int) -> dict[str, float]:
    """Medians over steps; each one's share is of the products right before and after it, or of those around all."""
    product = Product(step.device, step.precision)
    seconds: list[float] = []
    rates = [product.rate()]

    def after(taken: float) -> None:
        seconds.append(taken)
        if step.device.type == "cpu":
            rates.append(product.rate())

    warmup = WARMUP[step.device.type]
    step.take(warmup + steps, after)
    if step.device.type != "cpu":
        rates = [statistics.mean([rates[0], product.rate()])] * (len(seconds) + 1)
    around = [(before + behind) / 2 for before, behind in pairwise(rates)]
    shares = [step.gflop / taken / rate for taken, rate in zip(seconds, around, strict=True)][warmup:]
    taken = statistics.median(seconds[warmup:])
    return {
        "batch": step.shape.batch,
        "gflop": round(step.gflop, 2),
        "seconds": round(taken, 4),
        "gflop_per_s": round(step.gflop / taken, 1),
        "matmul_gflop_per_s": round(statistics.median(rates), 1),
        "share_of_matmul": round(statistics.median(shares), 3),
        "shares": [round(share, 3) for share in (min(shares), max(shares))],
        "images_per_s": round(step.shape.batch / taken, 1),
        "peak_mib": round(peak_mib(step.device)),
        **({} if step.device.type == "cpu" else {"reserved_mib": torch.cuda.max_memory_reserved(step.device) >> 20}),
    }


class Product:
    """A plain product of two square matrices of random numbers, since tensor cores are faster on equal ones."""

    def __init__(self, device: torch.device, precision: str) -> None:
        self._device, side, dtype = device, MATRIX[device.type], DTYPES[precision]
        self._one, self._two, self._out = (torch.randn(side, side, device=device).to(dtype) for _ in range(3))
        self._times = 1 if device.type == "cpu" else 10
        self.rate()

    def rate(self) -> float:
        """GFLOP/s."""
        synchronise(self._device)
        started = time.perf_counter()
        for _ in range(self._times):
            torch.mm(self._one, self._two, out=self._out)
        synchronise(self._device)
        return self._times * 2 * len(self._one) ** 3 / (time.perf_counter() - started) / 1e9


def synchronise(device: torch.device) -> None:
    """Wait for an accelerator; a CPU is done when it says so."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_mib(device: torch.device) -> float:
    """Most memory so far: of the accelerator, or of this process with all that it imports."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def profile(step: Step) -> None:
    """Where the time of three steps goes, by operation."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if step.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    step.take(1, lambda seconds: None)
    with torch.profiler.profile(activities=activities) as found:
        step.take(3, lambda seconds: None)
    order = "self_cuda_time_total" if step.device.type == "cuda" else "self_cpu_time_total"
    print(found.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=60))


if __name__ == "__main__":
    main()
