"""The site's records: how many, which cannot be used, and whether the test questions are as unseen as they should be.

Counts of patients and records are told on the terminal only; numbers that may be sent have two digits.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from pathlib import Path

from client.preflight.case import Case
from client.preflight.finding import Finding, failed, passed, warned
from mumc_model.data.records import SiteData, list_faults
from mumc_model.data.schema import SPLITS, CaptionRecord, VqaRecord
from mumc_model.errors import DataError

SHOWN = 8
"""So many bad rows or patients are named on the terminal."""
IMPORT_AGAIN = "import the data again so that all of a patient is in one split; else accuracy looks better than it is"


def records(case: Case) -> Finding:
    """How much there is to learn from, and what had to be left out."""
    try:
        data = case.data
    except DataError as error:
        what, _, remedy = str(error).partition("; ")
        return failed(what, remedy, here=_named(f"{name}:{line} {why}" for name, line, why in list_faults(case.root)))
    asked = Counter(row.split for row in data.vqa)
    counts = {"images": len(data.image_keys), "captions": len(data.captions)}
    counts |= {f"{split}_questions": asked[split] for split in SPLITS}
    patients = {row.patient_id for row in _rows(data)}
    here = f"{len(data.image_keys):,} images, {len(data.captions):,} captions, questions: " + ", ".join(
        f"{asked[split]:,} {split}" for split in SPLITS
    )
    if data.unit == "patient":
        here += f"; {len(patients):,} patients"
    numbers = {f"about_{name}": float(f"{count:.2g}") for name, count in counts.items()}
    if data.skipped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(data.skipped.items()))
        named = _named(f"{name}:{line} {why}" for name, line, why in list_faults(case.root))
        return warned(
            f"rows are left out: {reasons}",
            "repair them, or import the data again",
            here=f"{here}\n{named}",
            numbers=numbers,
        )
    missing = [name.replace("_", " ") for name in ("captions", "train_questions", "test_questions") if not counts[name]]
    if missing:
        return warned(f"there are no {' and no '.join(missing)}", "import some with mumc-site import", here=here)
    return passed("captions and questions are there, and every image can be read", here=here, numbers=numbers)


def duplicates(case: Case) -> Finding:
    """Whether the very same image file serves for learning and for testing."""
    sides: dict[str, set[str]] = defaultdict(set)
    for row in _rows(case.data):
        sides[case.data.key(row)].add(_side(row))
    content = _contents(case.root, sides)
    joined: dict[str, set[str]] = defaultdict(set)
    for key, found in sides.items():
        joined[content[key]] |= found
    shared = {digest: found for digest, found in joined.items() if len(found) > 1}
    if not shared:
        return passed("no image is in more than one split")
    times = _pairs(shared.values())
    first = {content[key]: key for key in sorted(sides, reverse=True)}
    return warned(
        f"there are images in more than one split: {', '.join(times)}",
        IMPORT_AGAIN,
        here=f"{_counted(times)}: {_named(first[digest] for digest in shared)}",
    )


def patients(case: Case) -> Finding:
    """Whether a patient serves for learning and for testing."""
    if case.data.unit == "image":
        return passed("unit image: the data knows no patients")
    sides: dict[str, set[str]] = defaultdict(set)
    for row in _rows(case.data):
        sides[row.patient_id].add(_side(row))
    shared = {patient: found for patient, found in sides.items() if len(found) > 1}
    if not shared:
        return passed("no patient is in more than one split")
    times = _pairs(shared.values())
    return warned(
        f"there are patients in more than one split: {', '.join(times)}",
        IMPORT_AGAIN,
        here=f"{_counted(times)}: {_named(shared)}",
    )


def _rows(data: SiteData) -> Iterator[CaptionRecord | VqaRecord]:
    yield from data.captions
    yield from data.vqa


def _side(row: CaptionRecord | VqaRecord) -> str:
    """Captions are learnt from, as training questions are."""
    return row.split if isinstance(row, VqaRecord) else "train"


def _pairs(found: Iterable[set[str]]) -> dict[str, int]:
    """How often which splits share something."""
    times = Counter(" and ".join(split for split in SPLITS if split in sides) for sides in found)
    return dict(sorted(times.items()))


def _counted(times: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} in {splits}" for splits, count in times.items())


def _contents(root: Path, keys: Iterable[str]) -> dict[str, str]:
    """What tells files with other bytes apart, by key; only files of one size are read."""
    sized: dict[int, list[str]] = defaultdict(list)
    for key in keys:
        sized[(root / key).stat().st_size].append(key)
    return {
        key: key if len(same) == 1 else hashlib.sha256((root / key).read_bytes()).hexdigest()
        for same in sized.values()
        for key in same
    }


def _named(things: Iterable[Hashable]) -> str:
    every = sorted(map(str, things))
    more = f" and {len(every) - SHOWN:,} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more
