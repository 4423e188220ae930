"""The model that answers at a site, opened once for as long as its files stay as they are."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mumc_model.answerer import Answerer
from mumc_model.errors import CheckpointError, DataError
from mumc_model.members import further_members

OWN_MODEL = "state/vqa"
"""Where a site's own fine-tuning keeps its model."""

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
    """Of its weights; of an ensemble that of the digests of its members, one after the other."""


def opened(folder: Path) -> OpenedModel:
    """The answering model in a folder; asking again opens it again only where one of its files has changed.

    Raises:
        CheckpointError: it cannot be read, or is no answering model.
    """
    return _opened(folder.resolve(), stamps_of(model_files(folder)))


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
def _opened(folder: Path, stamps: Stamps) -> OpenedModel:
    answerer = Answerer.open(folder)
    found = [_file_digest(member / "model.safetensors") for member in (folder, *further_members(folder))]
    digest = found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()
    return OpenedModel(answerer=answerer, digest=digest)


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
