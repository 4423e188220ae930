"""The further members of an ensemble, as they lie in the folder of the first: folders of their own, and one list.

state/vqa/              the first member, with the answers, calibration and trust of all together
state/vqa/ensemble.json
state/vqa/member-2/     an answering model like any other
"""

import json
import re
import shutil
from pathlib import Path

from mumc_model.data.files import write_atomically
from mumc_model.errors import CheckpointError

ENSEMBLE_FILE = "ensemble.json"
_VERSION = 1
_NAME = re.compile(r"member-[1-9][0-9]{0,3}")


def further_members(folder: Path) -> tuple[Path, ...]:
    """The folders of the second member and those after it, in their order; none for a single model.

    Raises:
        CheckpointError: the list is damaged, or of a later version.
    """
    path = folder / ENSEMBLE_FILE
    if not path.is_file():
        return ()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        version, names = found["version"], found["members"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{ENSEMBLE_FILE} of {folder.name} is damaged; fine-tune again") from error
    if version != _VERSION:
        raise CheckpointError(
            f"{ENSEMBLE_FILE} of {folder.name} is of version {version}, this program reads {_VERSION}; fine-tune again"
        )
    if not isinstance(names, list) or not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
        raise CheckpointError(f"{ENSEMBLE_FILE} of {folder.name} names no members; fine-tune again")
    return tuple(folder / name for name in names)


def member_folder(folder: Path, place: int) -> Path:
    """Where the member of a place lies; the first, place 1, is the folder itself."""
    return folder / f"member-{place}"


def list_members(folder: Path, count: int) -> None:
    """Say that the folder holds so many members, the first among them; their folders are there already."""
    names = [member_folder(folder, place).name for place in range(2, count + 1)]
    write_atomically(folder / ENSEMBLE_FILE, (json.dumps({"version": _VERSION, "members": names}) + "\n").encode())


def forget_members(folder: Path) -> None:
    """Remove what an earlier ensemble has left in the folder, and nothing that is not listed there."""
    try:
        old = further_members(folder)
    except CheckpointError:
        old = ()
    (folder / ENSEMBLE_FILE).unlink(missing_ok=True)
    for member in old:
        shutil.rmtree(member, ignore_errors=True)
