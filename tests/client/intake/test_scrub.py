"""Reports without identities."""

import sys
import time

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from client.intake import patterns
from client.intake.config import IntakeConfig
from client.intake.scrub import SLOW, Scrubber, words_of

reached: list[str] = []


def watch(event: str, arguments: tuple) -> None:
    """Notes what leads beyond this machine; other tests of the same process may well talk to its own programs."""
    if event == "socket.getaddrinfo" and arguments[0] not in (None, "127.0.0.1", "::1", "localhost"):
        reached.append(f"{event} {arguments}")
    if event == "socket.connect" and isinstance(arguments[1], tuple) and not str(arguments[1][0]).startswith("127."):
        reached.append(f"{event} {arguments}")


# Hooks stay for good; this one only takes notes, from before presidio is loaded.
sys.addaudithook(watch)

KNOWN = frozenset(words_of("Hans Müller Lüdenscheidt María O'Brien Çelik AB12345 77 12345678 Straße"))
SCRUBBER = Scrubber(frozenset({"schreiber"}), IntakeConfig())
REPLACING = Scrubber(frozenset(), IntakeConfig(quarantine_reports=False))


def scrub(text: str, known: frozenset[str] = KNOWN) -> str:
    return SCRUBBER.scrub(text, known.__contains__).text


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Müller was seen.", "[NAME] was seen."),
        ("MÜLLER'S left lung", "[NAME] left lung"),
        ("Mu\u0308ller came", "[NAME] came"),
        ("Mueller came", "[NAME] came"),
        ("Mül\u00adler came", "[NAME] came"),
        ("Mül-\nler came", "[NAME] came"),
        ("Hans Peter Müller-Lüdenscheidt came", "[NAME] came"),
        ("A. Müller came", "[NAME] came"),
        ("von der Heide-Müller came", "von der [NAME] came"),
        ("Accession AB-12345 is old", "Accession [ID] is old"),
        ("seen by Schreiber today", "seen by [NAME] today"),
        ("Dr. Young agrees", "Dr. [NAME] agrees"),
        ("Prof. Dr. med. Anna Koch meint", "Prof. Dr. med. [NAME] meint"),
        ("Electronically signed by: John Brown, MD at 14:35", "Electronically signed by: [NAME] at [TIME]"),
        ("cc: Patel", "cc: [NAME]"),
        ("Frau Jürgen Stein klagt", "Frau [NAME] klagt"),
        ("La Sra. de la Cruz refiere dolor", "La Sra. [NAME] refiere dolor"),
        ("M. Dupont est venu", "M. [NAME] est venu"),
        ("on 12.03.2020", "on [DATE]"),
        ("vom 3. März 2019", "vom [DATE]"),
        ("le 1er août 2018", "le [DATE]"),
        ("el 3 de mayo de 2020", "el [DATE]"),
        ("the study of March 14, 2019 is", "the study of [DATE] is"),
        ("um 8 Uhr", "um [TIME]"),
        ("at 2:30 pm today", "at [TIME] today"),
        ("MRN 1234567", "MRN [ID]"),
        ("2.25.123456789.33 is", "[ID] is"),
        ("call 617-555-0123 or +49 6221 56 47 11", "call [PHONE] or [PHONE]"),
        ("write to a.b@klinik.example.de", "write to [EMAIL]"),
        ("at https://x.example.org/a?b=1", "at [URL]"),
        ("Hauptstraße 12a, 69120 Heidelberg", "[ADDRESS], [ADDRESS]"),
        ("12 rue de la Paix, 75002 Paris", "[ADDRESS], [ADDRESS]"),
        ("in St. Mary's Hospital", "in [HOSPITAL]"),
        ("im Universitätsklinikum Heidelberg", "im [HOSPITAL]"),
        ("a 92-year-old woman", "a [AGE] woman"),
    ],
)
def test_an_identifier_gives_way_to_its_kind(text, cleaned):
    assert scrub(text) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "A 12 x 14 mm nodule, SUV 4.2, at T12-L1 and C5/6 on MRI at 1.5 T.",
        "Findings are in keeping with Crohn disease; Schmorl nodes at L5-S1. 35 Hounsfield units.",
        "Volume 12500 mm3, b 1000 s/mm2, grade 3/4, ratio 1:2, FLAIR and T2W.",
        "An 89-year-old woman with 12 lesions, the largest in series 4 image 123.",
        "Die Leber ist normal groß. Kein Nachweis einer Raumforderung im Bereich der Nebennieren.",
        "Absence d'épanchement pleural. Les reins sont normaux.",
        "No se observa derrame pleural. Los riñones son normales.",
        "NO ACUTE DISEASE. HEART SIZE IS NORMAL. NO PLEURAL EFFUSION.",
        "ct noncontrast, axial, spine and contents, ankylosing spondylitis",
    ],
)
def test_what_says_nothing_of_anybody_stays_and_is_clean(text):
    found = SCRUBBER.scrub(text, lambda _: False)
    assert (found.text, found.verdict, found.reason) == (text, "clean", "")


