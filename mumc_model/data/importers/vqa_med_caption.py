"""One sentence out of VQA-Med's four answers: modality, plane, organ system and abnormality."""

import re
from collections.abc import Mapping

Pair = tuple[str, str]
"""A question and its answer."""

SCANS = {
    r"\bcta\b|\bmra\b|angiogra|venogra": "angiography",
    r"\bct\b": "ct",
    r"\bmri?\b|weighted|weighting|\bflair\b|\bt[12]\b": "mri",
    r"x-ray|\bxr\b|plain film|radiograph": "x-ray",
    r"ultrasound|\bus\b|\bus-d\b": "ultrasound",
    r"mammo": "mammography",
    r"nuclear|\bpet\b": "nuclear medicine",
    r"barium|\bugi\b|\bsbft\b|gastrointestinal image": "fluoroscopy",
}
"""What a question or an answer about the modality gives away; the first that fits counts."""
REGIONS = {
    "skull": "head",
    "face": "neck",
    "lung": "chest",
    "heart": "chest",
    "gastrointestinal": "abdomen",
    "genitourinary": "abdomen",
    "spine": "spine",
    "musculoskeletal": "limbs",
    "vascular": "vessels",
    "breast": "breast",
}


def compose_caption(pairs: Mapping[str, Pair]) -> str:
    """For example `axial ct with iv contrast of skull and contents, meningioma`."""
    scan = _scan(" ".join(pairs[category][0] for category in ("plane", "organ", "abnormality")))
    seen = f"{pairs['plane'][1]} {_modality(*pairs['modality'], scan)}".strip()
    return f"{seen} of {pairs['organ'][1]}, {_finding(*pairs['abnormality'])}"


def labels_of(pairs: Mapping[str, Pair]) -> dict[str, str]:
    """Modality and organ, as far as the questions and answers tell."""
    labels = {}
    modality = _modality(*pairs["modality"], "") if "modality" in pairs else ""
    scan = _scan(" ".join(question for category, (question, _) in pairs.items() if category != "modality"))
    found = scan or _scan(modality)
    if found:
        labels["modality"] = found
    if "organ" in pairs:
        system = pairs["organ"][1]
        labels["organ"] = next((region for word, region in REGIONS.items() if system.startswith(word)), "other")
    return labels


def _scan(text: str) -> str:
    return next((scan for pattern, scan in SCANS.items() if re.search(pattern, text)), "")


def _modality(question: str, answer: str, scan: str) -> str:
    """The modality in words; `scan` is what the other questions call it."""
    asked = _scan(question)
    if answer in ("yes", "no"):
        return _modality_from_question(question, answer == "yes", asked, scan)
    if answer in ("contrast", "noncontrast"):
        return f"{answer} {asked}".strip()
    if answer in ("t1", "t2"):
        return f"{answer} weighted mri"
    if answer in ("iv", "gi", "gi and iv"):
        return f"{scan or 'ct'} with {answer} contrast"
    return answer


def _modality_from_question(question: str, yes: bool, asked: str, scan: str) -> str:
    if "noncontrast" in question:
        return f"{'noncontrast' if yes else 'contrast'} {asked}".strip()
    if "with contrast" in question:
        return f"{asked or scan} {'with' if yes else 'without'} contrast".strip()
    if route := re.search(r"was (\w+) contrast given", question):
        return f"{scan or 'ct'} {'with' if yes else 'without'} {route[1]} contrast"
    if yes and (weighting := re.search(r"(t[12]) weighted", question)):
        return f"{weighting[1]} weighted mri"
    return asked if yes else scan


def _finding(question: str, answer: str) -> str:
    if answer not in ("yes", "no"):
        return answer
    asks_for_normal = re.search(r"\bnormal\b", question) is not None
    return "normal" if (answer == "yes") == asks_for_normal else "abnormal"
