"""The labels by which sites count their records towards the outside: fixed lists, the same at every site.

What a hospital writes into a column may be anything, a name too. `client/datacard/labels.py` maps its spellings.
"""

from collections.abc import Mapping

OTHER = "other"
"""Stands for every spelling that means none of a list."""
NOT_GIVEN = "not given"
"""Stands for a label that a record does not have."""
_REST = (OTHER, NOT_GIVEN)
"""Ends the lists of what a site may write as it likes."""

FIXED: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("images", "modality"): (
        "mammography",
        "angiography",
        "ultrasound",
        "x-ray",
        "ct",
        "mr",
        "nuclear",
        "fluoroscopy",
        "endoscopy",
        "microscopy",
        "ophthalmic",
        *_REST,
    ),
    ("images", "organ"): (
        *("spine", "breast", "chest", "abdomen", "pelvis", "head", "neck", "limbs", "vessels"),
        *_REST,
    ),
    ("questions", "answer type"): ("open", "closed"),
    ("questions", "question type"): (
        "modality",
        "plane",
        "organ",
        "position",
        "presence",
        "abnormality",
        "size",
        "attribute",
        "count",
        "knowledge",
        *_REST,
    ),
    ("questions", "split"): ("train", "val", "test"),
}
"""By kind of record and what is known of it: the whole list, in its order, whatever a site holds."""
TABLES: Mapping[str, tuple[str, ...]] = {f"{of} by {by}": labels for (of, by), labels in FIXED.items()}
"""The same by the name of the table, as cards and sums have it."""


def labels_of(of: str, by: str) -> tuple[str, ...]:
    """The whole list, in its order."""
    return FIXED[of, by]