@pytest.mark.parametrize(
    ("text", "doubtful"),
    [
        ("The findings were shown to Whitaker in the evening.", "Whitaker"),
        ("Laut Kowalski begann der Schmerz.", "Kowalski"),
        ("Selon Lefèvre la douleur est ancienne.", "Lefèvre"),
        ("HEART SIZE IS NORMAL ACCORDING TO WHITAKER TODAY.", "WHITAKER"),
        ("The findings were shown to Brown today.", "Brown"),
        ("He was in room 4711 before.", "4711"),
    ],
)
def test_what_may_be_a_person_waits_for_one_and_is_replaced_where_none_is_asked(text, doubtful):
    found = SCRUBBER.scrub(text, lambda _: False)
    assert (found.text, found.verdict, found.doubtful) == (text, "waiting", (doubtful,))
    assert doubtful not in found.reason
    assert found.reason.startswith("1 ")
    replaced = REPLACING.scrub(text, lambda _: False)
    assert replaced.verdict == "redacted"
    assert doubtful not in replaced.text


def test_small_words_stay_although_a_header_has_them_and_capitals_do_not():
    known = frozenset({"for", "women", "der", "berg"})
    assert scrub("Compared for size", known) == "Compared for size"
    assert scrub("Herr van der Berg kam", known) == "Herr [NAME] kam"


def test_nothing_is_asked_of_the_network():
    assert scrub("a.b@klinik.example.de www.example.com +49 6221 564711") == "[EMAIL] [URL] [PHONE]"
    assert "presidio_analyzer" in sys.modules
    assert reached == []


PIECES = st.sampled_from(
    [
        *[
            "Müller",
            "MÜLLER",
            "müller",
            "Lüdenscheidt",
            "O'Brien",
            "Brien",
            "Hans",
            "AB12345",
            "ab-12345",
            "12345678",
            "12-345-678",
            "Straße",
        ],
        *[
            "[NAME]",
            "[DATE]",
            "[ID]",
            "Dr.",
            "Herr",
            "von",
            "der",
            "Smith",
            "Li",
            "12.03.2020",
            "4711",
            "T12-L1",
            "mm",
            "CT",
            "Leber",
            "signed",
            "by:",
            "\u200b",
            "́",
            "²",
            "ﬁ",
        ],
    ]
)
GLUE = st.sampled_from(
    ["", " ", "-", "'", "\u2019", "\n", ", ", ". ", "_", "/", "\u00ad", "-\n", "(", "[", "]", "\u00a0", "\x00"]
)
TEXTS = st.lists(st.tuples(PIECES | st.text(max_size=4), GLUE), max_size=12).map(
    lambda parts: "".join(piece + glue for piece, glue in parts)
)


def without_placeholders(text: str) -> str:
    return regex.sub(patterns.PLACEHOLDER, " ", text)


@given(TEXTS)
@settings(deadline=None, max_examples=200)
def test_no_word_of_the_identity_is_left_and_a_second_time_changes_nothing(text):
    once = SCRUBBER.scrub(text, KNOWN.__contains__)
    assert not KNOWN & set(words_of(without_placeholders(once.text)))
    twice = SCRUBBER.scrub(once.text, KNOWN.__contains__)
    assert twice.text == once.text
    assert twice.doubtful == once.doubtful
    assert len(once.text) <= 11 * len(text) * 3


@given(st.lists(st.sampled_from(patterns.KINDS), min_size=1, max_size=6), st.sampled_from(["", " ", "-", "\n"]))
@settings(deadline=None, max_examples=50)
def test_placeholders_are_never_cleaned(kinds, glue):
    text = glue.join(f"[{kind}]" for kind in kinds)
    assert SCRUBBER.scrub(text, {kind.casefold() for kind in kinds}.__contains__).text == text


@pytest.mark.parametrize(
    "sign", ["A", "a", "1", " ", ".", "-", "@", "[", "\u0301", "A ", "a@", "1.", "1-", "Aa-"], ids=repr
)
def test_a_hostile_text_takes_no_more_than_moments(sign):
    scrub("warm")
    started = time.process_time()
    scrub(sign * (100_000 // len(sign)))
    assert time.process_time() - started < 5


@pytest.mark.parametrize("quarantine", [True, False])
def test_a_text_that_the_patterns_cannot_finish_waits_and_has_lost_the_names_of_its_header(monkeypatch, quarantine):
    monkeypatch.setattr(patterns, "PATIENCE_S", 0.0)
    text = "Mueller was seen. " + "Aa-" * 30_000
    found = Scrubber(frozenset(), IntakeConfig(quarantine_reports=quarantine)).scrub(text, {"mueller"}.__contains__)
    assert (found.verdict, found.reason) == ("waiting", SLOW)
    assert found.text.startswith("[NAME] was seen.")
