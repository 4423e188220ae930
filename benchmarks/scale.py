"""What a simulated federation of many sites costs: seconds a round and memory, as `mumc-sim run` plays it.

For each number of sites `mumc-sim run experiment=hundred` runs in a process of its own, and is watched from outside:

    seconds        of a round, median; without the first, in which workers start and images are decoded
    seconds_site   the same for one site
    growth         seconds a site over those of the fewest sites: 1 is linear
    server         peak MiB of the server's process in the rounds, and in the second and last alone: its own memory,
                   without what it has mapped of files
    resident       the same with that: pages of updates on the disk count, which the system takes back at need
    worker         own memory of the largest worker

    python benchmarks/scale.py [--json] [--sites 10,30,100] [--rounds 4] [--workers 2] [--engine local] [OVERRIDE ...]
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

MIB = 2**20
SIMULATOR = Path(sys.executable).with_name("mumc-sim")
LOOK_S = 0.1
JOURNAL = Path("latest", "seed-0", "runs", "federated", "journal.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line in place of the table")
    parser.add_argument("--sites", default="10,30,100", help="numbers of sites, the fewest first")
    parser.add_argument("--rounds", type=int, default=4, help="rounds of each run, at least 2")
    parser.add_argument("--workers", type=int, default=2, help="clients that run side by side")
    parser.add_argument("--engine", default="local", choices=("local", "ray"), help="what runs the clients")
    parser.add_argument("override", nargs="*", help="further settings of the simulation")
    asked = parser.parse_args()
    rows: list[dict] = []
    load = [round(value, 2) for value in os.getloadavg()]
    for sites in map(int, asked.sites.split(",")):
        row = measure(sites, asked)
        row["growth"] = round(row["seconds_site"] / rows[0]["seconds_site"], 2) if rows else 1.0
        rows.append(row)
        if not asked.json:
            print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    if asked.json:
        facts = {"engine": asked.engine, "workers": asked.workers, "cores": os.cpu_count(), "load_before": load}
        print(json.dumps({"benchmark": "scale", **facts, "cells": rows}))


def measure(sites: int, asked: argparse.Namespace) -> dict:
    """One run, watched."""
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        settings = {
            "experiment": "hundred",
            "device": "cpu",
            "output_root": folder,
            "engine": asked.engine,
            "engine.workers": asked.workers,
            "federation.sites": sites,
            "federation.min_sites": sites,
            "federation.rounds": asked.rounds,
        }
        command = [str(SIMULATOR), "run", *(f"{name}={value}" for name, value in settings.items()), *asked.override]
        with (Path(folder) / "output.log").open("wb") as log:
            process = psutil.Popen(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
            peaks = watch(process, Path(folder) / JOURNAL)
        if process.wait():
            raise RuntimeError((Path(folder) / "output.log").read_text(errors="replace")[-2000:])
        lines = [json.loads(line) for line in (Path(folder) / JOURNAL).read_text().splitlines()]
    rounds = [line["seconds"] for line in lines if line["sites_merged"]]
    seconds = statistics.median(rounds[1:])
    found = {"sites": sites, "rounds": len(rounds), "seconds": round(seconds, 2), "first": round(rounds[0], 2)}
    found["seconds_site"] = round(seconds / sites, 4)
    for name in ("server", "resident", "worker"):
        of_rounds = [peaks.get(round, {}).get(name, 0.0) for round in range(len(rounds))]
        found |= {name: max(of_rounds), f"{name}_first": of_rounds[1], f"{name}_last": of_rounds[-1]}
    return found


def watch(process: psutil.Process, journal: Path) -> dict[int, dict[str, float]]:
    """Peak MiB of the server's process and of the largest worker while so many rounds were in the journal."""
    peaks: dict[int, dict[str, float]] = {}
    while process.poll() is None:
        done = journal.read_bytes().count(b"\n") if journal.is_file() else 0
        now = peaks.setdefault(done, dict.fromkeys(("server", "resident", "worker"), 0.0))
        own, resident = memory(process)
        now["server"], now["resident"] = max(now["server"], own), max(now["resident"], resident)
        for child in process.children(recursive=True):
            now["worker"] = max(now["worker"], memory(child)[0])
        time.sleep(LOOK_S)
    return peaks


def memory(process: psutil.Process) -> tuple[float, float]:
    """Own and resident MiB now; a process that has ended has none."""
    try:
        found = process.memory_info()
    except psutil.Error:
        return 0.0, 0.0
    return round((found.rss - found.shared) / MIB, 1), round(found.rss / MIB, 1)


if __name__ == "__main__":
    main()
