"""How far a site's labels are from the federation's, where the federation has told its own counts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from client.datacard.facts import NotMeasured, Skew, Table
from client.datacard.labels import in_fixed_labels
from client.datacard.stamp import FOLDER
from mumc_model.errors import DataError
from protocol.errors import MessageError
from protocol.statistics import Statistics

FILE = "federation.json"
MAX_BYTES = 1 << 20
MISSING = NotMeasured("label skew", f"the federation's counts are not known ({FOLDER.as_posix()}/{FILE})")


def skew_of(root: Path, tables: Sequence[Table]) -> tuple[Skew, ...] | NotMeasured:
    """Shares by label at the site beside the federation's; not measured where those are not there.

    Labels whose counts the federation withholds are left out on both sides.

    Raises:
        DataError: the file is none of this kind.
    """
    statistics = read_statistics(root)
    if statistics is None:
        return MISSING
    return tuple(
        _skew(table, told)
        for table in tables
        if table.cells and any((told := statistics.counts.get(f"{table.of} by {table.by}", {})).values())
    )


def read_statistics(root: Path) -> Statistics | None:
    """What the federation has told this site, or None.

    Raises:
        DataError: the file is none of this kind.
    """
    path = root / FOLDER / FILE
    try:
        with path.open("rb") as file:
            return Statistics.from_file(file.read(MAX_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, MessageError):
        raise DataError(
            f"{path.name} holds no counts of a federation; delete it, and wait until the operator sums them again"
        ) from None


def _skew(table: Table, told: Mapping[str, int]) -> Skew:
    here = {label: cell.count for label, cell in in_fixed_labels(table).items() if label in told}
    return Skew(of=table.of, by=table.by, here=_shares(here), federation=_shares(told))


def _shares(counts: Mapping[str, int]) -> dict[str, float]:
    total = sum(counts.values())
    return {label: count / total for label, count in counts.items() if count}
