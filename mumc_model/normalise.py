"""The forms in which answers are compared, each under a name that a report can quote."""

import itertools
import re
from collections.abc import Callable
from difflib import get_close_matches

from mumc_model.errors import ConfigError

NORMALISER = "mumc"
"""The one that is taken where nobody chose another."""
_MOST_OPTIONAL = 6
"""Optional words of one answer that are tried in every combination; an answer with more is taken with all of them."""
_ARTICLES = {"a", "an", "the"}
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(number) for number, word in enumerate(_WORDS)}
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's i'd've isn't it'd it'd've it'll let's ma'am mightn't mightn't've might've mustn't must've
    needn't not've o'clock oughtn't shan't she'd've she's should've shouldn't shouldn't've somebody'd've somebody'll
    somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd
    there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll
    what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
    would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
_CONTRACTIONS = {word.replace("'", ""): word for word in _CONTRACTED.split()}


def normalise_answer(text: object, normaliser: str = NORMALISER) -> str:
    """The answer in the form in which it is compared.

    `mumc` is the paper's: lower case, no punctuation, "x-ray" joined. `vqa_v2` is the VQA challenge's: digits,
    no articles, contractions. `clinical` is the most careful of meaning: it keeps decimal points and signs, and
    forgets articles, hyphens and white space.

    Raises:
        ConfigError: no normaliser of that name.
    """
    return _normaliser(normaliser)(str(text))


def accepted_answers(truth: str, grammar: str = "plain") -> tuple[str, ...]:
    """Every wording that counts as the true answer.

    `plain` has one. `vqa_med` is VQA-Med 2019's: `#` separates alternatives, and words in `()` may be left out.

    Raises:
        ConfigError: no grammar of that name.
    """
    if grammar == "plain":
        return (truth,)
    if grammar != "vqa_med":
        raise ConfigError(f"there is no answer grammar {grammar!r}; choose plain or vqa_med")
    found: dict[str, None] = {}
    for alternative in truth.split("#"):
        parts = re.split(r"\(([^()]*)\)", alternative)
        choices = [("", part) if index % 2 else (part,) for index, part in enumerate(parts)]
        if len(parts) // 2 > _MOST_OPTIONAL:
            choices = [(part,) for part in parts]
        found |= {" ".join("".join(chosen).split()): None for chosen in itertools.product(*choices)}
    return tuple(text for text in found if text) or (truth,)


def _normaliser(name: str) -> Callable[[str], str]:
    normalisers = {"mumc": _mumc, "vqa_v2": _vqa_v2, "clinical": _clinical}
    if name not in normalisers:
        near = get_close_matches(name, normalisers, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(normalisers)}"
        raise ConfigError(f"there is no answer normaliser {name!r}; {hint}")
    return normalisers[name]


def _mumc(text: str) -> str:
    """As the paper's code: hyphens, white space at the ends and twice in a row stay; decimal points are lost."""
    text = re.sub(r"[,.'!?\"()*#:;~]", "", text.lower())
    return text.replace("x-ray", "xray").replace("x ray", "xray").replace(" - ", "-")


def _vqa_v2(text: str) -> str:
    """As the VQA challenge: a mark beside a space goes, one between letters becomes a space, "dont" is "don't"."""
    text = text.replace("\n", " ").replace("\t", " ").strip().lower()
    beside_number = re.search(r"\d,\d", text) is not None
    plain = text
    for mark in ';/[]"{}()=+\\_-><@`,?!':
        touches_space = mark + " " in text or " " + mark in text
        plain = plain.replace(mark, "" if touches_space or beside_number else " ")
    plain = re.sub(r"\.(?!\d)", "", plain)
    words = ("0" if word == "none" else _DIGITS.get(word, word) for word in plain.split())
    return " ".join(_CONTRACTIONS.get(word.replace("'", ""), word) for word in words if word not in _ARTICLES)


def _clinical(text: str) -> str:
    """Words and numbers only; a sign and a decimal point change a finding, so they stay with their number."""
    text = re.sub(r"\bx[- ]?rays?\b", "xray", text.lower().replace("\u2019", "'"))
    text = re.sub(r"(?<=\w)'(?=\w)", "", text)
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    tokens = re.findall(r"(?:(?<![\w.])[-+])?\d+(?:\.\d+)?(?!\w)|[^\W_]+|[%<>=]", text)
    return " ".join(_DIGITS.get(token, token) for token in tokens if token not in _ARTICLES)
