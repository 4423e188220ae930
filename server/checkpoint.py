"""What a round leaves on the disk: the weights, the optimiser's moments, the step; all of it or nothing."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from mumc_model.data.files import write_atomically
from mumc_model.tensorfile import map_tensors, read_header, write_tensors
from server.errors import OutputError, disk_error

Array = np.ndarray[Any, Any]

WEIGHTS = "weights.safetensors"
OPTIMIZER, STEP = "optimizer-{:04d}.safetensors", "step-{:04d}.safetensors"
"""Of a round; a round that has none writes none."""
_FACTS = "fedmumc"
"""One key of metadata: safetensors' own writer puts several in any order."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The last round that was saved."""

    run_id: str
    round: int
    """0 before the first."""
    weights: Mapping[str, Array]
    """By name."""
    moments: Mapping[str, Array]
    """`ServerOptimizer.state_dict`."""


def save_round(
    folder: Path,
    weights: Mapping[str, Array],
    moments: Mapping[str, Array],
    *,
    run_id: str,
    round: int,
    step: Mapping[str, Array] | None = None,
) -> None:
    """Make these the folder's checkpoint, all of them or none.

    Moments and step go first, to files of their own round, and the weights, which say their round, last: with their
    place in the folder they commit it. Files of older rounds, and what a crash cut off, are removed
    then.

    Args:
        folder: Of the run.
        weights: By name.
        moments: Of the server's optimiser.
        run_id: The run's name.
        round: That these weights end.
        step: The packed change of the weights, which a later round compares updates with.

    Raises:
        OutputError: the disk refuses; the last checkpoint is still whole.
    """
    metadata = {_FACTS: json.dumps({"run_id": run_id, "round": round})}
    beside = {OPTIMIZER.format(round): dict(moments), STEP.format(round): dict(step or {})}
    for name, arrays in [*beside.items(), (WEIGHTS, dict(weights))]:
        if arrays:
            try:
                write_tensors(folder / name, arrays, metadata)
            except OSError as error:
                raise disk_error(folder / name, error) from error
    for pattern in (OPTIMIZER, STEP):
        for old in folder.glob(pattern.replace("{:04d}", "*")):
            if old.name not in beside:
                old.unlink()
    for cut_off in folder.glob(".*.safetensors.*.partial"):
        cut_off.unlink()


def load_round(folder: Path) -> Checkpoint:
    """The folder's checkpoint.

    Raises:
        OutputError: there is none, or it is damaged.
    """
    weights = load_arrays(folder / WEIGHTS)
    run_id, round = saved_round(folder)
    moments = folder / OPTIMIZER.format(round)
    return Checkpoint(
        run_id=run_id,
        round=round,
        weights=weights,
        moments=load_arrays(moments) if moments.is_file() else {},
    )


def saved_round(folder: Path) -> tuple[str, int]:
    """The run and the round of the folder's weights.

    Raises:
        OutputError: there are none, or they are damaged.
    """
    try:
        _, metadata, _ = read_header(folder / WEIGHTS)
        facts = json.loads(metadata[_FACTS])
        return str(facts["run_id"]), int(facts["round"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{folder / WEIGHTS} does not say its round ({error}), so no run goes on from it") from error


def last_step(folder: Path, round: int) -> dict[str, Array] | None:
    """The packed change of the weights in a round, mapped; None where it was not kept.

    Raises:
        OutputError: the file is damaged.
    """
    path = folder / STEP.format(round)
    try:
        return map_tensors(path)[0] if path.is_file() else None
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} is damaged ({error}); delete it, and updates are not compared with it") from error


def load_arrays(path: Path) -> dict[str, Array]:
    """The arrays of a safetensors file by name.

    Raises:
        OutputError: the file is missing or damaged.
    """
    try:
        return dict(load_file(path))
    except FileNotFoundError as error:
        raise OutputError(f"there is no file {path}; check the path") from error
    except SafetensorError as error:
        raise OutputError(f"{path} is damaged or not safetensors ({error}); fetch it again") from error


def write_whole(path: Path, content: bytes) -> None:
    """Replace the file's content at once; a crash leaves the old or the new, never half of either.

    Raises:
        OutputError: the disk refuses; the old file is still there.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        raise disk_error(path, error) from error
