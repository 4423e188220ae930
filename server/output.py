"""The output folder of a run: one run a folder, its result in one JSON file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.loader import dump, load
from protocol.score_curve import SHARE_METRICS, merged
from server.checkpoint import WEIGHTS, write_whole
from server.config import RunConfig
from server.errors import OutputError
from server.journal import SCHEMA_VERSION, RoundRecord
from server.tally import Tally

CONFIG, JOURNAL, RESULT, REPORT = "config.json", "journal.jsonl", "result.json", "report.md"
ROUND, LOCK = "round", ".lock"
"""The round at work, and what keeps two processes from playing one run."""


def own_folder(folder: Path, *, resume: bool = False) -> Path:
    """The folder, made if need be.

    Args:
        folder: `output_dir`.
        resume: Whether it has to hold a run that did not finish, or may hold none.

    Raises:
        OutputError: it holds the result or journal of another run, or nothing to go on with, or cannot be made.
    """
    if (folder / RESULT).exists():
        raise OutputError(f"{folder} already holds a finished run; choose another output_dir or move that one away")
    if resume:
        read_config(folder)
        return folder
    journal = folder / JOURNAL
    if (folder / CONFIG).exists() or (journal.exists() and journal.stat().st_size):
        raise OutputError(
            f"{folder} holds a run that did not finish; go on with it (mumc-server run DIR --resume), choose another "
            f"output_dir, or move that one away (its weights can be gone on from: initial_weights={folder / WEIGHTS})"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror}; choose another output_dir") from error
    return folder


def write_config(folder: Path, config: RunConfig) -> None:
    """Keep what the run is, so that it can be gone on with.

    Raises:
        OutputError: the disk refuses.
    """
    write_whole(folder / CONFIG, json.dumps(dump(config), indent=1, sort_keys=True).encode())


def read_config(folder: Path) -> RunConfig:
    """What the run in a folder was configured to be.

    Raises:
        OutputError: there is none, or it cannot be read.
    """
    try:
        return load(RunConfig, json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise OutputError(f"{folder} holds no run to go on with (no {CONFIG}); check the name of the run") from None
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{folder / CONFIG} cannot be read ({error}); go on with the fedmumc that began the run"
        ) from error


def result_json(
    config: RunConfig,
    run_id: str,
    records: Sequence[RoundRecord],
    tally: Tally,
    *,
    enrolled: Sequence[str] = (),
    code: str = "",
) -> bytes:
    """The result file: who reported what, and every number once more as a cell.

    Args:
        config: The run.
        run_id: Its name.
        records: Of every round and attempt.
        tally: What came of the sites after the last round.
        enrolled: Names of the sites that were asked, where they are enrolled.
        code: Digest of the code that played the run (`protocol.bundle`); empty in a trial.
    """
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
        if name not in SHARE_METRICS
    ]
    curve = merged(report.metrics for report in tally.reports.values())
    values = {
        "schema_version": SCHEMA_VERSION,
        "run_id": run_id,
        "enrolled": list(enrolled),
        "code": code,
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
            "answer_scores": curve.to_dict() if curve else None,
            "bytes_up": tally.bytes_up,
            "bytes_down": tally.bytes_down,
        },
        "cells": cells,
        "config": dump(config),
    }
    return json.dumps(values, indent=1, allow_nan=False).encode()


def _cell(factors: Mapping[str, Any], metric: str, value: float, n: int, seed: int) -> dict[str, Any]:
    return {"factors": dict(factors), "metric": metric, "value": value, "ci95": None, "n": n, "seed": seed}
