"""What of a table of counts may be published: small cells are withheld, and so that nobody can work them out.

A site follows the rule for its own card, and the server for the sum of all sites. For one table over a list of labels
that everyone knows:

1. A cell is small where it counts some, but fewer than `smallest` records, or records of fewer than `smallest` privacy
   units. An empty cell is about nobody and is told.
2. Where any cell is small, the least of the larger ones is withheld as well, and every other one that equals it.
3. What is published is rounded down to a multiple of `smallest`, the total too; a small total is not told.

Why nothing can be worked out, even by who knows the rule and the exact total: exchange the contents of any two
withheld cells. The same cells are withheld, the same numbers are published and the total is the same, so both tables
look alike. A withheld cell may therefore hold what any other withheld cell holds, and by step 2 at least two of these
differ: one is small and one is not. Where there is no larger cell at all, rounding the total does the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass

WITHHELD = "withheld"
SMALLEST = 10
"""Figures about fewer never leave, however low the site's own limit is."""

Published = int | str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A count, and how many privacy units stand behind it: few of either is a small cell."""

    count: int
    units: int


def is_small(cell: Cell, smallest: int) -> bool:
    """Whether a count is about too few records or units to be published, none among them."""
    return cell.count < smallest or cell.units < smallest


def withheld(cells: Mapping[str, Cell], smallest: int) -> frozenset[str]:
    """The labels whose counts must not be published."""
    small = {label for label, cell in cells.items() if cell.count and is_small(cell, smallest)}
    larger = {label: cell.count for label, cell in cells.items() if cell.count and label not in small}
    if not small or not larger:
        return frozenset(small)
    least = min(larger.values())
    return frozenset(small | {label for label, count in larger.items() if count == least})


def publish_table(cells: Mapping[str, Cell], smallest: int) -> dict[str, Published]:
    """The counts of a table as they may leave, by label."""
    hidden = withheld(cells, smallest)
    return {label: WITHHELD if label in hidden else rounded_down(cell.count, smallest) for label, cell in cells.items()}


def publish_count(cell: Cell, smallest: int) -> Published:
    """One count as it may leave: rounded down, or `fewer than 10`, which may be none."""
    if is_small(cell, smallest):
        return f"fewer than {smallest}"
    return rounded_down(cell.count, smallest)


def rounded_down(count: int, smallest: int) -> int:
    """The largest multiple of `smallest` that is not above the count."""
    return count // smallest * smallest
