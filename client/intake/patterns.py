"""What identifiers look like in reports: patterns by kind, run by presidio without any model and without a network."""

import logging
import time
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine

KINDS = ("URL", "EMAIL", "ADDRESS", "HOSPITAL", "DATE", "TIME", "PHONE", "AGE", "ID", "NAME")
"""What stands in brackets in the place of an identifier; of two that are as long, the former counts."""
PLACEHOLDER = r"\[(?:" + "|".join(KINDS) + r")\]"

# Every repetition is bounded or of one kind of sign, so that no text takes longer than in proportion to its length.
_B, _E = r"(?<![\p{L}\p{N}])", r"(?![\p{L}\p{N}])"
_CAP = r"\p{Lu}[\p{L}'\u2019\-]{1,40}+"
_MONTH = (
    r"(?:jan(?:uary|uar|vier)?|jän(?:ner)?|ene(?:ro)?|feb(?:ruary|ruar|rero)?|févr?(?:ier)?|mar(?:ch|s|zo)?|märz|mrz|"
    r"apr(?:il)?|avr(?:il)?|abr(?:il)?|mai|mayo?|june?|juni|juin|junio|july?|juli|juil(?:let)?|julio|aug(?:ust)?|août|"
    r"ago(?:sto)?|sept?(?:ember|embre|iembre)?|set(?:iembre)?|okt(?:ober)?|oct(?:ober|obre|ubre)?|nov(?:ember|embre|"
    r"iembre)?|dec(?:ember)?|dez(?:ember)?|déc(?:embre)?|dic(?:iembre)?)"
)
_YEAR = r"(?:(?:19|20)\d\d)"
_DAY = r"(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th|er)?"
UNIT = (
    r"(?!\s?(?:[µumckd]?m[²³23]?|m[lgs]|[µu][gl]|d[lB]|cc|HU|HE|UH|ms|s|Hz|[kMG]Hz|[kMG]?Bq|mCi|[mcµ]?Gy(?:\W?cm\S?)?|"
    r"mSv|kVp?|mAs?|[%°]|g|kg|IU|U|cells|voxels|pixels)(?![\p{L}\p{N}]))"
)
_OF = (
    r"(?:(?:de la|de los|de las|de l['\u2019]|de|du|des|del|d['\u2019]|von|van|of|the|der|den|dem|am|im|zu|zum|zur|"
    r"St\.?|Saint) ?)"
)

