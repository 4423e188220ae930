"""What a federated round costs beyond the local training that it is made of, in a simulation with one worker.

`mumc-sim run` with `engine=local engine.workers=1`, one arm and next to no fine-tuning, at the local steps that a run
has where nobody says otherwise (`configs/run.yaml`). What a round costs beside its steps is a price for an order, so
with N times the steps it is an Nth of the share. Of every round but the first, which still reads images and starts
threads, medians:

    training   seconds in the sites' optimiser steps, one site after the other
    round      seconds from the end of the round before to its own: orders, models, updates on the disk, merge, save
    overhead   (round - training) / training, the median over rounds
    site       seconds of the sites' answers beyond their training, and `server` the rest
    enough     local steps at which the overhead would be 5 %, by the seconds of a step here

    python benchmarks/round.py [--json] [--rounds 5] [--cases tiny,mid] [--steps 25]
"""

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

CASES = {
    "tiny": ("model=tiny", "source.phantom.images=96"),
    "mid": (
        *("model=mid", "model.text.vocab_size=30522", "pretrain.batch_size=8"),
        *("source.phantom.images=48", "source.phantom.image_size=128"),
    ),
}
"""What each case sets; beyond this it is the demo."""
HOSPITALS = 3
AIM = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line in place of the table")
    parser.add_argument("--rounds", type=int, default=5, help="that are counted, after a first one")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument(
        "--steps", type=int, default=0, help="local steps of a round; 0 takes those of configs/run.yaml"
    )
    asked = parser.parse_args()
    found: dict[str, object] = {"benchmark": "round", "cores": os.cpu_count(), "load_before": os.getloadavg()[0]}
    found["cases"] = {name: measure(name, asked.rounds, asked.steps) for name in asked.cases.split(",")}
    found["load_after"] = os.getloadavg()[0]
    if asked.json:
        print(json.dumps(found))
        return
    for name, row in found["cases"].items():
        print(
            f"{name:<6} {row['sites']} sites, {row['steps']} steps each: training {row['training_s']:.2f} s, round "
            f"{row['round_s']:.2f} s, overhead {100 * row['overhead']:.1f} % (at the sites {row['site_s']:.2f} s, at "
            f"the server {row['server_s']:.2f} s), 5 % at {row['enough']} steps"
        )


def measure(case: str, rounds: int, steps: int) -> dict[str, float | int]:
    """Medians over the rounds that count."""
    from rich.console import Console

    from configs.compose import compose
    from configs.loader import load
    from simulations.config import SimulationConfig
    from simulations.run import simulate

    with tempfile.TemporaryDirectory(prefix="fedmumc-round-") as place:
        settings = (
            *("arms=[federated]", "engine=local", "engine.workers=1", f"output_root={place}", "seeds=[0]"),
            *(f"federation.rounds={rounds + 1}", f"federation.sites={HOSPITALS}"),
            *("finetune.steps=4", "finetune.select_every=4"),
            *([f"federation.local_steps={steps}"] if steps else []),
        )
        config = load(SimulationConfig, compose("simulation", [*settings, *CASES[case]]))
        clock = Clock()
        simulate(config, "", Console(file=sys.stderr, quiet=True))
    steps = config.run.federation.local_steps
    rows = [
        {"round": clock.ended[n] - clock.ended[n - 1], "training": clock.training[n], "site": clock.answers[n]}
        for n in range(2, rounds + 2)
    ]
    overhead = statistics.median(row["round"] / row["training"] - 1 for row in rows)
    return {
        "sites": HOSPITALS,
        "steps": steps,
        "training_s": statistics.median(row["training"] for row in rows),
        "round_s": statistics.median(row["round"] for row in rows),
        "overhead": overhead,
        "site_s": statistics.median(row["site"] - row["training"] for row in rows),
        "server_s": statistics.median(row["round"] - row["site"] for row in rows),
        "enough": math.ceil(steps * overhead / AIM),
    }


class Clock:
    """Seconds of training and of whole answers, by round, and when each round ended."""

    def __init__(self) -> None:
        import client.app
        import client.pretrain
        import server.strategy

        self.ended: dict[int, float] = {}
        self.training: dict[int, float] = {}
        self.answers: dict[int, float] = {}
        self._round = 0
        trainer, app, clock = client.pretrain.Pretrainer, client.app.app, self

        class Timed(trainer):  # type: ignore[misc, valid-type]
            def run(self, *arguments, **keywords):
                result = super().run(*arguments, **keywords)
                clock.add(clock.training, result.seconds)
                return result

        client.pretrain.Pretrainer = Timed  # type: ignore[misc]

        play = server.strategy.Strategy.play_round

        def played(strategy, order, nodes):
            record = play(strategy, order, nodes)
            clock.ended[order.round] = time.perf_counter()
            return record

        server.strategy.Strategy.play_round = played  # type: ignore[method-assign]

        def answer(message, context):
            clock._round = int(message.metadata.group_id or 0)
            started = time.perf_counter()
            reply = app(message, context)
            clock.add(clock.answers, time.perf_counter() - started)
            return reply

        client.app.app = answer  # type: ignore[assignment]

    def add(self, to: dict[int, float], seconds: float) -> None:
        """Seconds of the round at work."""
        to[self._round] = to.get(self._round, 0.0) + seconds


if __name__ == "__main__":
    main()
