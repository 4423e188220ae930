"""Whether one site's reply may enter the mean. Each check returns nothing or raises with a stable code."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from protocol.errors import ExamplesError, IdentityError, NotFiniteError, StaleError
from protocol.messages import Order, Report
from server.merge import slices
from server.sweep import in_parts, sizes_of

Array = np.ndarray[Any, Any]


def check_answers(report: Report, order: Order) -> None:
    """Raise StaleError unless the report answers this order, trained from these weights."""
    asked = (order.run_id, order.round, order.attempt)
    told = (report.run_id, report.round, report.attempt)
    if told != asked:
        raise StaleError(f"the report is for run, round and attempt {told}, but {asked} was asked for")
    if report.base_digest != order.base_digest:
        raise StaleError("the update starts from other weights than those of this round")


def check_examples(report: Report, most: int) -> None:
    """Raise ExamplesError unless 1 <= examples <= most."""
    if not 1 <= report.examples <= most:
        raise ExamplesError(
            f"the report claims {report.examples} examples, outside 1 to {most}; raise strategy.max_examples if the "
            "site is that large"
        )


def check_finite(update: Mapping[str, Array], base: Mapping[str, Array]) -> None:
    """Raise NotFiniteError unless the update, and the site's weights (base + update), are finite everywhere.

    The mean of such weights is finite too, so no site alone can make the global weights overflow.
    """

    def bad_in(dtype: str, whole: slice) -> int:
        flat, start = update[dtype][whole], base[dtype][whole]
        with np.errstate(over="ignore", invalid="ignore"):
            finite = (np.count_nonzero(np.isfinite(start[part] + flat[part])) for part in slices(flat.size))
            return flat.size - sum(map(int, finite))

    if bad := sum(in_parts(sizes_of(update), bad_in)):
        raise NotFiniteError(f"{bad} values of the update are NaN, infinite or overflow the weights")


class Roster:
    """What each node is called: as it is enrolled, else by the name its report gives, else by its node id in hex."""

    def __init__(self, enrolled: Callable[[int], str] | None = None) -> None:
        self._names: dict[int, str] = {}
        self._enrolled = enrolled

    def name(self, node: int) -> str:
        """The site's name as far as it is known."""
        return self._enrolled(node) if self._enrolled else self._names.get(node, f"{node:016x}")

    def claim(self, node: int, site: str, online: Iterable[int]) -> None:
        """Let a node go by the name its report gives.

        Raises:
            IdentityError: another node that is online goes by that name.
        """
        if not site:
            return
        if any(self.name(other) == site for other in online if other != node):
            raise IdentityError(f"node {node:016x} calls itself {site}, as another node does; give each site its name")
        self._names[node] = site
