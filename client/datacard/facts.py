"""What a data card says, as plain values; what nobody measured is a value of its own. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

from client.board.facts import NotMeasured
from protocol.labels import NOT_GIVEN
from protocol.suppression import Cell

__all__ = [
    "NOT_GIVEN",
    "Cell",
    "Copies",
    "DataCard",
    "Lengths",
    "NotMeasured",
    "Overlap",
    "Quarantine",
    "Repeats",
    "Skew",
    "Table",
]

KIND, VERSION = "data-card", 1
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Records of one kind, by one thing that is known of each; every record is in exactly one cell."""

    of: Literal["images", "questions"]
    by: str
    cells: Mapping[str, Cell]
    """By the label as the site writes it."""


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """How long texts are, in words between spaces."""

    of: str
    texts: Cell
    words: tuple[int, ...]
    """At `QUANTILES`, each the length of a text that is there; empty where there are no texts."""


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Images of which the site holds another one that is the same."""

    images: Cell
    across_patients: Cell | NotMeasured
    """Images that are also another patient's."""
    across_splits: Mapping[str, Cell]
    """`test in train`: images asked about in the test split that are also learnt from; so for each pair of splits."""


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """Texts that say the same as another one, but for case, punctuation and spacing."""

    captions: Cell
    """Captions of which there is another."""
    captions_across_patients: Cell | NotMeasured
    questions: Cell
    """Questions that are asked of the very same image more than once."""
    test_in_train: Cell
    """Test questions whose image and wording also serve training."""


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """What the site and another set have in common."""

    name: str
    theirs: Mapping[str, int]
    """Images of the other set, by split; `all` where it has no splits."""
    exact: Cell
    """Images of this site that are in the other set byte for byte."""
    near: Cell
    """Images of this site that are in it, or nearly: the exact ones are among them."""
    learnt: Cell
    """Those among them that this site learns from."""
    theirs_here: Mapping[str, int]
    """Images of the other set, by split, that are at this site or nearly."""
    captions: Cell
    """Captions of this site that the other set has too."""


@dataclass(frozen=True, kw_only=True)
class Quarantine:
    """What an import of the archive holds back for a person, and what came of it."""

    images: Mapping[str, int]
    """By verdict."""
    reports: Mapping[str, int]
    left_out: Mapping[str, int]
    """Files of the archive that gave nothing, by reason."""


@dataclass(frozen=True, kw_only=True)
class Skew:
    """How the site's records are spread over labels, beside those of the whole federation."""

    of: str
    by: str
    here: Mapping[str, float]
    """Share of each label, among those whose counts the federation has told."""
    federation: Mapping[str, float]
    """The same of all sites together."""

    @property
    def distance(self) -> float:
        """Total variation: the share of the site's records that would have to bear another label; 0 to 1."""
        labels = self.here.keys() | self.federation.keys()
        return sum(abs(self.here.get(label, 0.0) - self.federation.get(label, 0.0)) for label in labels) / 2


@dataclass(frozen=True, kw_only=True)
class DataCard:
    """Everything that is known of a site's data; it is for the site alone."""

    site: str
    unit: Literal["patient", "image"]
    made: str
    """The day."""
    data: str
    """Digest of the records and the settings that they depend on (`stamp.py`)."""
    images: Cell
    patients: int | NotMeasured
    captions: Cell
    questions: Cell
    tables: tuple[Table, ...]
    lengths: tuple[Lengths, ...]
    exact: Copies
    """Images that are the same byte for byte."""
    near: Copies
    """Images that are the same or nearly: the exact ones are among them."""
    repeats: Repeats
    bank: Overlap | NotMeasured
    """With the public pairs that runs under differential privacy contrast with."""
    others: tuple[Overlap, ...] | NotMeasured
    """With public sets that were named."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Rows that cannot be used, by reason; missing and broken image files are among the reasons."""
    quarantine: Quarantine | NotMeasured
    skew: tuple[Skew, ...] | NotMeasured


def to_plain(value: Any) -> Any:
    """A fact as JSON; what was not measured says why."""
    if isinstance(value, NotMeasured):
        return {"not_measured": value.why}
    if isinstance(value, Skew):
        return {**vars(value), "distance": value.distance}
    if is_dataclass(value):
        plain = {part.name: to_plain(getattr(value, part.name)) for part in fields(value)}
        return {"kind": KIND, "version": VERSION, **plain} if isinstance(value, DataCard) else plain
    if isinstance(value, Mapping):
        return {key: to_plain(member) for key, member in value.items()}
    return [to_plain(member) for member in value] if isinstance(value, tuple) else value
