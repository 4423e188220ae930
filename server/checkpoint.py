"""Weights and the optimiser's moments on disk, in safetensors, written whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from mumc_model.data.files import write_atomically
from server.errors import OutputError

Array = np.ndarray[Any, Any]

WEIGHTS = "weights.safetensors"


def save_round(
    folder: Path, weights: Mapping[str, Array], moments: Mapping[str, Array], *, run_id: str, round: int
) -> None:
    """Make `weights` (by name) and the server optimiser's moments the folder's checkpoint.

    The moments go first, to a file of their own round, and the weights say which round they are of: at every instant
    the weights on disk have their moments beside them. Moments of older rounds are removed last.

    Raises:
        OutputError: the disk refuses; the last checkpoint is still whole.
    """
    # One key: safetensors writes several in an order that changes from file to file, and equal weights are equal files.
    metadata = {"fedmumc": json.dumps({"run_id": run_id, "round": round})}
    current = folder / f"optimizer-{round:04d}.safetensors"
    if moments:
        write_whole(current, save(dict(moments), metadata=metadata))
    contiguous = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in weights.items()}
    write_whole(folder / WEIGHTS, save(contiguous, metadata=metadata))
    for old in folder.glob("optimizer-*.safetensors"):
        if old != current:
            old.unlink()


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
        raise OutputError(f"{path} cannot be written: {error.strerror}; the last checkpoint stands") from error
