"""The model that answers at a site, opened once for as long as its files stay as they are."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mumc_model.answerer import Answerer
from mumc_model.errors import CheckpointError, DataError, MumcError
from mumc_model.members import further_members

OWN_MODEL = "state/vqa"
"""Where a site's own fine-tuning keeps its model."""
TRIES = 3
"""So often a model is opened that changes meanwhile."""

Stamps = tuple[tuple[str, int, int], ...]
"""Name, time of change and length of files."""


def folder_of_model(root: Path, model: Path | None = None) -> Path:
    """The folder of the model that answers at the site: the one that is named, or the site's own.

    Raises:
        DataError: there is no model in it.
    """
    folder = model or root / OWN_MODEL
    if not (folder / "model.safetensors").is_file():
        raise DataError(f"there is no answering model in {folder}; make one with: mumc-site finetune {root}")
    return folder


@dataclass(frozen=True, kw_only=True)
class OpenedModel:
    """An answering model in memory."""

    answerer: Answerer
    digest: str
    """Of its weights, of an ensemble that of the digests of its members, one after the other; empty if not asked for.
    """


def opened(folder: Path, *, with_digest: bool = False) -> OpenedModel:
    """The answering model in a folder; asking again opens it again only where one of its files has changed.

    Where a file changes while the model is read, or its digest taken, both begin anew: a digest is never of other
    weights than those in memory.

    Raises:
        CheckpointError: it cannot be read, is no answering model, or changes again and again.
    """
    folder = folder.resolve()
    for _ in range(TRIES):
        stamps = stamps_of(model_files(folder))
        try:
            found = OpenedModel(answerer=_opened(folder, stamps), digest=_digest(folder, stamps) if with_digest else "")
        except (MumcError, OSError):
            if stamps_of(model_files(folder)) == stamps:
                raise
            continue
        if stamps_of(model_files(folder)) == stamps:
            return found
    raise CheckpointError(
        f"the model in {folder} was changed each of {TRIES} times that it was opened; wait until nothing writes there"
    )


def forget_opened() -> None:
    """Let go of the model in memory, so that it is opened anew when it is next asked for."""
    _opened.cache_clear()
    _digest.cache_clear()


def model_files(folder: Path) -> list[Path]:
    """Every file of a model and of its further members, also where it is damaged; none where there is no folder."""
    try:
        members = further_members(folder)
    except CheckpointError:
        members = ()
    return [path for part in (folder, *members) for path in sorted(part.glob("*")) if path.is_file()]


def stamps_of(files: Sequence[Path]) -> Stamps:
    """What tells that a file has changed, or is not there any more."""
    found = []
    for path in files:
        try:
            status = path.stat()
        except OSError:
            continue
        found.append((str(path), status.st_mtime_ns, status.st_size))
    return tuple(found)


@lru_cache(maxsize=1)
def _opened(folder: Path, stamps: Stamps) -> Answerer:
    return Answerer.open(folder)


@lru_cache(maxsize=1)
def _digest(folder: Path, stamps: Stamps) -> str:
    found = [_file_digest(member / "model.safetensors") for member in (folder, *further_members(folder))]
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
