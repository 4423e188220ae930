"""Words that are no names: what radiologists write in English, German, French and Spanish, and the names of signs."""

import re
from functools import cache, lru_cache
from importlib.resources import files

_SURNAMES = (
    "brown white black green gray grey young long short small low cross wall horn hall petit grand klein gross weiss "
    "lang kurz jung rey"
)
ALSO_NAMES = frozenset(_SURNAMES.split())
"""Ordinary words that are common surnames too; with a capital inside a sentence they are taken for those."""
_OF_NAMES = (
    "von van vom zu zum zur der den dem de del della di da do dos du d la le les las los el al bin ibn ben ten ter y"
)
PARTICLES = frozenset(_OF_NAMES.split())
"""Small words in the middle of names."""
_OF_SENTENCES = "die das des l e and the of for und oder mit im in am an et en ou con para par pour"
SMALL_WORDS = PARTICLES | frozenset(_OF_SENTENCES.split())
"""Alone and in small letters they tell of nobody, even when a header has them: "Hospital for Women"."""
_ARTICLES = (
    "der die das den dem des ein eine einen einem einer eines kein keine keinen keinem keiner keines im am ins zum zur "
    "beim vom"
)
ARTICLES = frozenset(_ARTICLES.split())
"""After these a German noun stands, also with an adjective between them; names do so but in familiar speech."""
_PREPOSITIONS = "mit ohne bei nach von in an auf aus zu für durch unter über vor bis gegen um und oder sowie"
PREPOSITIONS = frozenset(_PREPOSITIONS.split())
"""After these a German noun stands when an adjective is between them."""
_MEDICAL = (
    r"itis|itiden|os[ei]s|osen|om(?:as?|e[ns]?|s|ata|atosis|atose)?|oids?|therap(?:y|ies|ie|ien|ia)|genes(?:is|e)|pleg(?:ia|ie)|uria|urie|a?emi[ae]|ämien?|émie|ectom(?:y|ies|ie|ía)|ektomien?|gra(?:phy|phie|fie|fía)n?|"
    r"gram(?:s|m|me|mes|a|as|men)?|scop(?:y|ie|ia)|skopien?|plast(?:y|ie|ia|ik)|tom(?:y|ie|ía)|pat(?:hy|hie|ía|hies|hien)|"
    r"troph(?:y|ie)|plasi[ae]n?|sklerosen?|sten(?:os[ei]s?|osen)|ektasien?|ectas(?:is|es|ie|ia)|thorax|zelen?|celes?|megal(?:y|ie|ia)|"
    r"[gmnrstz]ien|lyse|lysis|zyt[eo]n?|cytes?|blast(?:s|en)?|penien?|penia|rrhag(?:e|ie|ia|ic)|algie|algia|manie|logie|logy|logía|metrie|metry"
)
_NOUNS = (
    r"[st]ions?|[st]ionen|ci[óo]n(?:es)?|si[óo]n(?:es)?|ung|ungen|heit|heiten|keit|keiten|tät|täten|schaft|schaften|ismus|ismen|nisse?|"
    r"ities|ity|ness|ments?|dades|dad|ités?|barkeit"
)
_ENDINGS = (
    r"ing|ed|ally|ically|[tds]ly|ously|ively|al|als|ical|ics?|ous|ives?|able|ible|ances?|ences?|ar|ary|ories|ory|mente|ique|iques|"
    r"euses?|eux|ales?|aux|aires?|ées?|és?|elles?|ifs?|ives?|osa|osos?|osas?|ados?|adas?|idos?|idas?|ares|ales|ivos?|ivas?|"
    r"isch(?:e[rsnm]?)?|lich(?:e[rsnm]?)?|ige[rsnm]?|ig|iert(?:e[rsnm]?)?|bar(?:e[rsnm]?)?|ende?[rsnm]?|los(?:e[rsnm]?)?|äre?[rsnm]?|ale[rsnm]?"
)
_SURE = re.compile(rf"\w{{3,40}}(?:{_MEDICAL}|{_NOUNS})")
_LIKELY = re.compile(rf"\w{{3,40}}(?:{_ENDINGS})")
_BEFORE = re.compile(
    r"(?:non|nicht|post|prä|pre|peri|sub|hyper|hypo|intra|inter|extra|para|retro|supra|infra|epi|endo|trans|multi|pseudo|neuro|"
    r"cardio|kardio|pneumo|hepato|osteo|pleuro|broncho|bronchio|thoraco|thorako|cerebro|zerebro|micro|mikro|macro|makro|mini|"
    r"bi|mono|re|un|anti|auto|mid|over|under|super|semi|ventro|dorso|antero|postero|latero|medio|cranio|kranio|caudo|kaudo)"
)
_BENT = ("s", "es", "e", "n", "en", "er", "em", "ern", "a", "as", "os")
_LINKS = ("", "s", "n", "en", "es", "er", "e")
_LEAST_PART, _LONGEST = 4, 48


@lru_cache(maxsize=1 << 16)
def is_ordinary(word: str, *, leniently: bool = False) -> bool:
    """Whether a word in small letters says something of bodies, images or the world, and names nobody.

    `leniently` takes endings of verbs and adjectives for enough, which a few surnames have as well.
    """
    if len(word) > _LONGEST:
        return False
    if _is_listed(word) or _SURE.fullmatch(word) or (leniently and _LIKELY.fullmatch(word)):
        return True
    before = _BEFORE.match(word)
    if before and len(word) - before.end() >= _LEAST_PART and is_ordinary(word[before.end() :], leniently=leniently):
        return True
    return len(word) >= 2 * _LEAST_PART and _is_compound(word)


def is_eponym(word: str) -> bool:
    """Whether a disease, a sign or a scale is called by this name, in small letters."""
    return word in _words("eponyms.txt") or (word.endswith("s") and word[:-1] in _words("eponyms.txt"))


def _is_listed(word: str) -> bool:
    listed = _words("ordinary_words.txt")
    return word in listed or any(
        word.endswith(end) and len(word) - len(end) >= _LEAST_PART and word[: -len(end)] in listed for end in _BENT
    )


def _is_compound(word: str) -> bool:
    """Whether it is made of listed words, as German nouns are."""
    for cut in range(_LEAST_PART, len(word) - _LEAST_PART + 1):
        rest = word[cut:]
        if not (_is_listed(rest) or _SURE.fullmatch(rest) or (len(rest) >= 2 * _LEAST_PART and _is_compound(rest))):
            continue
        if any(word[:cut].endswith(link) and _is_stem(word[: cut - len(link)]) for link in _LINKS):
            return True
    return False


def _is_stem(part: str) -> bool:
    return len(part) >= _LEAST_PART - 1 and any(part + end in _words("ordinary_words.txt") for end in ("", "e", "en"))


@cache
def _words(name: str) -> frozenset[str]:
    return frozenset(files("client.intake").joinpath(name).read_text(encoding="utf-8").split())
