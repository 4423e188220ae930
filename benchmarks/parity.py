"""The largest deviation of every quantity from the authors' own code, on the recordings that `MUMC_GOLDENS` names.

    python benchmarks/parity.py [--json]

Single precision, absolute; pre-training over three consecutive steps, each from the weights that the last left.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.mumc_model.golden import GOLDENS, STEPS, Finetuning, Pretraining, facts


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    as_json = parser.parse_args().json
    if not GOLDENS.is_dir():
        print(f"nothing to compare with: no recordings at {GOLDENS}; set MUMC_GOLDENS to their folder", file=sys.stderr)
        return
    torch.set_num_threads(1)
    parts = {
        "first pre-training step": Pretraining().deviations(1),
        f"{STEPS} pre-training steps": Pretraining().deviations(STEPS),
        "fine-tuning step": Finetuning().deviations(),
        "ranking": {f"probabilities, {keep} kept": _ranking(keep) for keep in (1, 6, 12)},
    }
    cells = [
        {
            "factors": {"part": part, "quantity": name},
            "metric": "largest absolute deviation",
            "value": value,
            "ci95": None,
            "n": 1,
            "seed": 0,
        }
        for part, found in parts.items()
        for name, value in found.items()
    ]
    if as_json:
        print(json.dumps({"schema_version": 1, "torch": torch.__version__, "cells": cells}, indent=1))
        return
    for part, found in parts.items():
        print(f"| {part} | largest absolute deviation |\n|---|---|")
        for name, value in found.items():
            print(f"| {name} | {value:.1e} |")
        print()


def _ranking(keep: int) -> float:
    ids, probabilities = Finetuning().ranked(keep)
    expected = facts("vqa")[f"rank_k{keep}"]
    if ids.tolist() != expected["topk_ids"]:
        return float("inf")
    return float((probabilities - torch.tensor(expected["topk_probs"])).abs().max())


if __name__ == "__main__":
    main()
