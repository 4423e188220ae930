"""Reports of simulations as `mumc-sim` writes them, cut down to what a planner reads."""

import json
from pathlib import Path


def report(*, epsilon: float = 3.0, arm: str = "warm-3", seeds: int = 1) -> dict:
    """One private arm and one without noise."""
    score = {"mean": 0.41, "ci95": [0.35, 0.47], "n": 200}
    facts = {"epsilon": epsilon, "delta": 1e-4, "noise_multiplier": 2.2, "retrieval_at_5": 0.2}
    return {
        "schema_version": 1,
        "data": "synthetic",
        "seeds": list(range(seeds)),
        "sites": {name: {"captioned_images": size} for name, size in (("north", 300.0), ("south", 500.0))},
        "arms": {arm: {"overall": score}, "infinity": {"overall": {**score, "mean": 0.5}}},
        "facts": {arm: facts, "infinity": {"retrieval_at_5": 0.3}},
        "cells": [
            {"factors": {"arm": arm}, "metric": "retrieval_at_5", "value": 0.2 + seed / 100, "ci95": None, "seed": seed}
            for seed in range(seeds)
        ],
    }


def write_report(folder: Path, **settings) -> Path:
    folder.mkdir(parents=True)
    path = folder / "report.json"
    path.write_text(json.dumps(report(**settings)))
    return path
