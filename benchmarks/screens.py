"""How honest updates lie to each other: what `server/judge.py` measures, in federations where nobody cheats.

Each case is a federation of synthetic hospitals; its updates are taken from the wire, round by round. The figures say
how far an honest site stays from every limit of the screens, and so how likely they are to refuse one.

    python benchmarks/screens.py [--json] [--cases unlike,size,...] [--seed 0]
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np
from flwr.app import Message
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import simulations.run
import simulations.seed
from configs.compose import compose
from configs.loader import load
from protocol.messages import Refusal
from protocol.records import order_from_record, reply_from_record
from simulations.config import SimulationConfig
from simulations.grid import LocalGrid

Array = np.ndarray[Any, Any]

COMMON = (
    "experiment=plain",
    "device=cpu",
    "engine.workers=1",
    "arms=[federated]",
    "finetune.steps=1",
    "finetune.select_every=1",
    "federation.rounds=5",
    "federation.local_steps=10",
    "federation.sites=4",
    "federation.min_sites=1",
    "secagg.mode=off",
    "codec.kind=float32",
    "screen.norm_factor=0",
    "screen.free_riders=false",
)
CASES: Mapping[str, Sequence[str]] = {
    "unlike": (),
    "long": ("federation.local_steps=25", "federation.rounds=6"),
    "alike": ("source.phantom.unlike=0.0",),
    "size": ("partition=size", "source.phantom.images=100"),
    "dirichlet": ("partition=dirichlet", "source.phantom.images=100"),
    "organ": ("partition=organ", "source.phantom.images=100"),
    "eight": ("federation.sites=8",),
    "two steps": ("federation.local_steps=2", "federation.rounds=10", "pretrain.batch_size=4"),
    "one step": ("federation.local_steps=1", "federation.rounds=10", "pretrain.batch_size=4"),
    "fedadam": ("strategy=fedadam",),
    "private": (
        "privacy=patient",
        "source.phantom.images=200",
        "privacy.expected_batch=32",
        "privacy.physical_batch=32",
        "federation.rounds=3",
        "federation.local_steps=5",
    ),
}


class Tap(LocalGrid):
    """Keeps what crosses the wire: the weights of each round, and the updates by round and node."""

    bases: ClassVar[dict[int, Array]]
    updates: ClassVar[dict[int, dict[int, Array]]]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """As the grid, with the round's weights noted."""
        messages = list(messages)
        order, base = order_from_record(messages[0].content)
        if order.action == "train.pretrain":
            self.bases[order.round] = flat(base)
        return super().push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """As the grid, with each update noted."""
        replies = super().pull_messages(message_ids)
        for reply in replies:
            report, arrays = reply_from_record(reply.content)
            if isinstance(report, Refusal):
                print(f"a site refused: {report.text}", file=sys.stderr)
            elif arrays:
                self.updates.setdefault(report.round, {})[reply.metadata.src_node_id] = flat(arrays)
        return replies


def flat(arrays: Mapping[str, Array]) -> Array:
    """All values as one float64 vector."""
    return np.concatenate([arrays[name].astype(np.float64) for name in sorted(arrays)])


def measure(case: str, seed: int) -> list[dict[str, Any]]:
    """One row of figures a round."""
    Tap.bases, Tap.updates = {}, {}
    with tempfile.TemporaryDirectory() as folder, patch.object(simulations.seed, "LocalGrid", Tap):
        overrides = [*COMMON, *CASES[case], f"seeds=[{seed}]", f"output_root={folder}"]
        config = load(SimulationConfig, compose("simulation", overrides))
        simulations.run.simulate(config, "benchmarks/screens.py", Console(quiet=True))
    rows: list[dict[str, Any]] = []
    earlier: list[list[float]] = []
    for round, updates in sorted(Tap.updates.items()):
        known = [Tap.bases[round]]
        known += [Tap.bases[round] - Tap.bases[round - 1]] if round > 1 else []
        vectors = np.stack([*(updates[node] for node in sorted(updates)), *known])
        rows.append({"case": case, "seed": seed, "round": round} | figures(vectors, len(updates), earlier[-5:]))
        earlier.append(rows[-1]["norms"])
    return rows


def figures(vectors: Array, count: int, earlier: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Norms, and cosines between the updates, and of each with the weights sent and with the last global step."""
    products = vectors @ vectors.T
    lengths = np.sqrt(np.diag(products))
    cosines = products / np.outer(lengths, lengths)
    norms = lengths[:count].tolist()
    usual = [norm for norms_of_round in earlier for norm in norms_of_round]
    return {
        "values": vectors.shape[1],
        "norms": norms,
        "longest_to_others": max(
            norm / statistics.median_high(norms[:place] + norms[place + 1 :]) for place, norm in enumerate(norms)
        ),
        "longest_to_usual": max(norms) / statistics.median_low(usual) if usual else None,
        "cosines": cosines.tolist(),
        "pairs": [cosines[i, j] for i in range(count) for j in range(i)],
        "base": cosines[:count, count].tolist(),
        "last_step": cosines[:count, count + 1].tolist() if len(vectors) > count + 1 else None,
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The extremes over all rounds and sites of each case, in Markdown."""
    lines = [
        "| case | longest: to others | to earlier rounds | cosines of two | with the weights | with the last step |",
        "|---|---|---|---|---|---|",
    ]
    for case in dict.fromkeys(row["case"] for row in rows):
        own = [row for row in rows if row["case"] == case]
        others = max(row["longest_to_others"] for row in own)
        usual = max(row["longest_to_usual"] or 0.0 for row in own)
        ranges = [_range(own, name) for name in ("pairs", "base", "last_step")]
        lines.append(f"| {case} | {others:.2f} | {usual:.2f} | {' | '.join(ranges)} |")
    return "\n".join(lines)


def _range(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    values = [value for row in rows for value in row[name] or ()]
    return f"{min(values):.3f} to {max(values):.3f}"


def main() -> None:
    """Run the cases and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--cases", default=",".join(CASES), help="which, separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = []
    for case in options.cases.split(","):
        found = measure(case, options.seed)
        rows += found
        print(case, "done", file=sys.stderr, flush=True)
    print(json.dumps({"rows": rows}) if options.json else table(rows))


if __name__ == "__main__":
    main()