PATTERNS: dict[str, tuple[str, ...]] = {
    "EMAIL": (r"[\p{L}\d._%+\-]{1,64}+\s?(?:@|\(at\)|\[at\])\s?[\p{L}\d\-]{1,63}(?:\.[\p{L}\d\-]{1,63}){1,5}",),
    "URL": (
        r"(?i:(?:https?|ftp)://|www\.)[^\s\x00\]\[<>\"]{1,2000}+",
        _B
        + r"(?i:[a-z\d\-]{2,63}\.){1,3}(?i:com|org|net|edu|gov|de|at|ch|fr|es|uk|eu|info)(?:/[^\s\x00\[\]]{0,500})?"
        + _E,
        _B + r"(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)" + _E,
    ),
    "DATE": (
        _B + _DAY + r"[./\-](?:0?[1-9]|1[0-2])[./\-](?:(?:19|20)\d\d|\d\d)" + _E + UNIT,
        _B + _DAY + r"\s?[./\-]\s?(?:0?[1-9]|1[0-2])\s?[./\-]\s?(?:19|20)\d\d" + _E,
        _B + r"(?:0?[1-9]|1[0-2])[./\-]" + _DAY + r"[./\-](?:(?:19|20)\d\d|\d\d)" + _E + UNIT,
        _B + _YEAR + r"\s?[./\-]\s?(?:0?[1-9]|1[0-2])\s?[./\-]\s?" + _DAY + r"(?!\d)",
        _B + _YEAR + r"(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:\d{6})?" + _E,
        _B
        + r"(?i:"
        + _DAY
        + r"\.?(?:\s?[\-/]\s?|\s{1,3})(?:of |de )?"
        + _MONTH
        + r"\b\.?(?:,?(?:\s{1,3}|[\-/])(?:de |del )?"
        + _YEAR
        + "))",
        _B + _DAY + r"\.?(?:\s|-)(?:of |de )?(?i:(?!mar\b|may?\b|mai\b|set\b|nov\b)" + _MONTH + r")" + _E,
        _B + r"(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th|\.)? (?:May|Mai)" + _E,
        _B + r"(?i:" + _MONTH + r"\.?\s" + _DAY + r"(?:,?\s{1,3}" + _YEAR + "))" + _E,
        _B + r"(?!set |mar )(?:(?i:(?!mai|may)" + _MONTH + r")|May)\.?\s" + _DAY + _E + r"(?!\s?[./]?\d)" + UNIT,
        _B + r"(?i:(?:" + _MONTH + r"|may)\b\.?,?\s{1,3}(?:of |de |del )?" + _YEAR + r")" + _E,
        _B + r"(?:0?[1-9]|1[0-2])[/.]" + _YEAR + _E,
        _B + r"(?i:am|vom|bis|seit|zum|ab|dem|den|und|mit) (?:0?[1-9]|[12]\d|3[01])\.\s?(?:0?[1-9]|1[0-2])\.(?!\d)",
        _B + r"(?i:on|dated|since|from|du|le|el|del|día) (?:0?[1-9]|[12]\d|3[01])/(?:0?[1-9]|[12]\d|3[01])(?![\d/.])",
        _B
        + r"(?i:in|since|from|of|dated|until|seit|von|vom|aus|bis|im jahre?|en|de|depuis|desde|del|año|année) \K"
        + _YEAR
        + _E
        + UNIT,
        _B
        + r"(?i:monday|tuesday|wednesday|thursday|friday|saturday|sunday|montag|dienstag|mittwoch|donnerstag|freitag|"
        r"samstag|sonnabend|sonntag|lundi|mardi|mercredi|jeudi|vendredi|samedi|dimanche|lunes|martes|miércoles|jueves|"
        r"viernes|sábado|domingo)s?" + _E,
    ),
    "TIME": (
        _B
        + r"(?:[01]?\d|2[0-3])\s?:\s?[0-5]\d(?:\s?:\s?[0-5]\d(?:\.\d{1,6})?)?(?:\s?(?i:[ap]\.?m\.?|uhr|hrs?|h))?"
        + _E,
        _B + r"(?:[01]?\d|2[0-3])(?:[.:]\s?[0-5]\d)?\s?(?:Uhr|(?i:[ap]\.m\.)|[ap]m|AM|PM|hrs|horas)" + _E,
        _B + r"(?:[01]?\d|2[0-3])\s?h\s?[0-5]\d" + _E,
        _B + r"(?:[01]\d|2[0-3])[0-5]\d (?:hours|hrs|h)" + _E,
    ),
    "PHONE": (
        r"(?<![\p{L}\p{N}+])\+\d{1,3}(?:[\s./\-]{0,2}\(?\d{1,5}\)?){2,6}" + _E,
        _B + r"\(\d{2,5}\)[\s./\-]{0,2}\d{2,5}(?:[\s./\-]\d{2,5}){0,3}" + _E,
        _B + r"0\d{1,4}\s?[/\-]\s?\d{2,8}(?:[\s\-]\d{1,6}){0,3}" + _E,
        _B + r"0\d(?:[\s.]\d{2}){4}" + _E,
        _B + r"[6789]\d{2}[\s.\-]\d{2,3}[\s.\-]\d{2,3}(?:[\s.\-]\d{2,3})?" + _E + UNIT,
        _B + r"\d{3}[\-. ]\d{3}[\-. ]\d{4}" + _E,
        _B + r"0\d{2,4} \d{3,4} ?\d{3,4}" + _E,
        _B + r"[6-9]\d[ .]\d{3}[ .]\d{2}[ .]\d{2}" + _E + UNIT,
        _B + r"\d{3}-\d{4}" + _E,
        _B
        + r"(?i:tel(?:ephone|efon|éfono|éphone)?|phone|fax|mobile?|handy|móvil|portable|durchwahl|pager|beeper|bleep|"
        r"ext(?:ension)?|dect|poste)\b\.?(?:\s(?:number|no|nr|n°))?\s?[.:#]?\s?(?:is |at )?\K[\d(+][\d()\s./\-]{1,24}\d"
        + _E,
    ),
    "AGE": (
        _B + r"(?:9\d|1[0-2]\d)(?:[\s\-]{1,2}(?i:years?|yrs?|yo|y/o|y\.o\.|jahre?n?|jährige?[nrsm]?|ans|años))"
        r"(?:[\s\-]{1,2}(?i:old|of age|alte?[nrsm]?|de edad))?" + _E,
        _B + r"(?:9\d|1[0-2]\d)\s?(?:yo|y/o|y\.o\.|[MF](?= with|,))",
        _B + r"(?i:aged?|alter(?: von)?|âgée? de|edad(?: de)?)(?: of|:)? (?:9\d|1[0-2]\d)" + _E,
    ),
    "ID": (
        r"(?<!\d[.,])" + _B + r"\d{5,}+" + _E + UNIT,
        r"(?<![\p{L}\p{N}.\-])(?!(?i:[ctls])\d{1,2}-(?i:[ctls])?\d{1,2}(?!\w))(?=(?:[\p{L}\-_]{0,30}\d){4})"
        r"(?=[\d\-_]{0,30}\p{L})[\p{L}\d\-_]{5,64}+",
        _B + r"(?=(?:[\-/]?\d){5})\d{1,9}(?:[\-/]\d{1,20}){1,15}" + _E + UNIT,
        _B + r"(?=(?:[.\-/]?\d){5})\d{1,20}(?:[.\-/]\d{1,20}){2,40}" + _E + UNIT,
        _B + r"(?i:mrn|medical record|patient(?:en)?[\s\-]?(?:id|nummer|nr)|pat[.\-]\s?(?:id|nr)|accession|acc|"
        r"fall(?:nummer|[\s\-]?nr)|auftrag(?:snummer|s[\s\-]?nr)|nhc|historia(?: clínica)?|dossier|ipp|nip|nhs|ssn|"
        r"insurance|versicherten(?:nummer|nr)|case|order|encounter|visit|episode|expediente|befund[\s\-]?nr|untersuchungs[\s\-]?nr)\b\.?"
        r"(?:\s?(?:number|num|no|nr|n°|nº|id|#))?\.?\s?[:#=]?\s?\K(?=[\p{L}/.\-_]{0,12}\d)[\p{L}\d][\p{L}\d/.\-_]{2,40}",
    ),
    "ADDRESS": (
        _B + r"\d{1,5}[a-zA-Z]? (?:\p{Lu}[\p{L}'\u2019\-.]{0,30}\s){1,3}"
        r"(?i:street|road|rd|avenue|ave|lane|drive|boulevard|blvd|court|way|square|terrace|crescent|close|parkway|highway|st\.)"
        r"(?:,? (?:Apt|Suite|Unit|Flat)\.? \w{1,6})?" + r"(?!\p{L})",
        _B + r"(?:\p{Lu}\p{L}{1,30}(?:er|en)? )?\p{Lu}[\p{L}\-]{0,30}?(?:[Ss]tra(?:ß|ss)e|[Ss]tr\.|[Ww]eg|"
        r"[Gg]asse|[Pp]latz|[Aa]llee|[Rr]ing|[Dd]amm|[Uu]fer|[Cc]haussee|[Ss]teig) ?\d{1,4} ?[a-z]?(?!\p{L})",
        _B
        + r"(?:"
        + _CAP
        + r" )?"
        + _CAP
        + r" (?:Stra(?:ß|ss)e|Str\.|Weg|Gasse|Platz|Allee|Ring|Damm|Ufer) \d{1,4}[a-z]?"
        + _E,
        _B
        + r"(?:Am|An der|An den|Auf der|Auf dem|Im|In der|Zum|Zur|Unter den|Hinter der) "
        + _CAP
        + r" \d{1,4}[a-z]?"
        + _E
        + UNIT,
        _B + r"\d{1,4},? ?(?:bis |ter )?(?i:rue|avenue|av\.|boulevard|bd|place|impasse|allée|chemin|quai|cours|route) "
        r"(?:" + _OF + r"){0,2}" + _CAP + r"(?:[ \-]" + _CAP + r"){0,3}",
        _B
        + r"(?i:calle|c/|avenida|avda\.?|paseo|plaza|camino|ronda|carretera|travesía) ?(?:"
        + _OF
        + r"){0,2}"
        + _CAP
        + r"(?: (?:de |del |la )?"
        + _CAP
        + r"){0,3},? (?:n\.?[º°] ?)?\d{1,4}(?:,? ?\d{1,2}[º°]? ?[A-Za-z]?)?"
        + _E,
        _B
        + r"(?:[A-Z]{1,2}[\- ])?\d{4,5} (?:(?:Bad|Saint|St\.|La|Le|San|Santa|Sankt|El|Los|Las) )?"
        + _CAP
        + r"(?:[ \-/](?:am |an der |im |de |del |sur |la )?"
        + _CAP
        + r"){0,2}",
        _B + r"(?:" + _CAP + r",? ){1,2}[A-Z]{2},? \d{5}(?:-\d{4})?" + _E,
        _B + r"(?:" + _CAP + r",? )?[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}" + _E,
        _B + r"(?i:p\.?\s?o\.? box|postfach|apartado|boîte postale|b\.p\.) \d{1,8}",
    ),
    "HOSPITAL": (
        _B
        + r"(?:(?:St\.?|"
        + _CAP
        + r")[ ]){1,5}(?:of |and |& )?(?:Hospitals?|Medical (?:Center|Centre|School)|Clinic|Infirmary|"
        r"Health (?:Center|Centre|System)|Cancer (?:Center|Centre)|HOSPITAL|CLINIC)(?: (?:of|in|at) "
        + _CAP
        + r"(?: "
        + _CAP
        + r")?)?"
        + _E,
        _B + r"(?:University |General |Royal )?Hospital (?:of|in|at) (?:the )?" + _CAP + r"(?: " + _CAP + r"){0,2}",
        _B + r"(?:University|Universität|Université|Universidad) (?:" + _OF + r")?" + _CAP + r"(?: " + _CAP + r")?",
        _B
        + r"(?:"
        + _CAP
        + r"[ ]){0,3}(?:\p{Lu}\p{L}{0,30})?(?i:krankenhaus|klinikum|klinik|spital|krankenanstalt|kliniken)"
        r" (?:(?:der|am|im|in|zu|des|vom|Am|Im|der Universität|St\.|Sankt) ){0,2}(?:St\. ?)?"
        + _CAP
        + r"(?:[ \-]"
        + _CAP
        + r")?",
        _B + r"(?:St\.?[ \-]{0,2}|Sankt[ \-])?\p{Lu}[\p{L}\-]{1,40}?[ \-]"
        r"(?:Krankenhaus|Klinikum|Klinik|Spital|Hospital|Stift)" + _E,
        _B + r"(?:Charité)(?:[ \u2013\-]{1,3}Universitätsmedizin Berlin)?",
        _B + r"(?i:hôpital|hôpitaux|chu|chru|chr|centre hospitalier|clinique|polyclinique|institut|maternité)"
        r"(?: (?i:universitaire|privé|régional|général|intercommunal))?(?:[ \-]|(?<=['\u2019]))(?:"
        + _OF
        + r"){0,2}"
        + _CAP
        + r"(?:[ \-]"
        + _CAP
        + r"){0,3}",
        _B + r"(?i:hospital|clínica|policlínica|sanatorio|centro médico|centro de salud)"
        r"(?: (?i:universitario|universitari|general|clínico|regional|provincial|comarcal|infantil)){0,2} (?:"
        + _OF
        + r"){0,2}"
        + _CAP
        + r"(?: (?:(?:de|del|de la) )?"
        + _CAP
        + r"){0,3}",
    ),
    "NAME": (
        _B
        + r"(?:(?:"
        + _CAP
        + r"|\p{Lu}\.)[ ]){1,3}"
        + _CAP
        + r",? (?:M\.?D\.?|FRCR|FRCP|Ph\.?D\.?|DO|MBBS|MBChB|RN|FFRRCSI)"
        + _E,
        # Surname and first name as registers write them.
        _B + r"\p{L}{2,40}+\^\p{L}{1,40}+(?:\^\p{L}{0,40}+){0,3}",
    ),
}
"""By kind. What stands before `\\K` has to be there and is kept."""


