"""Reports without identities: typed placeholders in their place, and what may still be a name waits for a person.

Four things find identifiers: the words of the header and of the site's list, however they are written; what stands
where names stand, after titles and "signed by"; patterns of dates, numbers and addresses; and at the end capitals and
numbers that nothing explains. There is no model in it, so that what it does can be read.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import regex

from client.intake import patterns
from client.intake.config import IntakeConfig
from client.intake.lexicon import SMALL_WORDS
from client.intake.naming import Word, doubtful_words, named_by_place, split, widened
from client.intake.words import normal, spellings, words_of

__all__ = ["Scrubbed", "Scrubber", "words_of"]

UNSETTLED = "it changes again each time it is cleaned"
SLOW = "the patterns took too long over it"
_PASSES = 12
_CHUNK = regex.compile(r"[^\s\x00]{2,200}")
_BROKEN = regex.compile(r"([^\W\d_]{2,40})-\s{1,20}([^\W\d_]{2,40})")
_DIGITS = regex.compile(r"\d{1,20}+(?:[ .\-/]{1,2}\d{1,20}+){1,8}")
_NUMBER = regex.compile(r"(?<![\p{L}\p{N}.,\-])\d{4}(?![\p{L}\p{N}]|[.,]\d)" + patterns.UNIT)
_OUTER = ".,;:!?()[]{}<>\"'\u2019„“”«»"
_HIDDEN = "\x00"


@dataclass(frozen=True)
class Scrubbed:
    """A report after its identities."""

    text: str
    verdict: Literal["clean", "redacted", "waiting"]
    reason: str = ""
    """How much in it is doubtful, without the words themselves."""
    doubtful: tuple[str, ...] = ()
    """What may still be a name or a number of a person, for the eyes of the site."""


Span = tuple[int, int, str]
"""Start, end and kind of what is replaced."""


class Scrubber:
    """A site's way of cleaning reports."""

    def __init__(self, known_names: frozenset[str], config: IntakeConfig) -> None:
        """`known_names` are words in small letters that no report may keep."""
        self._known, self._waits = known_names, config.quarantine_reports

    def scrub(self, text: str, is_identity: Callable[[str], bool]) -> Scrubbed:
        """The text with placeholders; `is_identity` says of a word in small letters whether the header holds it.

        What comes back is at most eleven times as long as the text, and cleaning it again changes nothing more.
        """
        identity = _Identity(self._known, is_identity)
        first = current = normal(text)
        for _ in range(_PASSES):
            page = _Page(current, identity)
            try:
                spans = page.spans()
            except TimeoutError:
                return Scrubbed(page.replaced(page.names()), "waiting", SLOW)
            cleaned = page.replaced(spans if self._waits else [*spans, *page.doubts()])
            if cleaned == current:
                break
            current = cleaned
        else:
            return Scrubbed(current, "waiting", UNSETTLED)
        doubts = page.doubts()
        if doubts:
            return Scrubbed(current, "waiting", _told(doubts), tuple(current[a:b] for a, b, _ in doubts))
        return Scrubbed(current, "clean" if current == first else "redacted")


class _Identity:
    """What is asked of the header and of the list, each word once."""

    def __init__(self, known: frozenset[str], is_identity: Callable[[str], bool]) -> None:
        self._known, self._asked, self._answers = known, is_identity, dict[str, bool]()

    def __contains__(self, word: str) -> bool:
        if word not in self._answers:
            self._answers[word] = any(form in self._known or self._asked(form) for form in spellings(word) if form)
        return self._answers[word]


class _Page:
    """One text in one pass."""

    def __init__(self, text: str, identity: _Identity) -> None:
        self.text, self._identity = text, identity

    @cached_property
    def _open(self) -> str:
        """The text with every placeholder made unreadable, at the same length."""
        return str(regex.sub(patterns.PLACEHOLDER, lambda found: _HIDDEN * len(found[0]), self.text))

    @cached_property
    def _words(self) -> list[Word]:
        return split(self._open)

    def spans(self) -> list[Span]:
        """All that is surely an identifier.

        Raises:
            TimeoutError: the patterns took too long.
        """
        return [*self.names(), *patterns.matches(self._open)]

    def names(self) -> list[Span]:
        """What the header, the site's list and the place in the text say is a name or a number of somebody."""
        names = list(self._of_identity())
        widened_names = widened(self._open, self._words, [span for span in names if span[2] == "NAME"])
        return [*names, *widened_names, *named_by_place(self._open, self._words)]

    def doubts(self) -> list[Span]:
        """What may be an identifier."""
        numbers = [(found.start(), found.end(), "ID") for found in _NUMBER.finditer(self._open)]
        return sorted([*doubtful_words(self._open, self._words), *numbers])

    def replaced(self, spans: Iterable[Span]) -> str:
        """The text with placeholders for the spans; of those that overlap the longest gives its kind to all."""
        pieces, at = [], 0
        for start, end, kind in _merged(spans):
            pieces += [self.text[at:start], f"[{kind}]"]
            at = end
        return "".join([*pieces, self.text[at:]])

    def _of_identity(self) -> Iterator[Span]:
        whole = {(word.start, word.end) for word in self._words if word.text in self._identity}
        for start, end in whole:
            if not self._is_small_word(self._open[start:end]):
                yield start, end, _kind(self._open[start:end])
        for found in _CHUNK.finditer(self._open):
            yield from self._of_chunk(found.group(), found.start())
        for found in _BROKEN.finditer(self._open):
            if found[1] + found[2] in self._identity:
                yield found.start(), found.end(), "NAME"
        for found in _DIGITS.finditer(self._open):
            if "".join(filter(str.isdigit, found[0])) in self._identity:
                yield found.start(), found.end(), "ID"

    def _of_chunk(self, chunk: str, start: int) -> Iterator[Span]:
        """Names and numbers that signs hold together, O'Brien or 12-3456, where the header writes them as one."""
        inner = chunk.strip(_OUTER)
        if inner.isalnum() or not inner:
            return
        joined = "".join(filter(str.isalnum, inner))
        if inner in self._identity or (len(joined) > 2 and joined in self._identity):
            begin = start + chunk.index(inner)
            yield begin, begin + len(inner), _kind(inner)

    def _is_small_word(self, word: str) -> bool:
        return word.islower() and word in SMALL_WORDS


def _kind(text: str) -> str:
    return "ID" if any(map(str.isdigit, text)) else "NAME"


def _merged(spans: Iterable[Span]) -> Iterator[Span]:
    order = {kind: place for place, kind in enumerate(patterns.KINDS)}
    end, group = 0, list[Span]()
    for span in sorted(spans):
        if group and span[0] >= end:
            yield _joined(group, order)
            group = []
        end = max(end, span[1]) if group else span[1]
        group.append(span)
    if group:
        yield _joined(group, order)


def _joined(group: list[Span], order: dict[str, int]) -> Span:
    kind = min(group, key=lambda span: (span[0] - span[1], order[span[2]]))[2]
    return group[0][0], max(end for _, end, _ in group), kind


def _told(doubts: list[Span]) -> str:
    words = sum(kind == "NAME" for *_, kind in doubts)
    parts = [(words, "word", "a name"), (len(doubts) - words, "number", "a person's")]
    said = [f"{count} {what}{'s' if count > 1 else ''} may be {whose}" for count, what, whose in parts if count]
    return " and ".join(said)
