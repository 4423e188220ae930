"""The parts of a radiology report: what was found and what it means, without what was asked and who signed."""

import re

FINDINGS = ("findings", "finding", "befund", "befunde", "résultat", "résultats", "hallazgos")
IMPRESSION = (
    "impression",
    "impressions",
    "conclusion",
    "conclusions",
    "beurteilung",
    "assessment",
    "opinion",
    "impresión",
)
OTHERS = (
    "addendum",
    "clinical history",
    "clinical information",
    "comparison",
    "comment",
    "comments",
    "dictated by",
    "examination",
    "exam",
    "history",
    "indication",
    "indications",
    "klinische angaben",
    "notification",
    "procedure",
    "reason for exam",
    "reason for examination",
    "recommendation",
    "recommendations",
    "signed by",
    "technik",
    "technique",
    "fragestellung",
)
"""Headings whose text does not describe the image, or names people."""
_HEADING = re.compile(
    r"^[ \t]*(?:final\s+)?(" + "|".join(map(re.escape, (*FINDINGS, *IMPRESSION, *OTHERS))) + r")[ \t]*(?::|\n|$)",
    re.IGNORECASE | re.MULTILINE,
)


def described(text: str) -> str:
    """Findings and impression of a report on one line; a text without such headings as a whole."""
    parts = list(_HEADING.finditer(text))
    if not parts:
        return _flat(text)
    ends = [part.start() for part in parts[1:]] + [len(text)]
    found: dict[str, list[str]] = {"findings": [], "impression": []}
    for part, end in zip(parts, ends, strict=True):
        name = part[1].casefold()
        kind = "findings" if name in FINDINGS else "impression" if name in IMPRESSION else ""
        if kind:
            found[kind].append(_flat(text[part.end() : end]))
    kept = " ".join(piece for pieces in found.values() for piece in pieces if piece)
    return kept or _flat(text[: parts[0].start()])


def _flat(text: str) -> str:
    return " ".join(text.split())
