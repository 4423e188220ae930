"""How fast a round is merged, over Flower and over copying memory, and how much memory each rule takes.

Everything that a ratio compares is timed in turns in one process, on the same values. Updates lie in a spool as they do
at a server; the disk's cache holds them, as it does what has just arrived.

    ratio_to_flower           time of Flower's `aggregate_arrayrecords` over that of `server.rules.merge` with rule=mean
    share_of_copy_bandwidth   bytes of updates that are merged a second (on all cores), over bytes that one call of
                              `np.copyto` copies a second between arrays of one update's size that were written before
    share_of_copy_on_two      the same, over what two threads copy together where that is more
    *_cpu_s                   the same as *_s in processor time of all threads: what a machine that is busy with other
                              things leaves comparable
    peak_models               resident memory at the peak of a merge, its result and pages of the maps included, beyond
                              what the process had, in models of `--peak-values`; in a process of its own for each rule

    python benchmarks/merge.py [--json] [--values 100000000] [--sites 8] [--runs 5] [--peak-values 50000000]
                               [--peak-sites 2,8,32] [--folder DIR]
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from protocol.messages import Report
from server.config import MergeConfig
from server.geometry import inner_products
from server.rules import RULES, merge
from server.spool import Spool

BASE_DIGEST = "0" * 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--values", type=int, default=100_000_000)
    parser.add_argument("--sites", type=int, default=8)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peak-values", type=int, default=50_000_000)
    parser.add_argument("--peak-sites", default="2,8,32")
    parser.add_argument("--folder", type=Path, help="where the spool lies; default: the system's temporary folder")
    parser.add_argument("--peak", nargs=3, metavar=("SPOOL", "RULE", "SITES"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.peak:
        print(peak(Path(asked.peak[0]), asked.peak[1], int(asked.peak[2])))
        return
    rows = [
        *in_spool(asked.folder, asked.sites, asked.values, lambda spool, puts: speeds(spool, puts, asked)),
        *memory(asked),
    ]
    summary = {
        name: row["value"]
        for name in ("ratio_to_flower", "share_of_copy_bandwidth", "share_of_copy_on_two")
        for row in rows
        if row["metric"] == name
    }
    summary["peak_models"] = max(row["value"] for row in rows if row["metric"] == "peak_models")
    if asked.json:
        print(
            json.dumps(
                {"benchmark": "merge", "values": asked.values, "cores": os.cpu_count(), **summary, "cells": rows}
            )
        )
        return
    for row in rows:
        print(f"{row['metric']:<24} {row['value']:>9.3f}  {', '.join(f'{k}={v}' for k, v in row['factors'].items())}")
    print(", ".join(f"{name} {value:.3f}" for name, value in summary.items()))


def in_spool(
    folder: Path | None, sites: int, values: int, work: Callable[[Spool, list[float]], list[dict]]
) -> list[dict]:
    """What `work` makes of a spool of so many updates and of the seconds that each took to put; then the spool goes."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        spool = Spool(Path(name) / "updates")
        puts = []
        for site in range(sites):
            arrays = {"float32": update(site, values)}
            report = Report(
                run_id="run",
                round=1,
                attempt=1,
                site=f"site-{site:03}",
                examples=site + 1,
                metrics={},
                base_digest=BASE_DIGEST,
            )
            puts.append(seconds(lambda report=report, arrays=arrays: spool.put(report, arrays)))
        return work(spool, puts)


def update(site: int, values: int) -> np.ndarray:
    """An update like those of training."""
    return np.random.default_rng(site).standard_normal(values, dtype=np.float32) * np.float32(0.01)


