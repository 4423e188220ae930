"""What a cleaned header may say in words: closed lists, of which no entry is anybody's name or number."""

from functools import cache
from importlib.resources import files

from client.intake.words import WORD

_SCHEMES = ("DCM", "FMA", "LN", "NCIt", "RADLEX", "SCT", "UCUM")
_OLD_SNOMED = ("SRT", "SNM3", "99SDM")


@cache
def descriptor_words() -> frozenset[str]:
    """The words, in small letters, that descriptions may keep."""
    return frozenset(_lines("descriptor_words.txt"))


@cache
def code_words() -> frozenset[str]:
    """The values that code strings may keep: defined terms of PS3.3 and the body parts of PS3.16 Annex L."""
    return frozenset(_lines("code_words.txt"))


def described(text: str, without: frozenset[str]) -> str:
    """The words of a description that are on the list, and not among the words of the patient's identity."""
    kept = descriptor_words() - without
    return " ".join(word for word in WORD.findall(text) if word.casefold() in kept)


def meaning_of(scheme: str, value: str) -> str:
    """What a code of a public scheme means by DICOM's own context groups; empty where these do not have it."""
    # Longer meanings are cut to what the attribute may hold.
    return _meanings().get((scheme, value), "")[:64] if scheme and value else ""


@cache
def _meanings() -> dict[tuple[str, str], str]:
    """Meanings by scheme and value, of the dictionary that pydicom takes from PS3.16."""
    # A quarter of a second to load, for files with codes alone.
    from pydicom.sr._snomed_dict import mapping
    from pydicom.sr.codedict import Collection

    found: dict[tuple[str, str], str] = {}
    for scheme in _SCHEMES:
        for code in sorted(Collection(scheme).concepts.values(), key=lambda code: len(code.meaning)):
            found.setdefault((scheme, code.value), code.meaning)
    old = {value: found["SCT", new] for value, new in mapping["SRT"].items() if ("SCT", new) in found}
    return found | {(scheme, value): meaning for value, meaning in old.items() for scheme in _OLD_SNOMED}


def _lines(name: str) -> list[str]:
    text = files("client.intake").joinpath(name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line]
