"""What secure aggregation costs a site and the server, over generating as many bytes with ChaCha20 alone.

A site of n adds n keystreams to its vector: one for each peer and its own. They are generated alone, and added, in
turns in one process, in blocks of the same size. What a row holds, times being medians:

    chacha    n keystreams, generated and thrown away
    masking   n keystreams added to the vector in place
    encoding  the update to integers, in a new vector
    digest    SHA-256 of the vector, which the site signs and the server checks
    opening   the server: all masks taken out of the sum, with nobody missing; and, in proportion, with as many missing
              as are tolerated
    memory    at the peak of encoding, masking and digest, beyond the update and the vector, in a process of its own

    python benchmarks/secagg.py [--json] [--values 100000000] [--sites 3,10,20] [--runs 5] [--colluding 1]
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from protocol.secagg import masks as masking
from protocol.secagg.fixed_point import choose
from protocol.secagg.masks import Mask, add_masks, vector_digest
from protocol.secagg.packed import encode_packed
from protocol.secagg.session import threshold_for

MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--values", type=int, default=100_000_000)
    parser.add_argument("--sites", default="3,10,20")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--colluding", type=int, default=1)
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    counts = [int(count) for count in asked.sites.split(",")]
    if asked.peak:
        print(site_peak(counts[0], asked.values, asked.colluding))
        return
    rows = []
    for sites in counts:
        row = measure(sites, asked.values, asked.colluding, asked.runs)
        rows.append(row)
        if not asked.json:
            print(
                f"{sites:>3} sites  threshold {row['threshold']:>2}  chacha {row['chacha_s']:5.2f} s  masking "
                f"{row['masking_s']:5.2f} s (x{row['masking_ratio']:.2f})  encoding {row['encoding_s']:.2f} s  digest "
                f"{row['digest_s']:.2f} s  opening {row['opening_s']:.2f} to {row['opening_most_s']:.2f} s  memory "
                f"{row['memory_mib']:.1f} MiB",
                flush=True,
            )
    if asked.json:
        print(
            json.dumps({"benchmark": "secagg", "values": asked.values, "cores": os.cpu_count(), "cells": cells(rows)})
        )


def measure(sites: int, values: int, colluding: int, runs: int) -> dict[str, float]:
    """Medians over the runs; each run does everything once."""
    update, fixed, share = site_of(sites, values, colluding)
    keys = [os.urandom(32) for _ in range(sites)]
    add, remove = [Mask(key) for key in keys], [Mask(key, subtract=True) for key in keys]
    words, _ = encode_packed(update, values, fixed, share)
    actions = {
        "chacha": lambda: generate(keys, words.nbytes),
        "masking": lambda: add_masks(words, add),
        "encoding": lambda: encode_packed(update, values, fixed, share),
        "digest": lambda: vector_digest(words),
        "opening": lambda: add_masks(words, remove),
    }
    found: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(runs):
        for name, action in actions.items():
            found[name].append(seconds(action))
    threshold = threshold_for(sites, colluding)
    # Each survivor's own mask, and its masks with each missing site; the streams are independent, so time is linear.
    most = threshold + threshold * (sites - threshold)
    median = {name: statistics.median(times) for name, times in found.items()}
    ratio = statistics.median(b / a for a, b in zip(found["chacha"], found["masking"], strict=True))
    return {
        "sites": sites,
        "threshold": threshold,
        "values": values,
        "word_bits": fixed.word_bits,
        **{f"{name}_s": value for name, value in median.items()},
        "opening_most_s": median["opening"] * most / sites,
        "masking_ratio": ratio,
        "memory_mib": peak(sites, values, colluding),
    }


def site_of(sites: int, values: int, colluding: int):
    """An update like those of training, the format of the session, and the site's share of the weight."""
    generator = np.random.default_rng(0)
    update = {"float32": generator.standard_normal(values, dtype=np.float32) * np.float32(0.01)}
    weights = [1000] * sites
    fixed = choose(clip=1.0, tolerance=1e-6, weights=weights, threshold=threshold_for(sites, colluding))
    return update, fixed, Fraction(1, sites)


def generate(keys: list[bytes], size: int) -> None:
    """That many bytes of keystream under each key, in blocks as large as masking takes."""
    block, zeros = bytearray(masking.BLOCK_BYTES), bytes(masking.BLOCK_BYTES)
    for key in keys:
        stream = masking._stream(key)
        for start in range(0, size, len(block)):
            stream.update_into(memoryview(zeros)[: min(len(block), size - start)], block)


def stage(update, values, fixed, share, keys) -> np.ndarray:
    """What a site does in stage 3, of what grows with the update."""
    words, _ = encode_packed(update, values, fixed, share)
    add_masks(words, [Mask(key) for key in keys])
    vector_digest(words)
    return words


def peak(sites: int, values: int, colluding: int) -> float:
    command = [sys.executable, __file__, "--peak", "--sites", str(sites), "--values", str(values)]
    command += ["--colluding", str(colluding)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def site_peak(sites: int, values: int, colluding: int) -> float:
    """MiB that stage 3 holds at its peak beyond what is there before it and the vector it returns."""
    update, fixed, share = site_of(sites, values, colluding)
    before = status("VmRSS")
    # The peak so far holds what making up the update took; 5 resets it.
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    words = stage(update, values, fixed, share, [os.urandom(32) for _ in range(sites)])
    return status("VmHWM") - before - words.nbytes / MIB


def status(field: str) -> float:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(rf"{field}:\s+(\d+) kB", text)[1]) / 1024


def seconds(action) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def cells(rows: list[dict[str, float]]) -> list[dict[str, object]]:
    """The rows in the shape that every report has."""
    factors = ("sites", "threshold", "values", "word_bits")
    return [
        {"factors": {name: row[name] for name in factors}, "metric": metric, "value": round(value, 4)}
        for row in rows
        for metric, value in row.items()
        if metric not in factors
    ]


if __name__ == "__main__":
    main()
