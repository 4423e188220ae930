"""Which of a site's own spellings mean which of the labels that everyone may know (`protocol/labels.py`).

Only these labels ever leave a site. What a hospital writes into a column may be anything, a name too.
"""

import re
from collections.abc import Mapping

from client.datacard.facts import Cell, Table
from protocol.labels import NOT_GIVEN, OTHER, labels_of

_MODALITIES = {
    "mammography": r"mammo|^mg$",
    "angiography": r"angio|^xa$|venogra",
    "ultrasound": r"ultraso|sonogra|^us$|^ivus$|echo",
    "x-ray": r"x ?ray|^xr$|radiogra|^cr$|^dx$|plain film|^rg$",
    "ct": r"\bct\b|tomodens|computed tomo",
    "mr": r"\bmri?\b|magnetic",
    "nuclear": r"nuclear|^nm$|\bpet\b|^pt$|spect|scinti",
    "fluoroscopy": r"fluoro|^rf$|barium",
    "endoscopy": r"endosc|^es$|colonosc",
    "microscopy": r"patholog|histolog|microscop|^sm$|^gm$",
    "ophthalmic": r"fundus|ophthal|^op$|^oct$|retina",
}
_ORGANS = {
    "spine": r"spin|vertebra",
    "breast": r"breast",
    "chest": r"chest|lung|thora|heart|cardi|mediast|\brib",
    "abdomen": r"abd|liver|kidney|gastro|genitourin|bowel|pancrea|spleen|stomach",
    "pelvis": r"pelvi|hip|prostat|uter|bladder",
    "head": r"head|brain|skull|face|orbit|sinus",
    "neck": r"neck|thyroid|cervic",
    "limbs": r"limb|extrem|hand|foot|knee|ankle|wrist|elbow|shoulder|\barm\b|\bleg\b|musculoskel|bone",
    "vessels": r"vascul|vessel|aort",
}
_QUESTION_TYPES = {
    "modality": r"modality",
    "plane": r"plane",
    "organ": r"organ",
    "position": r"^pos$|position|location|side|where|place",
    "presence": r"^pres$|presence|yes no|exist",
    "abnormality": r"^abn$|abnormal|finding|normal",
    "size": r"size",
    "attribute": r"attrib|shape|colou?r",
    "count": r"count|quantity|number|how many",
    "knowledge": r"^kg$|knowledge",
}
_ANSWER_TYPES = {"open": r"^open$", "closed": r"^closed$"}
_SPLITS = {"train": r"^train$", "val": r"^val$", "test": r"^test$"}

FIXED: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("images", "modality"): _MODALITIES,
    ("images", "organ"): _ORGANS,
    ("questions", "answer type"): _ANSWER_TYPES,
    ("questions", "question type"): _QUESTION_TYPES,
    ("questions", "split"): _SPLITS,
}
"""By kind of record and what is known of it: each label with the pattern of the spellings that mean it."""


def fixed_label(of: str, by: str, written: str) -> str:
    """The label of the list that a site's own spelling means."""
    if written == NOT_GIVEN:
        return NOT_GIVEN
    words = re.sub(r"[\W_]+", " ", written.casefold()).strip()
    return next((label for label, pattern in FIXED[of, by].items() if re.search(pattern, words)), OTHER)


def in_fixed_labels(table: Table) -> dict[str, Cell]:
    """The table over the whole list, zeros too.

    A unit that is in two of the site's own cells may be counted twice in one of these. That would make a cell look less
    small than it is, so of the cells that become one, the units of the largest count alone.
    """
    found = {label: Cell(count=0, units=0) for label in labels_of(table.of, table.by)}
    for written, cell in table.cells.items():
        label = fixed_label(table.of, table.by, written)
        known = found[label]
        found[label] = Cell(count=known.count + cell.count, units=max(known.units, cell.units))
    return found
