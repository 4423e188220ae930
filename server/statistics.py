"""The statistics at the operator's terminal: the run that sums them, and what was published as a table."""

from collections.abc import Sequence

from rich.table import Table

from mumc_model.errors import ConfigError
from protocol.labels import TABLES
from protocol.secagg.session import LEAST_SITES
from protocol.statistics import Statistics
from protocol.suppression import WITHHELD

WAIT_S = 120.0


def overrides_for(sites: Sequence[str], given: Sequence[str] = ()) -> list[str]:
    """The run that sums the counts of these sites; what is given, as `federation.wait_s=600`, comes last.

    Raises:
        ConfigError: they are too few for any sum.
    """
    if len(sites) < LEAST_SITES:
        raise ConfigError(
            f"a sum of counts is over at least {LEAST_SITES} sites, and {len(sites)} are named or enrolled; enrol more"
        )
    return [
        "federation.rounds=0",
        "federation.final=statistics",
        f"federation.sites={len(sites)}",
        f"federation.min_sites={LEAST_SITES}",
        f"federation.wait_s={WAIT_S}",
        f"federation.only=[{','.join(sites)}]",
        *given,
    ]


def as_table(found: Statistics) -> Table:
    """What was published, a row a label that any site has records of, or whose count is withheld."""
    table = Table("", "label", "count", "share", box=None, pad_edge=False)
    table.columns[2].justify = table.columns[3].justify = "right"
    for name, labels in TABLES.items():
        told = found.counts[name]
        total, first = sum(told.values()), name
        for label in labels:
            if (count := told.get(label)) == 0:
                continue
            shown = (WITHHELD, "") if count is None else (f"{count:,}", f"{100 * count / total:.0f} %")
            table.add_row(first, label, *shown)
            first = ""
    return table


def caption(found: Statistics) -> str:
    """What the table is of, in one line."""
    return f"{found.sites} sites together, {found.made}; counts rounded down to tens, small ones withheld"
