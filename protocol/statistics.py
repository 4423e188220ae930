"""The statistics of a federation: how counts over the fixed labels become a vector to be summed, what is published.

The vector holds every count and then, in the same order, how many privacy units stand behind it, so that the sum can be
suppressed by the same rule as a site's own table (`protocol/suppression.py`).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from protocol.labels import TABLES
from protocol.papers import is_day
from protocol.secagg.content import VERSION as CONTENT_VERSION
from protocol.secagg.content import Content, require, require_name
from protocol.secagg.errors import RangeError
from protocol.secagg.fixed_point import FixedPoint, choose
from protocol.secagg.session import LEAST_SITES
from protocol.signing import canonical
from protocol.suppression import SMALLEST, WITHHELD, Cell, publish_table

KIND, VERSION = "federation-statistics", 1
"""Of the file that holds what was published."""
DIGEST = hashlib.sha256(
    canonical({"kind": KIND, "version": VERSION, "tables": [[name, list(TABLES[name])] for name in TABLES]})
).hexdigest()
"""SHA-256 in hex of the lists: in a session it stands for the form and for the base of what is summed."""
CELLS = sum(len(labels) for labels in TABLES.values())
VALUES = 2 * CELLS
"""Numbers in the vector."""
LARGEST = 10_000_000
"""Most records that a cell of one site may count: the clip range, which nothing is ever cut to."""

Tables = Mapping[str, Mapping[str, Cell]]


def fixed_point(sites: int, threshold: int) -> FixedPoint:
    """The one format in which so many sites sum their counts: whoever survives, the sum rounds to the exact integers.

    A mean that is off by at most 1 / (4 sites) gives a sum that is off by at most 1 / 4.
    """
    return choose(clip=float(LARGEST), tolerance=1 / (4 * sites), weights=[1] * sites, threshold=threshold)


def flat(tables: Tables) -> list[int]:
    """A site's tables as the numbers that are summed: `VALUES` of them.

    Raises:
        MessageError: a table or label is missing or unknown, or a number is no count up to `LARGEST`.
    """
    for name, labels in TABLES.items():
        require(set(tables.get(name, ())) == set(labels), f"the table {name!r} has not exactly the labels of its list")
    cells = [tables[name][label] for name, labels in TABLES.items() for label in labels]
    numbers = [cell.count for cell in cells] + [cell.units for cell in cells]
    good = all(type(number) is int and 0 <= number <= LARGEST for number in numbers)
    require(good, f"a number is no count from 0 to {LARGEST:,}")
    return numbers


def folded(numbers: list[int]) -> dict[str, dict[str, Cell]]:
    """The tables of which `flat` made these numbers, or of which they are the sum."""
    assert len(numbers) == VALUES, "one number a cell, and its units"
    cells = iter(zip(numbers[:CELLS], numbers[CELLS:], strict=True))
    return {
        name: {label: Cell(count=count, units=units) for label, (count, units) in zip(labels, cells, strict=False)}
        for name, labels in TABLES.items()
    }


def total(mean: np.ndarray[Any, Any], sites: int) -> dict[str, dict[str, Cell]]:
    """The tables summed over so many sites, exactly, out of the mean that secure aggregation opens.

    Raises:
        RangeError: a number is below 0 or above what so many sites can have.
    """
    numbers = [int(number) for number in np.rint(mean * sites)]
    if wrong := sum(not 0 <= number <= LARGEST * sites for number in numbers):
        raise RangeError(
            f"a site sent numbers that cannot be counts: {wrong} of {len(numbers)} in the sum are below 0 or above "
            f"{LARGEST * sites:,}; which site, the masks hide"
        )
    return folded(numbers)


@dataclass(frozen=True, kw_only=True)
class Statistics(Content):
    """What a federation publishes: rounded counts of all its sites together, small ones withheld."""

    kind: ClassVar[str] = "federation_statistics"
    run_id: str
    """Of the run that summed them."""
    labels: str
    """`DIGEST` of the lists."""
    sites: int
    """How many are in the sum."""
    made: str
    """The day."""
    counts: Mapping[str, Mapping[str, int]]
    """Every table; a label that is not in it is withheld."""

    def __post_init__(self) -> None:
        """Refuse what no honest server publishes."""
        require_name("statistics.run_id", self.run_id)
        require(self.labels == DIGEST, "the statistics are over other labels; install the same fedmumc at both ends")
        require(LEAST_SITES <= self.sites <= 256, f"statistics.sites is {self.sites}, below {LEAST_SITES} or above 256")
        require(is_day(self.made), "statistics.made is no day")
        require(self.counts.keys() == TABLES.keys(), "statistics.counts has not exactly the tables of the lists")
        for name, cells in self.counts.items():
            require(cells.keys() <= set(TABLES[name]), f"statistics.counts has labels that are not those of {name!r}")
            most = LARGEST * self.sites
            good = all(0 <= count <= most and count % SMALLEST == 0 for count in cells.values())
            require(good, f"a count of {name!r} is no multiple of {SMALLEST} from 0 to {most:,}")

    @classmethod
    def of(cls, summed: Tables, *, run_id: str, sites: int, made: str) -> "Statistics":
        """What may be published of the sum over so many sites."""
        told = {name: publish_table(cells, SMALLEST) for name, cells in summed.items()}
        counts = {
            name: {label: count for label, count in cells.items() if isinstance(count, int)}
            for name, cells in told.items()
        }
        return cls(run_id=run_id, labels=DIGEST, sites=sites, made=made, counts=counts)

    @property
    def withheld(self) -> dict[str, list[str]]:
        """The labels whose counts are not told, by table; only tables that have any."""
        hidden = {
            name: [label for label in labels if label not in self.counts[name]] for name, labels in TABLES.items()
        }
        return {name: labels for name, labels in hidden.items() if labels}

    def to_file(self) -> bytes:
        """The file that the server keeps and every site of the sum gets, as JSON."""
        values = {
            "kind": KIND,
            "version": VERSION,
            "run_id": self.run_id,
            "made": self.made,
            "sites": self.sites,
            "labels": self.labels,
            "smallest": SMALLEST,
            "counts": {
                name: {label: self.counts[name][label] for label in labels if label in self.counts[name]}
                for name, labels in TABLES.items()
            },
            WITHHELD: self.withheld,
        }
        return (json.dumps(values, indent=1) + "\n").encode()

    @classmethod
    def from_file(cls, content: bytes) -> "Statistics":
        """What `to_file` wrote.

        Raises:
            MessageError: it is something else.
        """
        try:
            values = dict(json.loads(content))
        except (ValueError, TypeError, RecursionError):
            values = {}
        require((values.get("kind"), values.get("version")) == (KIND, VERSION), "the file holds no statistics of ours")
        names = ("run_id", "labels", "sites", "made", "counts")
        plain = {name: values.get(name) for name in names}
        return cls.from_dict({"kind": cls.kind, "version": CONTENT_VERSION, **plain})
