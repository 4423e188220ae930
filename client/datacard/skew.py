"""How far a site's labels are from the federation's, where the federation has told its own."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from client.datacard.facts import Cell, NotMeasured, Skew, Table
from client.datacard.labels import FIXED, in_fixed_labels, labels_of
from client.datacard.stamp import FOLDER
from mumc_model.errors import DataError

FILE = "federation.json"
KIND, VERSION = "federation-statistics", 1
MAX_BYTES = 1 << 20
MISSING = NotMeasured("label skew", f"the federation's counts are not known ({FOLDER.as_posix()}/{FILE})")


def skew_of(root: Path, tables: Sequence[Table]) -> tuple[Skew, ...] | NotMeasured:
    """Shares by label at the site beside the federation's; not measured where those are not there.

    Raises:
        DataError: the file is none of this kind.
    """
    counts = _read(root / FOLDER / FILE)
    if counts is None:
        return MISSING
    return tuple(
        Skew(of=table.of, by=table.by, here=_cell_shares(in_fixed_labels(table)), federation=_shares(known))
        for table in tables
        if (known := counts.get(f"{table.of} by {table.by}")) and table.cells
    )


def _read(path: Path) -> dict[str, dict[str, int]] | None:
    """Counts by label, by the name of their table."""
    try:
        with path.open("rb") as file:
            content: Any = json.loads(file.read(MAX_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        raise _unusable(path) from None
    if not isinstance(content, dict) or (content.get("kind"), content.get("version")) != (KIND, VERSION):
        raise _unusable(path)
    counts: Any = content.get("counts")
    names = {f"{of} by {by}": set(labels_of(of, by)) for of, by in FIXED}
    good = isinstance(counts, dict) and all(
        name in names and isinstance(cells, dict) and cells.keys() <= names[name] and _are_counts(cells.values())
        for name, cells in counts.items()
    )
    if not good:
        raise _unusable(path)
    return dict(counts)


def _are_counts(values: Any) -> bool:
    found = list(values)
    return all(type(value) is int and value >= 0 for value in found) and sum(found) > 0


def _unusable(path: Path) -> DataError:
    return DataError(f"{path.name} holds no counts of a federation; fetch it again from the server, or delete it")


def _cell_shares(cells: Mapping[str, Cell]) -> dict[str, float]:
    return _shares({label: cell.count for label, cell in cells.items()})


def _shares(counts: Mapping[str, int]) -> dict[str, float]:
    total = sum(counts.values())
    return {label: count / total for label, count in counts.items() if count}