PATIENCE_S = 60.0
"""Seconds that all patterns together may take over one text; none is known that takes more than a fraction of one."""


@cache
def engine() -> "AnalyzerEngine":
    """The analyzer, one a process; loading presidio takes seconds, and none of its parts asks for anything outside."""
    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    from presidio_analyzer import AnalyzerEngine, Pattern, PatternRecognizer, RecognizerRegistry, RecognizerResult
    from presidio_analyzer.context_aware_enhancers import ContextAwareEnhancer
    from presidio_analyzer.nlp_engine import NoOpNlpEngine
    from regex import MULTILINE
    from regex import compile as compiled

    class Strict(PatternRecognizer):
        """The usual one passes over a pattern that takes too long, and what it would have found stays in the text."""

        def analyze(self, text: str, *_: object, **__: object) -> list[RecognizerResult]:
            kind, found = self.supported_entities[0], list[RecognizerResult]()
            for expression in PATTERNS[kind]:
                matches = compiled(expression, MULTILINE).finditer(text, timeout=_seconds_left())
                found += [RecognizerResult(kind, match.start(), match.end(), 1.0) for match in matches if match[0]]
            return found

    class Untouched(ContextAwareEnhancer):
        """The usual one copies every result deeply and weighs it by words around it, which these patterns hold."""

        def enhance_using_context(self, text: str, raw_results: Any, *_: object, **__: object) -> Any:
            return raw_results

    nlp = NoOpNlpEngine([{"lang_code": "en", "model_name": "none"}])
    nlp.load()
    registry = RecognizerRegistry(recognizers=[], supported_languages=["en"], global_regex_flags=MULTILINE)
    for kind, expressions in PATTERNS.items():
        patterns = [Pattern(f"{kind} {place}", expression, 1.0) for place, expression in enumerate(expressions)]
        registry.add_recognizer(Strict(kind, name=kind, patterns=patterns, global_regex_flags=MULTILINE))
    enhancer = Untouched(0.0, 0.0, 1, 1)
    return AnalyzerEngine(
        registry=registry, nlp_engine=nlp, supported_languages=["en"], context_aware_enhancer=enhancer
    )


_deadline: ContextVar[float] = ContextVar("deadline")
"""When the patterns have to be through with the text at hand, as `time.monotonic` counts."""


def matches(text: str) -> list[tuple[int, int, str]]:
    """Start, end and kind of all that looks like an identifier.

    Raises:
        TimeoutError: the patterns took longer than `PATIENCE_S`, so that nobody can say what the text holds.
    """
    begun = _deadline.set(time.monotonic() + PATIENCE_S)
    try:
        return [(found.start, found.end, found.entity_type) for found in engine().analyze(text, "en")]
    finally:
        _deadline.reset(begun)


def _seconds_left() -> float:
    """What is left for the next pattern; a moment at least, since none at all would be no limit."""
    return max(1e-3, _deadline.get() - time.monotonic())