def speeds(spool: Spool, puts: list[float], asked: argparse.Namespace) -> list[dict]:
    """All that is timed, each thing in turns with the others."""
    updates = spool.updates()
    weights = [float(update.report.examples) for update in updates]
    actions = {
        **copies(asked.values),
        "merge": lambda: merge(updates, weights, MergeConfig()),
        "flower": flower(asked.sites, asked.values, weights),
    }
    found: dict[str, list[float]] = {name: [] for name in actions}
    worked: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(asked.runs):
        for name, action in actions.items():
            before = time.process_time()
            found[name].append(seconds(action))
            worked[name].append(time.process_time() - before)
    # Each run's own ratio: what slows the machine down for a while slows down both sides of it.
    copying = [min(times) for times in zip(found["copy_1"], found["copy_2"], strict=True)]
    factors = {"sites": asked.sites, "values": asked.values}
    others = {
        "put_s": statistics.median(puts),
        "judge_s": seconds(lambda: inner_products(updates)),
        **{f"{name}_s": statistics.median(times) for name, times in found.items()},
        **{f"{name}_cpu_s": statistics.median(times) for name, times in worked.items()},
        "ratio_to_flower": median_ratio(found["flower"], found["merge"]),
        "share_of_copy_bandwidth": asked.sites * median_ratio(found["copy_1"], found["merge"]),
        "share_of_copy_on_two": asked.sites * median_ratio(copying, found["merge"]),
        "merge_gb_per_s": asked.sites * asked.values * 4e-9 / statistics.median(found["merge"]),
        "copy_gb_per_s": asked.values * 4e-9 / statistics.median(found["copy_1"]),
    }
    rows = [cell(factors, metric, value) for metric, value in others.items()]
    for rule in RULES:
        if asked.sites >= RULES[rule].fewest(1):
            taken = seconds(lambda rule=rule: merge(updates, weights, MergeConfig(rule=rule)))
            rows.append(cell({**factors, "rule": rule}, "rule_s", taken))
    return rows


def copies(values: int) -> dict[str, Callable[[], object]]:
    """Copy an update on one thread, and on two, between arrays every page of which is there."""
    source, target = update(0, values), np.ones(values, np.float32)
    pool, half = ThreadPoolExecutor(2), values // 2
    halves = [slice(0, half), slice(half, values)]
    return {
        "copy_1": lambda: np.copyto(target, source),
        "copy_2": lambda: list(pool.map(lambda part: np.copyto(target[part], source[part]), halves)),
    }


def flower(sites: int, values: int, weights: Sequence[float]) -> Callable[[], object]:
    """Flower's mean of the same updates, from records as its strategies have them."""
    from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
    from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

    records = [
        RecordDict(
            {
                "arrays": ArrayRecord({"float32": Array(update(site, values))}),
                "metrics": MetricRecord({"num-examples": weight}),
            }
        )
        for site, weight in zip(range(sites), weights, strict=True)
    ]
    return lambda: aggregate_arrayrecords(records, "num-examples")


def memory(asked: argparse.Namespace) -> list[dict]:
    """The peak of every rule for every number of sites."""
    counts = [int(count) for count in asked.peak_sites.split(",")]
    most = max(*counts, 3)

    def measure(spool: Spool, puts: list[float]) -> list[dict]:
        rows = []
        for rule in RULES:
            for count in sorted({max(count, RULES[rule].fewest(0)) for count in counts}):
                command = [sys.executable, __file__, "--peak", str(spool.folder), rule, str(count)]
                bytes_ = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                factors = {"sites": count, "values": asked.peak_values, "rule": rule}
                rows.append(cell(factors, "peak_models", bytes_ / (4 * asked.peak_values)))
        return rows

    return in_spool(asked.folder, most, asked.peak_values, measure)


def peak(folder: Path, rule: str, sites: int) -> int:
    """Bytes that merging the first updates of a spool holds at its peak beyond what is there before."""
    spool = Spool(folder)
    updates = spool.updates(spool.sites()[:sites])
    config = MergeConfig(rule=rule, faulty=int(sites >= RULES[rule].fewest(1)))
    before = status("VmRSS")
    # The peak so far holds what importing took; 5 resets it.
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    merge(updates, [float(update.report.examples) for update in updates], config)
    return status("VmHWM") - before


def status(field: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(rf"{field}:\s+(\d+) kB", text)[1]) * 1024


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def cell(factors: dict[str, object], metric: str, value: float) -> dict:
    """One figure in the shape that every report has."""
    return {"factors": factors, "metric": metric, "value": round(value, 4)}


if __name__ == "__main__":
    main()
