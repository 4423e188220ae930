"""The output folder of a run: one run a folder, its result in one JSON file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.loader import dump
from server.checkpoint import WEIGHTS
from server.config import RunConfig
from server.errors import OutputError
from server.journal import SCHEMA_VERSION, RoundRecord
from server.tally import Tally

JOURNAL, RESULT, REPORT = "journal.jsonl", "result.json", "report.md"


def own_folder(folder: Path) -> Path:
    """The folder, made if need be.

    Raises:
        OutputError: it holds the result or journal of another run, or cannot be made.
    """
    if (folder / RESULT).exists():
        raise OutputError(f"{folder} already holds a finished run; choose another output_dir or move that one away")
    journal = folder / JOURNAL
    if journal.exists() and journal.stat().st_size:
        raise OutputError(
            f"{folder} holds the journal of a run that did not finish; choose another output_dir or move that one "
            f"away (its weights can be gone on from: initial_weights={folder / WEIGHTS})"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror}; choose another output_dir") from error
    return folder


def result_json(config: RunConfig, run_id: str, records: Sequence[RoundRecord], tally: Tally) -> bytes:
    """The result file: who reported what, and every number once more as a cell."""
    sites = {
        site: {"examples": report.examples, "metrics": dict(report.metrics)}
        for site, report in sorted(tally.reports.items())
    }
    cells = [
        _cell({"round": record.round}, f"loss.{name}", value, record.sites_merged, config.seed)
        for record in records
        for name, value in record.losses.items()
    ] + [
        _cell({"site": site}, name, value, report.examples, config.seed)
        for site, report in sorted(tally.reports.items())
        for name, value in report.metrics.items()
    ]
    values = {
        "schema_version": SCHEMA_VERSION,
        "run_id": run_id,
        "rounds": sum(record.sites_merged > 0 for record in records),
        "secagg": {
            "masked": any(record.secagg for record in records),
            "attempts": [
                {"round": record.round, "attempt": record.attempt, **record.secagg}
                for record in records
                if record.secagg
            ],
        },
        "vqa": {
            "sites": sites,
            "refused": tally.refused,
            "reasons": tally.reasons,
            "bytes_up": tally.bytes_up,
            "bytes_down": tally.bytes_down,
        },
        "cells": cells,
        "config": dump(config),
    }
    return json.dumps(values, indent=1, allow_nan=False).encode()


def _cell(factors: Mapping[str, Any], metric: str, value: float, n: int, seed: int) -> dict[str, Any]:
    return {"factors": dict(factors), "metric": metric, "value": value, "ci95": None, "n": n, "seed": seed}
