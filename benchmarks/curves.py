"""How cost grows: a slope is the exponent of a power law, fitted by least squares to logarithms. 1 is linear.

Every size is measured once a turn, the smallest first, so that what else the machine does meets all sizes; costs are
medians over turns, `last_slope` is that between the two largest sizes, where a fixed part shows least. `excess` is the
slope beyond what is asked: linear, or as the closed form of `mumc_model/flops.py` grows where that is more. A curve is
`met` within 0.15.

    batch, patches, text, queue   seconds of a pre-training step, by the trainer of benchmarks/step.py at small shapes;
                                  attention is quadratic in patches and in tokens, so seconds per useful GFLOP come too
    sites                         seconds of a round at the server without the network: updates spooled one by one,
                                  merged, and the optimiser's step
    judge                         seconds of judging those: reading is linear, comparing every two quadratic, and 1.5 is
                                  asked
    values                        seconds of both together
    memory_sites, memory_values   MiB at the peak of such a round, beyond the weights and the update that is coming in,
                                  in a process of its own
    plan_noise, plan_epsilon      seconds of a plan as `mumc-privacy plan` makes it, without what it has cached

    python benchmarks/curves.py [--json] [--curves batch,...] [--turns 4] [--threads 2] [--short] [--figure PATH]
                                [--folder DIR] [--clock wall]
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from growth.slopes import Curve, in_turns

Clock = Callable[[], float]
MIB = 2**20
NARROW = (
    *("model.vision.width=192", "model.vision.heads=3", "model.vision.depth=4"),
    *("model.text.width=192", "model.text.heads=3", "model.text.text_layers=2", "model.text.fusion_layers=2"),
)
"""Small enough that the largest step takes a second, wide enough that products are most of it. The step of the queue's
curve is smaller still (`golden`, with features as wide as MUMC's), or the queue would not show."""
BATCH, SIDE, PATCH, TOKENS, WORDS, QUEUE = 8, 96, 16, 24, 2000, 1024
"""Of a step, but for what a curve is about."""
STEPS: Mapping[str, tuple[str, Sequence[int]]] = {
    "batch": ("pairs", (4, 8, 16, 32, 64)),
    "patches": ("patches", (64, 144, 256, 576, 1024)),
    "text": ("tokens", (16, 32, 64, 128, 256)),
    "queue": ("features in the queue", (1024, 4096, 16384, 65536)),
}
ROUNDS: Mapping[str, tuple[str, Sequence[int]]] = {
    "sites": ("sites", (2, 6, 20, 64)),
    "judge": ("sites", (2, 6, 20, 64)),
    "values": ("values", (500_000, 2_000_000, 8_000_000, 32_000_000)),
    "memory_sites": ("sites", (4, 16, 64)),
    "memory_values": ("values", (2_000_000, 8_000_000, 32_000_000)),
}
VALUES, FEW_SITES = 2_000_000, 4
"""Of a round over sites, and of a round over values."""
PLANS: Mapping[str, Mapping[str, float]] = {"plan_noise": {"noise_multiplier": 1.0}, "plan_epsilon": {"epsilon": 3.0}}
PLANNED_ROUNDS = (10, 30, 100, 300, 1000, 3000)
CLOCKS: Mapping[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
PARTS = {"sites": ("spool", "merge", "step"), "judge": ("judge",), "values": ("spool", "judge", "merge", "step")}
"""What of a round a curve is about."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line in place of the table")
    parser.add_argument("--curves", default=",".join([*STEPS, *ROUNDS, *PLANS]), help="which, with commas between")
    parser.add_argument("--turns", type=int, default=4, help="how often every size is measured")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch")
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: the processor time of all threads, where others use the cores",
    )
    parser.add_argument("--short", action="store_true", help="2 turns, and the largest step and plan left out")
    parser.add_argument("--figure", type=Path, help="where the curves are drawn: a name in .svg")
    parser.add_argument("--folder", type=Path, help="where updates are spooled; default: the system's temporary folder")
    parser.add_argument("--peak", nargs=2, type=int, metavar=("SITES", "VALUES"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.peak:
        print(peak(*asked.peak, asked.folder))
        return
    load, rows = os.getloadavg()[0], []
    for name in asked.curves.split(","):
        started = time.perf_counter()
        rows.append(measure(name, asked).to_dict())
        rows[-1]["took_s"] = round(time.perf_counter() - started, 1)
        if not asked.json:
            print(line(rows[-1]), flush=True)
    found = {
        "benchmark": "curves",
        "threads": asked.threads,
        "clock": asked.clock,
        "cores": os.cpu_count(),
        "load_before": round(load, 2),
    }
    found |= {"load_after": round(os.getloadavg()[0], 2), "excess": max(row["excess"] for row in rows), "curves": rows}
    if asked.figure:
        from growth.plot import write_figure

        write_figure(rows, asked.figure)
    if asked.json:
        print(json.dumps(found))


def measure(name: str, asked: argparse.Namespace) -> Curve:
    turns = min(asked.turns, 2) if asked.short else asked.turns
    known = {**{of: sizes for of, (_, sizes) in {**STEPS, **ROUNDS}.items()}, **dict.fromkeys(PLANS, PLANNED_ROUNDS)}
    sizes = known[name][: -1 if asked.short and name not in ROUNDS else None]
    clock = CLOCKS[asked.clock]
    if name in STEPS:
        return of_step(name, sizes, turns, asked.threads, clock)
    if name in PLANS:
        return of_plan(name, sizes, min(turns, 3), clock)
    if name.startswith("memory"):
        return of_memory(name, sizes, asked.folder)
    return of_round(name, sizes, turns, asked.folder, clock)


def line(row: Mapping[str, object]) -> str:
    flat = f"  per GFLOP {row['slope_per_gflop']:+.2f}" if "slope_per_gflop" in row else ""
    return (
        f"{row['curve']:<14} slope {row['slope']:5.2f} ({row['slope_range'][0]:.2f} to {row['slope_range'][1]:.2f}), "
        f"last {row['last_slope']:5.2f}, asked {row['asked'][0]:.2f} and {row['asked'][1]:.2f}"
        f"{'' if row['met'] else ' NOT MET'}{flat}  {row['cost']}: "
        + ", ".join(f"{cost:g} at {size}" for size, cost in zip(row["sizes"], row["costs"], strict=True))
        + f"  [{row['took_s']} s]"
    )


def of_step(name: str, sizes: Sequence[int], turns: int, threads: int, clock: Clock) -> Curve:
    """All trainers are built first; a turn takes two steps of each, which fill its queue, and times the third."""
    import torch
    from step import Shape, Step

    torch.set_num_threads(threads)
    steps = {}
    for size in sizes:
        own = {"batch": BATCH, "text": TOKENS, "queue": QUEUE, "patches": (SIDE // PATCH) ** 2} | {name: size}
        # More patches come from smaller ones of larger images, or a curve would take minutes.
        patch_size = PATCH if name != "patches" else PATCH // 2
        side = round(own["patches"] ** 0.5) * patch_size
        shape = Shape(batch=own["batch"], tokens=own["text"], vocabulary=WORDS)
        given = (f"model.vision.image_size={side}", f"model.vision.patch_size={patch_size}")
        given += (f"model.queue_size={own['queue']}",)
        shapes, width = ("golden", ("model.projection=256",)) if name == "queue" else ("mid", NARROW)
        steps[size] = Step(shapes, shape, torch.device("cpu"), "fp32", (*width, *given))

    def seconds(size: int) -> float:
        ends: list[float] = []
        steps[size].take(3, lambda _: ends.append(clock()))
        return ends[2] - ends[1]

    for size in sizes:
        seconds(size)
    return Curve(
        name=name,
        size=STEPS[name][0],
        cost="seconds a step",
        sizes=sizes,
        turns=in_turns(sizes, seconds, turns),
        work=[steps[size].gflop for size in sizes],
        facts=(("threads", threads),),
    )


class Federation:
    """A server's side of a round, without a network: what sites send is made beforehand."""

    def __init__(self, sites: int, values: int, folder: Path | None) -> None:
        from protocol.messages import Report
        from server.config import StrategyConfig
        from server.optimizer import ServerOptimizer
        from server.spool import Spool

        # Every site's update is another stretch of the same noise, which takes no memory a site.
        self._noise = np.random.default_rng(0).standard_normal(values + 64 * sites, dtype=np.float32) * np.float32(0.01)
        self._base = {"float32": np.random.default_rng(1).standard_normal(values, dtype=np.float32)}
        self._sites, self._values, self._folder = sites, values, folder
        self._optimizer = ServerOptimizer(StrategyConfig(), {"float32": values})
        self._spool, self._report = Spool, Report

    def play(self, clock: Clock = time.perf_counter) -> dict[str, float]:
        """Seconds of each part of a round."""
        from server.config import MergeConfig, ScreenConfig
        from server.judge import judge
        from server.rules import merge

        with tempfile.TemporaryDirectory(dir=self._folder) as place:
            spool, taken = self._spool(Path(place) / "updates"), Seconds(clock)
            with taken.of("spool"):
                for site in range(self._sites):
                    spool.put(self._told(site), {"float32": self._noise[64 * site : 64 * site + self._values]})
            with taken.of("judge"):
                updates = spool.updates()
                judge(updates, base=self._base, last_step=None, usual=(), config=ScreenConfig(), private=False)
            with taken.of("merge"):
                mean = merge(updates, [float(update.report.examples) for update in updates], MergeConfig())
            with taken.of("step"):
                self._optimizer.step(self._base, mean)
        return taken.by_part

    def _told(self, site: int):
        told = {"run_id": "run", "round": 1, "attempt": 1, "metrics": {}, "base_digest": "0" * 64}
        return self._report(site=f"site-{site:03}", examples=site + 1, **told)


class Seconds:
    """What parts of a work took."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self.by_part = clock, dict[str, float]()

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Note what the block takes as this part's."""
        started = self._clock()
        yield
        self.by_part[part] = self._clock() - started


def of_round(name: str, sizes: Sequence[int], turns: int, folder: Path | None, clock: Clock) -> Curve:
    """Slopes of the parts are among the facts."""
    rounds = {size: Federation(*shape_of(name, size), folder) for size in sizes}
    rounds[sizes[0]].play()
    played = [[rounds[size].play(clock) for size in sizes] for _ in range(turns)]

    def curve(*parts: str) -> Curve:
        costs = [[sum(taken[part] for part in parts) for taken in turn] for turn in played]
        # Every two updates are compared, for nothing less tells a copy; reading them is still the larger part.
        power = 1.5 if parts == ("judge",) and name != "values" else 1.0
        return Curve(name=name, size=ROUNDS[name][0], cost="seconds", sizes=sizes, turns=costs, power=power)

    rows = {part: curve(part).to_dict() for part in PARTS[name]}
    parts = {part: {key: row[key] for key in ("costs", "slope", "last_slope")} for part, row in rows.items()}
    return replace(curve(*PARTS[name]), facts=(("parts", parts),))


def shape_of(name: str, size: int) -> tuple[int, int]:
    """Sites and values of a round."""
    return (FEW_SITES, size) if name.endswith("values") else (size, VALUES)


def of_memory(name: str, sizes: Sequence[int], folder: Path | None) -> Curve:
    """Once a size: memory does not depend on what else the machine does."""

    def mib(size: int) -> float:
        sites, values = shape_of(name, size)
        command = [sys.executable, __file__, "--peak", str(sites), str(values)]
        command += ["--folder", str(folder)] if folder else []
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    return Curve(name=name, size=ROUNDS[name][0], cost="MiB at the peak", sizes=sizes, turns=in_turns(sizes, mib, 1))


def peak(sites: int, values: int, folder: Path | None) -> float:
    """MiB that a round holds at its peak beyond what was there before it."""
    federation = Federation(sites, values, folder)
    before = status("VmRSS")
    # The peak so far holds what making up the updates took; 5 resets it.
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    federation.play()
    return status("VmHWM") - before


def status(field: str) -> float:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(rf"{field}:\s+(\d+) kB", text)[1]) * 1024 / MIB


def of_plan(name: str, sizes: Sequence[int], turns: int, clock: Clock) -> Curve:
    """Plans of 50 steps a round; a first one, which is not timed, imports what it needs."""
    seconds = planner(PLANS[name], clock)
    seconds(sizes[0])
    return Curve(name=name, size="rounds", cost="seconds a plan", sizes=sizes, turns=in_turns(sizes, seconds, turns))


def planner(target: Mapping[str, float], clock: Clock) -> Callable[[int], float]:
    """What times a plan of so many rounds; neither the disk nor the process remembers an earlier one."""
    from client.privacy import loss_distribution, renyi
    from client.privacy.plan import PlanRequest
    from client.privacy.planner import plan_for

    def seconds(rounds: int) -> float:
        for kept in (loss_distribution.composed, loss_distribution._of_a_step, renyi._of_a_step):
            kept.cache_clear()
        request = PlanRequest(patients=5000, batch=64, steps=50, rounds=rounds, delta=1e-5, cap=5.576, **target)
        with tempfile.TemporaryDirectory() as cache, patch.dict(os.environ, {"XDG_CACHE_HOME": cache}):
            started = clock()
            plan_for(request)
            return clock() - started

    return seconds


if __name__ == "__main__":
    main()
