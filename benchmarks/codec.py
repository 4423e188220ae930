"""What each codec costs a round: bytes from a site, seconds at the site and at the server, beside a copy of the update.

The update is packed float32, in memory. What a row holds, times being medians of runs that take turns in one process:

    bytes      of the arrays that leave the site for one update, and over those of float32
    encoding   at the site: what it owes added, the update encoded, and what it owes then (`with_feedback`)
    decoding   at the server: form and values checked, back to float32
    error      length of what the codec takes from one update, over the update's
    memory     at the peak of encoding and of decoding, beyond what goes in and what comes out, each in a process of
               its own, in updates of this size
    copy       one update copied in memory

    python benchmarks/codec.py [--json] [--values 100000000] [--runs 5] [--blocks 64,256,1024]
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from protocol.compression import Codec, restore, with_feedback

MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--values", type=int, default=100_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--blocks", default="64,256,1024")
    parser.add_argument("--peak", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.peak:
        print(peak(*asked.peak.split(","), asked.values))
        return
    blocks = [int(block) for block in asked.blocks.split(",")]
    codecs = [Codec(), Codec(kind="bfloat16"), *(Codec(kind="int8", block=block) for block in blocks)]
    rows = measure(codecs, asked.values, asked.runs)
    for row in rows:
        if not asked.json:
            print(
                f"{row['codec']:<9} block {row['block']:>5}  {row['bytes'] / 1e6:8.2f} MB ({row['share']:.4f})  "
                f"encoding {row['encoding_s']:5.2f} s  decoding {row['decoding_s']:5.2f} s  error {row['error']:.5f}  "
                f"memory {row['encoding_memory']:.2f} and {row['decoding_memory']:.2f} updates  "
                f"copy {row['copy_s']:.3f} s"
            )
    if asked.json:
        print(json.dumps({"benchmark": "codec", "values": asked.values, "cores": os.cpu_count(), "cells": cells(rows)}))


def measure(codecs: list[Codec], values: int, runs: int) -> list[dict[str, float | str]]:
    """A row for each codec."""
    update, owed = made(values, 0), made(values, 1, scale=1e-5)
    sizes = {"float32": values}
    times: dict[tuple[str, int, str], list[float]] = {}
    copies: list[float] = []
    for _ in range(runs):
        copies.append(seconds(lambda: update["float32"].copy()))
        for codec in codecs:
            residual = None if codec.exact else owed
            sent, _ = with_feedback(update, residual, codec)
            actions: dict[str, Callable[[], object]] = {
                "encoding": lambda codec=codec, residual=residual: with_feedback(update, residual, codec),
                "decoding": lambda codec=codec, sent=sent: restore(sent, sizes, codec),
            }
            for name, action in actions.items():
                times.setdefault((codec.kind, codec.block, name), []).append(seconds(action))
            del sent
    return [row(codec, update, times, statistics.median(copies)) for codec in codecs]


def row(
    codec: Codec, update: dict[str, np.ndarray], times: dict[tuple[str, int, str], list[float]], copy_s: float
) -> dict[str, float | str]:
    flat = update["float32"]
    sent, lost = with_feedback(update, None, codec)
    size = sum(array.nbytes for array in sent.values())
    found: dict[str, float | str] = {"codec": codec.kind, "block": codec.block, "bytes": size}
    found |= {"share": size / flat.nbytes, "copy_s": copy_s}
    for name in ("encoding", "decoding"):
        found[f"{name}_s"] = statistics.median(times[codec.kind, codec.block, name])
        found[f"{name}_memory"] = peak_of(codec, name, flat.size)
    found["error"] = 0.0 if lost is None else float(np.linalg.norm(lost["float32"]) / np.linalg.norm(flat))
    return found


def made(values: int, seed: int, scale: float = 0.01) -> dict[str, np.ndarray]:
    flat = np.random.default_rng(seed).standard_normal(values, dtype=np.float32)
    flat *= np.float32(scale)
    return {"float32": flat}


def peak_of(codec: Codec, what: str, values: int) -> float:
    """Memory of one action in a process of its own, in updates."""
    command = [sys.executable, __file__, "--peak", f"{codec.kind},{codec.block},{what}", "--values", str(values)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak(kind: str, block: str, what: str, values: int) -> float:
    codec = Codec(kind=kind, block=int(block))
    update = made(values, 0)
    residual = None if codec.exact else made(values, 1, scale=1e-5)
    sent = with_feedback(update, residual, codec)[0] if what == "decoding" else {}
    before = status("VmRSS")
    # The peak so far holds what making up the update took; 5 resets it.
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    if what == "encoding":
        arrays, left = with_feedback(update, residual, codec)
        out = sum(array.nbytes for array in [*arrays.values(), *(left or {}).values()] if array.base is None)
    else:
        out = sum(array.nbytes for array in restore(sent, {"float32": values}, codec).values())
    out = 0 if codec.exact else out
    return round(max(0.0, (status("VmHWM") - before) * MIB - out) / (4 * values), 3)


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def status(field: str) -> float:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(rf"{field}:\s+(\d+) kB", text)[1]) / 1024


def cells(rows: list[dict[str, float | str]]) -> list[dict[str, object]]:
    """The rows in the shape that every report has."""
    factors = ("codec", "block")
    return [
        {"factors": {name: row[name] for name in factors}, "metric": metric, "value": value}
        for row in rows
        for metric, value in row.items()
        if metric not in factors
    ]


if __name__ == "__main__":
    main()
