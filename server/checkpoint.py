"""What a round leaves on the disk: the weights, the optimiser's moments, the step; all of it or nothing."""

import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
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
EARLIER = "weights-{:04d}.safetensors"
"""The weights of a round before the last, where a run keeps several; the last are always in `WEIGHTS`."""
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
    keep: int = 1,
) -> None:
    """Make these the folder's checkpoint, all of them or none.

    All are written at one time. Moments and step take their places first, as files of their own round, and the weights,
    which say their round, last: with their place in the folder they commit it. Files of older rounds, and what a crash
    cut off, are removed then.

    Args:
        folder: Of the run.
        weights: By name.
        moments: Of the server's optimiser.
        run_id: The run's name.
        round: That these weights end.
        step: The packed change of the weights, which a later round compares updates with.
        keep: So many rounds' weights are on the disk afterwards, these among them.

    Raises:
        OutputError: the disk refuses; the last checkpoint is still whole.
    """
    metadata = {_FACTS: json.dumps({"run_id": run_id, "round": round})}
    beside = {OPTIMIZER.format(round): dict(moments), STEP.format(round): dict(step or {})}
    if keep > 1:
        _set_aside(folder)
    with ThreadPoolExecutor(1) as pool:
        others = [pool.submit(_write, folder / name, arrays, metadata) for name, arrays in beside.items() if arrays]
        _write(folder / WEIGHTS, dict(weights), metadata, ready=lambda: [other.result() for other in others])
    tidy(folder, round, keep)


def _write(
    path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str], ready: Callable[[], object] | None = None
) -> None:
    try:
        write_tensors(path, arrays, metadata, ready=ready)
    except OSError as error:
        raise disk_error(path, error) from error


def tidy(folder: Path, round: int, keep: int = 1) -> None:
    """Remove what a round that is saved has no use for; a crash may have come between its weights and this."""
    for pattern in (OPTIMIZER, STEP):
        for old in folder.glob(pattern.replace("{:04d}", "*")):
            if old.name != pattern.format(round):
                old.unlink()
    earlier = sorted(found for found in _earlier(folder) if found < round)
    for found, old in _earlier(folder).items():
        if found not in earlier[len(earlier) - (keep - 1) :]:
            old.unlink()
    for cut_off in folder.glob(".*.safetensors.*.partial"):
        cut_off.unlink()


def kept_weights(folder: Path) -> dict[int, Path]:
    """The weights that lie in the folder of a run, by round, in its order.

    Raises:
        OutputError: there are none, or the last are damaged.
    """
    return dict(sorted({**_earlier(folder), saved_round(folder)[1]: folder / WEIGHTS}.items()))


def _earlier(folder: Path) -> dict[int, Path]:
    """By round."""
    head, tail = EARLIER.split("{:04d}")
    found = {path.name.removeprefix(head).removesuffix(tail): path for path in folder.glob(f"{head}*{tail}")}
    return {int(number): path for number, path in found.items() if number.isdecimal()}


def _set_aside(folder: Path) -> None:
    """Give the weights of the last round the name of their round beside that of the last, which the next will take.

    The first weights are of no round, and are not kept.
    """
    if not (folder / WEIGHTS).is_file() or not (round := saved_round(folder)[1]):
        return
    aside = folder / EARLIER.format(round)
    try:
        # What a crash may have left has the same content, as long as the weights still have their old name.
        aside.unlink(missing_ok=True)
        try:
            os.link(folder / WEIGHTS, aside)
        except OSError:
            # Some disks know no second names.
            write_atomically(aside, (folder / WEIGHTS).read_bytes())
    except OSError as error:
        raise disk_error(aside, error) from error


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
