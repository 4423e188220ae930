"""What the board's page says, as plain values; a number that nobody measured is a value of its own. No torch."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, Self

FEWEST_IMAGES = 10
"""An interval that resamples fewer images than this is not believed."""


@dataclass(frozen=True)
class NotMeasured:
    """Nobody measured this; it is printed as such, and never as a blank or a zero."""

    what: str
    """As in "hours of training"."""
    why: str
    """As in "this site has no log"."""

    def __str__(self) -> str:
        """The two words that stand in the place of the number."""
        return "not measured"


@dataclass(frozen=True)
class Share:
    """A share of right answers with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Gap:
    """Share right of the federated model less that of another on the same questions, with its interval."""

    mean: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, kw_only=True)
class Group:
    """Some of the test questions, answered by both models."""

    name: str
    answers: int
    images: int
    local: Share | NotMeasured
    federated: Share | NotMeasured
    gap: Gap | NotMeasured
    pooled: bool = False
    """Whether these are several groups, each too small to be shown."""

    @property
    def believable(self) -> bool:
        """Whether there are images enough for its intervals to be believed."""
        return self.images >= FEWEST_IMAGES


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Both models on the same test questions."""

    overall: Group
    answer_types: tuple[Group, ...]
    question_types: tuple[Group, ...]
    smallest: int
    """Groups with fewer answers are shown together only."""

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups by name, those that were pooled left out."""
        return tuple(group for group in (*self.answer_types, *self.question_types) if not group.pooled)

    @property
    def worst(self) -> Group | None:
        """The group that the federated model answers worst; None where no two can be compared."""
        scored = [
            (group.federated.mean, group.name, group) for group in self.groups if isinstance(group.federated, Share)
        ]
        return min(scored, key=lambda entry: entry[:2])[2] if len(scored) > 1 else None


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """What was promised to each patient, and what of it was used up."""

    kind: Literal["bounded", "unbounded", "unknown"]
    """`bounded` by differential privacy, by nothing, or a ledger that cannot be believed."""
    unit: str
    epsilon: float | NotMeasured
    cap: float | NotMeasured
    delta: float | NotMeasured
    uncharged: int = 0
    """Runs at this site without differential privacy."""

    @classmethod
    def without(cls, unit: str, uncharged: int = 0) -> Self:
        """No differential privacy: epsilon has no bound, and delta is that of no promise at all."""
        return cls(kind="unbounded", unit=unit, epsilon=math.inf, cap=math.inf, delta=1.0, uncharged=uncharged)


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What taking part has moved and used."""

    rounds: int | NotMeasured
    bytes_up: int | NotMeasured
    bytes_down: int | NotMeasured
    hours: float | NotMeasured
    """Of this machine, at work on orders."""
    kwh: float | NotMeasured
    counted: str = ""
    """How the energy was found."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Money and minutes, from the site's own figures alone."""

    currency: str
    electricity: float | NotMeasured
    staff: float | NotMeasured
    total: float | NotMeasured
    minutes_saved: float | NotMeasured
    minutes_by: str = ""
    """How the minutes were reckoned."""


@dataclass(frozen=True, kw_only=True)
class BoardFacts:
    """Everything that the page says."""

    name: str
    """Who the page is for."""
    about: str
    """What was compared, in one sentence."""
    day: str
    """On which the page was made; empty where the same files must give the same page on any day."""
    simulated: str
    """Empty for a real site; else what a reader must know of the data."""
    comparison: Comparison | NotMeasured
    guess: Gap | NotMeasured
    """The federated model less a guess from the words of the question alone, which never sees an image."""
    privacy: Privacy
    effort: Effort
    costs: Costs
    notes: tuple[str, ...] = ()
    """What else belongs beside the numbers, in sentences."""

    def unmeasured(self) -> tuple[NotMeasured, ...]:
        """Every value that nobody measured, once each, in the order of the page."""
        return tuple(dict.fromkeys(_missing(self)))


def _missing(value: Any) -> Iterator[NotMeasured]:
    if isinstance(value, NotMeasured):
        yield value
    elif isinstance(value, tuple):
        for member in value:
            yield from _missing(member)
    elif is_dataclass(value):
        for part in fields(value):
            yield from _missing(getattr(value, part.name))
