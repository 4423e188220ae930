"""Seconds of a first and of a repeated `mumc-privacy plan`, each a whole process, and how much faster the second is.

    python benchmarks/plan.py [--json] [--runs 5]

The first one finds an empty plan cache every time. Python's compiled files are written by a process that is not
counted, into a folder of this script's own, as an installation would have them.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from client.privacy.accounting import DP_ACCOUNTING

PLAN = "plan --patients 5000 --batch 64 --steps 50 --rounds 100 --delta 1e-5 --cap 5.576 --json"
TARGETS = {"noise": "--noise 1", "epsilon": "--epsilon 3"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--runs", type=int, default=5, help="of each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cells = [cell for given in TARGETS for cell in _cells(given, options.runs, Path(folder))]
    if options.json:
        print(json.dumps({"schema_version": 1, "dp_accounting": DP_ACCOUNTING, "cells": cells}, indent=1))
        return
    print("| given | metric | median | least | most |\n|---|---|---|---|---|")
    for cell in cells:
        low, high = cell["range"]
        print(f"| {cell['factors']['given']} | {cell['metric']} | {cell['value']:.2f} | {low:.2f} | {high:.2f} |")


def _cells(given: str, runs: int, folder: Path) -> list[dict[str, object]]:
    first, repeated = [], []
    _seconds(given, folder / "warm", folder)
    for run in range(runs):
        cache = folder / f"{given} {run}"
        first.append(_seconds(given, cache, folder))
        repeated.append(_seconds(given, cache, folder))
    ratios = [slow / fast for slow, fast in zip(first, repeated, strict=True)]
    found = {"first plan, s": first, "repeated plan, s": repeated, "first over repeated": ratios}
    return [_cell(given, metric, values) for metric, values in found.items()]


def _cell(given: str, metric: str, values: list[float]) -> dict[str, object]:
    return {
        "factors": {"given": given},
        "metric": metric,
        "value": statistics.median(values),
        "range": [min(values), max(values)],
        "ci95": None,
        "n": len(values),
        "seed": 0,
    }


def _seconds(given: str, cache: Path, folder: Path) -> float:
    """Of one process, its start and its imports included."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPYCACHEPREFIX": str(folder / "compiled")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    words = [
        sys.executable,
        "-c",
        "from client.privacy.cli import main; main()",
        *PLAN.split(),
        *TARGETS[given].split(),
    ]
    start = time.perf_counter()
    subprocess.run(words, cwd=sys.path[0], env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
