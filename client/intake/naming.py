"""Names that nobody listed: by what stands before them, by the names beside them, or by a capital nothing explains."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import regex

from client.intake.lexicon import ALSO_NAMES, ARTICLES, PARTICLES, PREPOSITIONS, SMALL_WORDS, is_eponym, is_ordinary
from client.intake.words import WORD

Span = tuple[int, int, str]

_TITLE = regex.compile(
    r"(?<![\p{L}\p{N}])(?:(?i:dr|prof|dipl|mrs|mr(?=\.)|pr(?=\.)|dra|drs|dott|hr(?=\.)|fr(?=\.)|sra|srta|mlle|mme)\b\.?|"
    r"Mr|Ms\.?|Miss|Sr\.?|PD|OA|OÄ|FOA|Don|Pr|FRAU|M\.(?= \p{Lu})|"
    r"(?i:herrn?|monsieur|señora?|doña|professor|doctora?|docteur|madame|sister|schwester|frau|"
    r"oberarzt|oberärztin|chefarzt|assistenzarzt)\b)"
    r"(?i:\s?(?:med|rer|nat|phil|univ|dent|habil|h\.c|dr|prof)\b\.?){0,4}(?!\p{L})"
)
"""After these stands a name, whatever word it is."""
_WEAK = regex.compile(
    r"M\.|Pr|PD|OA|OÄ|Don|Sr\.?|(?i:fr\.|sister|schwester|doctora?|professor|docteur|madame|"
    r"oberarzt|oberärztin|chefarzt|assistenzarzt)"
)
"""After these may stand another word."""
_SIGNED = regex.compile(
    r"(?i)(?<![\p{L}\p{N}])(?:(?:electronically )?(?:signed|dictated|reported|referred|read|transcribed|verified|"
    r"approved|reviewed|interpreted|performed|discussed|communicated|notified|attested|finalized)(?: electronically)?"
    r"(?: by| with| to|:)|cc|attn|attending|radiologist|resident|physician|consultant|referrer|"
    r"(?:befundet|diktiert|unterzeichnet|gezeichnet|freigegeben|zugewiesen|überwiesen|vidiert|besprochen|mitgeteilt|"
    r"erstellt)(?: von| durch| mit|:)|gez\.|zuweiser(?:in)?|befunder(?:in)?|hausarzt|"
    r"(?:signé|dicté|adressée?|validé|relu|rédigé|demandé)(?: électroniquement)? par|"
    r"(?:firmado|dictado|informado|remitid[oa]|validado|solicitado)(?: electrónicamente)? por|"
    r"radiólogo|radiologue|médecin(?: traitant| correspondant)?|"
    r"(?:patient(?:in)?(?:['\u2019]s)?|full|last|first|vor|nach|familien)?\s?name|nom|prénom|nombre|apellidos?|"
    r"patient(?:in|e)?|paciente)(?!\p{L})\s?[:=]?"
)
"""After these names stand, where they are names."""
_BETWEEN = regex.compile(r"[ \t]{1,2}|[ \t]?\n[ \t]?|\. ?|, ?|[ ]?-[ ]?|['\u2019]")
_END = regex.compile(r"(?:[.!?:;•*|\n>]|^)[\s\"'„“”»«(\-\u2013•*\d.)]{0,12}$")
_MOST = 5
_LOOKBACK = 16
_CAPITALS, _AROUND = 0.7, 60
_SHORT = 3
_LETTERS = regex.compile(r"\p{L}+")


@dataclass(frozen=True)
class Word:
    """A word and where it stands."""

    text: str
    start: int
    end: int

    @property
    def small(self) -> str:
        """Itself in small letters."""
        return self.text.casefold()

    @property
    def is_capital(self) -> bool:
        """Whether it begins with a capital."""
        return self.text[0].isupper()

    @property
    def is_initial(self) -> bool:
        """Whether it is one capital and nothing else."""
        return len(self.text) == 1 and self.is_capital

    @property
    def is_unknown(self) -> bool:
        """Whether it begins as a name does, and is neither an ordinary word nor the name of a disease."""
        return (
            self.is_capital
            and len(self.text) > 1
            and not (is_ordinary(self.small) or is_eponym(self.small) or any(map(str.isdigit, self.text)))
        )

    @property
    def is_name_like(self) -> bool:
        """Whether it is unknown, or a word that is a common surname as well."""
        return self.is_unknown or (self.is_capital and self.small in ALSO_NAMES)


def split(text: str) -> list[Word]:
    """The words of a text, in their order."""
    return [Word(found[0], found.start(), found.end()) for found in WORD.finditer(text)]


def widened(text: str, words: list[Word], spans: list[Span]) -> list[Span]:
    """The names with what belongs to them: first names, initials, particles, the second half after a hyphen."""
    at = {word.start: place for place, word in enumerate(words)}
    found = []
    for place in sorted({at[start] for start, *_ in spans if start in at}):
        left, right = _reach(text, words, place, -1), _reach(text, words, place, 1)
        last = words[right]
        found.append((words[left].start, _possessive(text, last.end), "NAME"))
    return found


def _reach(text: str, words: list[Word], place: int, step: int) -> int:
    """The furthest word in this direction that belongs to the name."""
    furthest, here = place, place
    for _ in range(_MOST):
        following = here + step
        if not 0 <= following < len(words) or not _touch(
            text, words[min(here, following)], words[max(here, following)]
        ):
            break
        word = words[following]
        if word.is_name_like or word.is_initial:
            furthest = following
        elif word.small not in PARTICLES:
            break
        here = following
    return furthest


def _touch(text: str, left: Word, right: Word) -> bool:
    gap = text[left.end : right.start]
    if not _BETWEEN.fullmatch(gap):
        return False
    # A full stop ends a sentence, unless it shortens a first name.
    return not gap.startswith(".") or len(left.text) == 1


def _possessive(text: str, end: int) -> int:
    return end + 2 if regex.match(r"['\u2019]s(?!\p{L})", text[end : end + 3]) else end


def named_by_place(text: str, words: list[Word]) -> list[Span]:
    """Names after a title, after who signed, and after initials."""
    return [
        *_after(text, words, _TITLE, is_title=True),
        *_after(text, words, _SIGNED, is_title=False),
        *_initials(text, words),
    ]


def _after(text: str, words: list[Word], trigger: "regex.Pattern[str]", *, is_title: bool) -> Iterator[Span]:
    place = 0
    for found in trigger.finditer(text):
        while place < len(words) and words[place].start < found.end():
            place += 1
        if place == len(words):
            return
        if not regex.fullmatch(r"[\s.,:]{0,3}", text[found.end() : words[place].start]):
            continue
        is_sure = is_title and not _WEAK.fullmatch(found[0])
        span = _run(text, words, place, is_sure=is_sure, is_low=_is_sure_of_low(found[0]))
        if span:
            yield span


def _is_sure_of_low(trigger: str) -> bool:
    """Whether a name follows even where it is written in small letters, as all of some texts is."""
    return (
        trigger.islower() and regex.search(r"^(?:dr|prof|mrs|mr|dra)\b|(?: by| par| por| von|:)$", trigger) is not None
    )


def _run(text: str, words: list[Word], place: int, *, is_sure: bool, is_low: bool) -> Span | None:
    """The name that begins at this word; None where it is none."""
    begin = words[place].start
    for _ in range(3):
        if words[place].small in PARTICLES and place + 1 < len(words) and _touch(text, words[place], words[place + 1]):
            place += 1
    first = words[place]
    if not first.is_capital:
        # Texts in small letters throughout write names so as well.
        is_name = (
            is_low
            and first.text.isalpha()
            and first.small not in SMALL_WORDS
            and not is_ordinary(first.small, leniently=True)
        )
        return (first.start, first.end, "NAME") if is_name and len(first.text) > 1 else None
    run = [first]
    for word in words[place + 1 : place + _MOST]:
        gap = text[run[-1].end : word.start]
        if not _touch(text, run[-1], word):
            break
        is_part = word.is_name_like or word.is_initial or (word.small in PARTICLES and not word.text.isupper())
        # After a first name a word with a capital is the surname, whatever it means: Jürgen Stein, A. Hall.
        is_last = word.text.istitle() and gap in (" ", "-", ". ") and (run == [first] or run[-1].small in PARTICLES)
        if not (is_part or is_last):
            break
        run.append(word)
    while run and run[-1].small in PARTICLES and len(run[-1].text) > 1:
        run.pop()
    is_name = is_sure or any(word.is_name_like for word in run) or (first.is_initial and len(run) > 1)
    if not run or not is_name:
        return None
    return begin, _possessive(text, run[-1].end), "NAME"


def _initials(text: str, words: list[Word]) -> Iterator[Span]:
    """J. Smith, J. P. Smith and Smith J.; the initials of arteries, veins, nerves and muscles leave it in doubt."""
    for left, right in pairwise(words):
        is_name = left.is_initial and left.text not in "AVNM" and right.is_unknown and not right.text.isupper()
        if is_name and regex.fullmatch(r"\.\s?", text[left.end : right.start]):
            yield left.start, _possessive(text, right.end), "NAME"


def doubtful_words(text: str, words: list[Word]) -> Iterator[Span]:
    """Words with a capital that nothing explains; in texts all in capitals every word that is not known.

    A text without any capital says nothing of what is a name, and gives none.
    """
    for place, word in enumerate(words):
        if word.is_capital and len(word.text) > 1 and not _is_noun(text, words, place) and _is_doubtful(text, word):
            yield word.start, word.end, "NAME"


def _is_noun(text: str, words: list[Word], place: int) -> bool:
    """Whether the word stands where German has a noun: "die Hülle", "bei schwerer Form"."""
    if place == 0 or text[words[place - 1].end : words[place].start] != " " or words[place].text.isupper():
        return False
    before = words[place - 1]
    if before.small in ARTICLES and not before.text.isupper():
        return True
    is_bent = before.text.islower() and len(before.text) > 4 and before.text.endswith(("e", "en", "er", "es", "em"))
    return is_bent and place > 1 and words[place - 2].small in ARTICLES | PREPOSITIONS


def _is_loud(text: str, word: Word) -> bool:
    """Whether all around the word is in capitals."""
    around = [sign for sign in text[max(0, word.start - _AROUND) : word.end + _AROUND] if sign.isalpha()]
    return word.text.isupper() and sum(map(str.isupper, around)) > _CAPITALS * len(around)


def _is_doubtful(text: str, word: Word) -> bool:
    parts = _LETTERS.findall(word.text)
    if any(map(str.isdigit, word.text)):
        # T12, L5S1, FLAIR3D and HU40: their letters are no name unless they are long.
        return any(len(part) > _SHORT and not is_ordinary(part.casefold()) for part in parts)
    if word.text.isupper() and len(word.text) <= _SHORT:
        return False
    begins = bool(_END.search(text[max(0, word.start - _LOOKBACK) : word.start])) or not text[: word.start].strip()
    is_loud = _is_loud(text, word)
    if word.small in ALSO_NAMES:
        return not begins and not is_loud
    if is_eponym(word.small):
        return False
    return not is_ordinary(word.small, leniently=begins or is_loud)
