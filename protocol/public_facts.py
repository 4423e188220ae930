"""What a site's public data card may say, to the last word: counts over lists that everyone knows, and nothing else.

A site checks before it signs and a server before it keeps anything, so no text that a site chose itself can be in it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from protocol.errors import MessageError
from protocol.labels import TABLES
from protocol.suppression import SMALLEST, WITHHELD

PUBLIC_SETS = ("vqa_rad", "slake", "vqa_med_2019", "pathvqa", "roco", "mimic_cxr")
"""Names that everyone knows already; any other set is told as `another set`."""
ANOTHER = "another set"
NOT_MEASURED = "not measured"
TEXTS = ("captions", "questions", "answers")
SPLIT_PAIRS = ("val in train", "test in train", "test in val")
LARGEST = 10**9
"""No count of a hospital is larger."""
_COUNTS = ("images", "captions", "questions", "rows left out", "waiting")
_OVERLAP = ("set", "images here", "learnt from", "of its test split")


def fewer_than(smallest: int) -> str:
    """What stands for a count that is too small to be told; it may be none."""
    return f"fewer than {smallest}"


def check_facts(facts: Any) -> None:
    """Return only if this is what a site may tell, and could be true.

    Raises:
        MessageError: it is not.
    """
    _require(isinstance(facts, dict), "its facts are no object")
    if "units" in facts:
        _check_officers(facts)
        return
    _names("its facts", facts, ("unit", "smallest", "counts", "tables", "words", "near copies", "overlaps"))
    _require(facts["unit"] in ("patient", "image"), "its unit is neither patient nor image")
    smallest = facts["smallest"]
    _require(_is_count(smallest) and smallest >= SMALLEST, f"its smallest count is no number from {SMALLEST} on")
    _Facts(facts, smallest, facts["unit"] == "patient").check()


def _check_officers(facts: Mapping[str, Any]) -> None:
    """Under a signed privacy policy: the officer's own public number."""
    _names("its facts", facts, ("unit", "units"))
    _require(facts["unit"] in ("patient", "record"), "its unit is neither patient nor record")
    _require(_is_count(facts["units"]) and facts["units"] >= 1, f"its units are no number from 1 to {LARGEST:,}")


class _Facts:
    """Counts of which those below `smallest` are not told."""

    def __init__(self, facts: Mapping[str, Any], smallest: int, knows_patients: bool) -> None:
        self.facts, self.smallest, self.knows_patients = facts, smallest, knows_patients

    def check(self) -> None:
        counts = self.facts["counts"]
        _names("counts", counts, (*(("patients",) if self.knows_patients else ()), *_COUNTS))
        for name, value in counts.items():
            self.amount(f"counts, {name}", value, NOT_MEASURED if name == "waiting" else "")
        _names("tables", self.facts["tables"], TABLES)
        for name, cells in self.facts["tables"].items():
            self.table(name, cells, counts[name.partition(" by ")[0]])
        _names("words", self.facts["words"], TEXTS)
        for name, lengths in self.facts["words"].items():
            self.lengths(name, lengths)
        self.copies(self.facts["near copies"], counts["images"])
        overlaps = self.facts["overlaps"]
        _require(isinstance(overlaps, list), "overlaps are no list")
        for overlap in overlaps:
            self.overlap(overlap, counts["images"])

    def amount(self, where: str, value: Any, also: str = "") -> None:
        told = _is_count(value) and value >= self.smallest and value % self.smallest == 0
        _require(
            told or value == fewer_than(self.smallest) or (bool(also) and value == also),
            f"{where}: neither a multiple of {self.smallest} nor {fewer_than(self.smallest)!r}",
        )

    def part(self, where: str, value: Any, whole: Any) -> None:
        """An amount that is a part of another."""
        self.amount(where, value)
        _require(not _is_count(value) or (_is_count(whole) and value <= whole), f"{where}: more than there are images")

    def table(self, name: str, cells: Any, whole: Any) -> None:
        _names(f"table {name}", cells, TABLES[name])
        for label, value in cells.items():
            good = value == WITHHELD or (_is_count(value) and value % self.smallest == 0)
            _require(good, f"table {name}, {label}: neither a multiple of {self.smallest} nor {WITHHELD!r}")
        told = [value for value in cells.values() if value != WITHHELD]
        hidden, least = len(cells) - len(told), whole if _is_count(whole) else 0
        most = least + self.smallest - 1 if least else 0
        _require(sum(told) <= most, f"table {name}: its cells are more than the whole")
        lost = sum(1 for value in told if value) * (self.smallest - 1)
        _require(bool(hidden) or sum(told) + lost >= least, f"table {name}: its cells are less than the whole")
        _require(hidden != 1 or not sum(told), f"table {name}: a cell that is withheld alone can be worked out")

    def lengths(self, name: str, lengths: Any) -> None:
        if lengths == fewer_than(self.smallest):
            return
        good = isinstance(lengths, list) and len(lengths) == 3 and all(_is_count(length) for length in lengths)
        _require(good and lengths == sorted(lengths), f"words of {name}: not three quartiles")

    def copies(self, found: Any, images: Any) -> None:
        _names("near copies", found, ("images", "across patients", *SPLIT_PAIRS))
        for name in ("images", *SPLIT_PAIRS):
            self.part(f"near copies, {name}", found[name], images)
        if self.knows_patients:
            self.part("near copies, across patients", found["across patients"], images)
        else:
            _require(
                found["across patients"] == NOT_MEASURED, "near copies across patients, whom the site does not know"
            )

    def overlap(self, found: Any, images: Any) -> None:
        _names("an overlap", found, _OVERLAP)
        _require(
            found["set"] in (*PUBLIC_SETS, ANOTHER), "an overlap is with a set whose name is not known to everyone"
        )
        self.part("an overlap, images here", found["images here"], images)
        self.part("an overlap, learnt from", found["learnt from"], images)
        theirs = found["of its test split"]
        if theirs != 0 or type(theirs) is not int:
            self.amount("an overlap, of its test split", theirs)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LARGEST


def _names(where: str, found: Any, names: Iterable[str]) -> None:
    _require(isinstance(found, dict) and found.keys() == set(names), f"{where}: not exactly the names that a card has")


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise MessageError(
            f"the data card says what no data card says ({what}); make and approve it anew, with the same fedmumc"
        )
