"""A caption out of a report of MIMIC-CXR: chosen sections, and what becomes of the marks of its de-identification."""

import re
from collections.abc import Iterable, Iterator

HEADING = re.compile(r"^[ \t]*([A-Z][A-Z ()/,-]{2,60}):", re.MULTILINE)
"""A section starts with words in capitals and a colon, at the start of a line."""
SYNONYMS = {"impression": ("impression", "conclusion"), "findings": ("finding",)}
"""A heading belongs to a section when it contains one of these; to others, when it contains the section's own name."""
SECTIONS = re.compile(
    r"addendum|clinical|comparison|conclusion|dose|exam|finding|history|impression|indication|notification|procedure|"
    r"reason|recommendation|signed|study|technique|wet read"
)
"""Headings that start a section; any other (LUNGS, HEART) divides the one it stands in."""
MARK = re.compile(r"_{2,}")
SENTENCE = re.compile(r"(?<=[.!?])\s+")
STRANDED = re.compile(r"\s+(?=[.,;:)])")
"""Space that a removed mark leaves before a sign."""


def caption_of(report: str, sections: Iterable[str], marks: str) -> str:
    """The text of these sections in the report's own order, as one line; empty where there are none.

    `marks` says what becomes of `___`: `remove`, `sentence` (the sentence around it goes as well) or `keep`.
    """
    names = [word for section in sections for word in SYNONYMS.get(section.lower(), (section.lower(),))]
    text = " ".join(" ".join(_texts(report, names)).split())
    if marks == "sentence":
        return " ".join(sentence for sentence in SENTENCE.split(text) if not MARK.search(sentence))
    if marks == "remove":
        return STRANDED.sub("", " ".join(MARK.sub(" ", text).split()))
    return text


def _texts(report: str, names: list[str]) -> Iterator[str]:
    parts = HEADING.split(report)
    inside = False
    for heading, text in zip(map(str.lower, parts[1::2]), parts[2::2], strict=True):
        if any(name in heading for name in names):
            inside = True
            yield text
        elif SECTIONS.search(heading):
            inside = False
        elif inside:
            yield f"{heading}: {text}"
