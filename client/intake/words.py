"""Words, by one definition for the header's identity, the site's list and the reports, however they are written."""

import re
import unicodedata

WORD = re.compile(r"[^\W_]+")
_KEPT = "²³¹⁰⁴⁵⁶⁷⁸⁹⁺⁻½¼¾µº"
"""Signs of measurements that would read differently once they are normalised: 10⁵ is not 105."""
_PIECE = re.compile(f"[^{_KEPT}]+")
_UNSEEN = re.compile(
    "[\x00-\x08\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufe00-\ufe0f\u0300-\u036f]"
)
"""Signs without width, and accents that no letter took up: they split a word for a machine and not for a reader."""
_SIMPLE = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "æ": "ae", "œ": "oe", "þ": "th", "\u0131": "i"})
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe"})
_LETTERS = re.compile(r"[^\W\d_]{3,}")
_HUMP = re.compile(r"(?<=[a-zß-öø-ÿ])(?=[A-ZÀ-ÖØ-Þ])")


def normal(text: str) -> str:
    """The text in compatible characters, without signs that nobody sees. Done twice, it changes nothing more."""
    previous = ""
    while previous != text:
        previous = text
        text = _UNSEEN.sub("", _PIECE.sub(lambda piece: unicodedata.normalize("NFKC", piece[0]), text))
    return text


def words_of(text: str) -> list[str]:
    """Its words in small letters, in their order."""
    return WORD.findall(normal(normal(text).casefold()))


def spellings(word: str) -> set[str]:
    """The ways in which a header could write this word: small, without accents, ue for ü, without a genitive's s.

    A word of letters and digits is also each of its parts, and so is one with a capital inside.
    """
    small = normal(word.casefold()).strip(_KEPT)
    found = {small, normal(word.casefold())}
    if not word.islower() and not word.isupper():
        found |= {part.casefold() for part in _HUMP.split(word) if len(part) >= 3}
    if not small.isalpha():
        found |= set(_LETTERS.findall(small))
    for form in tuple(found):
        found |= {form.translate(_UMLAUTS), plain(form)}
        found.add(form.replace("ae", "ä").replace("oe", "ö").replace("ue", "ü"))
    # Without the genitive's s at last, so that every form loses it.
    return found | {form[:-1] for form in found if len(form) > 3 and form.endswith("s")}


def plain(word: str) -> str:
    """A word in small letters without its accents."""
    if word.isascii():
        return word
    apart = unicodedata.normalize("NFKD", word.translate(_SIMPLE))
    return "".join(sign for sign in apart if not unicodedata.combining(sign))
