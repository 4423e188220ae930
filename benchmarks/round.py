"""What a federated round costs beyond the local training that it is made of, in a simulation with one worker.

`mumc-sim run` with `engine=local engine.workers=1`, one arm and next to no fine-tuning. Of every round but the first,
which still reads images and starts threads, medians:

    training   seconds in the sites' optimiser steps, one site after the other
    round      seconds of the whole round, as the journal has them: orders, models, updates on the disk, merge, save
    overhead   (round - training) / training, the median over rounds
    site       seconds of the sites' answers beyond their training, and `server` the rest

    python benchmarks/round.py [--json] [--rounds 5] [--cases tiny,mid]
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

CASES = {
    "tiny": ("model=tiny", "federation.local_steps=25", "source.phantom.images=96"),
    "mid": (
        *("model=mid", "model.text.vocab_size=30522", "pretrain.batch_size=8", "federation.local_steps=4"),
        *("source.phantom.images=48", "source.phantom.image_size=128"),
    ),
}
"""What each case sets; beyond this it is the demo."""
HOSPITALS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line in place of the table")
    parser.add_argument("--rounds", type=int, default=5, help="that are counted, after a first one")
    parser.add_argument("--cases", default=",".join(CASES))
    asked = parser.parse_args()
    found: dict[str, object] = {"benchmark": "round", "cores": os.cpu_count(), "load_before": os.getloadavg()[0]}
    found["cases"] = {name: measure(name, asked.rounds) for name in asked.cases.split(",")}
    found["load_after"] = os.getloadavg()[0]
    if asked.json:
        print(json.dumps(found))
        return
    for name, row in found["cases"].items():
        print(
            f"{name:<6} {row['sites']} sites, {row['steps']} steps each: training {row['training_s']:.2f} s, round "
            f"{row['round_s']:.2f} s, overhead {100 * row['overhead']:.1f} % (at the sites {row['site_s']:.2f} s, at "
            f"the server {row['server_s']:.2f} s)"
        )


def measure(case: str, rounds: int) -> dict[str, float | int]:
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
        )
        config = load(SimulationConfig, compose("simulation", [*settings, *CASES[case]]))
        clock = Clock()
        _, out = simulate(config, "", Console(file=sys.stderr, quiet=True))
        lines = [json.loads(line) for path in out.rglob("journal.jsonl") for line in path.read_text().splitlines()]
    steps = config.run.federation.local_steps
    rows = [
        {"round": line["seconds"], "training": clock.training[line["round"]], "site": clock.answers[line["round"]]}
        for line in lines
        if line["round"] > 1
    ]
    return {
        "sites": HOSPITALS,
        "steps": steps,
        "training_s": statistics.median(row["training"] for row in rows),
        "round_s": statistics.median(row["round"] for row in rows),
        "overhead": statistics.median(row["round"] / row["training"] - 1 for row in rows),
        "site_s": statistics.median(row["site"] - row["training"] for row in rows),
        "server_s": statistics.median(row["round"] - row["site"] for row in rows),
    }


class Clock:
    """Seconds of training and of whole answers, by round."""

    def __init__(self) -> None:
        import client.app
        import client.pretrain

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
