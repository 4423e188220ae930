"""How many planted identifiers a site's import finds, with what was missed.

text    made-up reports in English, German, French and Spanish (`planted/reports.py`), cleaned as an import does.
        For each kind: how many were planted, how many were `replaced`, how many `caught` (replaced, or left in a
        report that waits for a person), and what was missed. `held_back`: reports that wait. `changed_wrongly`: the
        share of innocent words that the cleaning took, in reports that hold identifiers and in those that hold none.
        `held_back_clean`: reports and real texts without any identifier that wait all the same; real texts are
        captions of VQA-Med 2019 and questions with answers of SLAKE, validation and test sets (MED_VQA_DATA).

headers an identifier in each attribute of DICOM's dictionary that can hold one (`planted/headers.py`): at the top, one
        and two sequences deep, and in private attributes of every kind. `gone`: nothing of it is left in the header.
pixels  an identifier burned into pictures (`planted/pixels.py`), also into slices of SLAKE where it is here.
        `painted`: nine tenths of its letters are; `caught`: painted, or the picture waits. Then real pictures of SLAKE
        and VQA-RAD as they are: many of VQA-RAD do carry text, those of SLAKE carry markers at most.

python benchmarks/deidentify.py [--json] [--parts text,headers,pixels] [--reports 600] [--pictures 300] [--seed 0]
"""

import argparse
import json
import os
import random
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image
from planted import headers, pixels
from planted.reports import INNOCENT, Report, make

from client.intake import burned_in
from client.intake.config import IntakeConfig
from client.intake.deidentify import deidentify
from client.intake.identity import Pseudonyms
from client.intake.reading import parse
from client.intake.scrub import Scrubber, words_of

DATA = Path(os.environ.get("MED_VQA_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
SHOWN = 12
BLANK_SLICES = [
    f"slake/imgs/xmlab{number}/source.jpg" for number in (453, 135, 57, 546, 428, 226, 91, 233, 402, 603, 39)
]
"""Slices in which no text was seen."""


def text_part(reports: int, seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    planted, replaced, caught = Counter[str](), Counter[str](), Counter[str]()
    missed: dict[str, list[str]] = defaultdict(list)
    held = innocent = taken = 0
    for _ in range(reports):
        report = make(rng, words_of)
        scrubbed = Scrubber(report.listed, IntakeConfig()).scrub(report.text, report.header.__contains__)
        left = set(words_of(scrubbed.text))
        waits = scrubbed.verdict == "waiting"
        held += waits
        for item in report.planted:
            is_left = any(secret in left and secret not in report.innocent for secret in item.secrets)
            planted[item.kind] += 1
            replaced[item.kind] += not is_left
            caught[item.kind] += waits or not is_left
            if is_left and not waits:
                missed[item.kind].append(f"{report.language}: {item.text!r}")
        innocent += len(report.innocent)
        taken += _taken(report, scrubbed.text)
    kinds = {
        kind: {
            "planted": planted[kind],
            "replaced": replaced[kind],
            "caught": caught[kind],
            "missed": sorted(set(missed[kind]))[:SHOWN],
        }
        for kind in sorted(planted)
    }
    total = {"planted": planted.total(), "replaced": replaced.total(), "caught": caught.total()}
    wrongly = {"words": innocent, "taken": taken}
    return {"reports": reports, "kinds": kinds, "all": total, "held_back": held, "changed_wrongly": wrongly} | {
        "held_back_clean": {name: _clean(texts) for name, texts in _innocent_texts().items()}
    }


def _taken(report: Report, cleaned: str) -> int:
    """Innocent words that are no longer there."""
    return (Counter(report.innocent) - Counter(words_of(cleaned))).total()


def _clean(texts: list[str]) -> dict[str, Any]:
    scrubber = Scrubber(frozenset(), IntakeConfig())
    verdicts, words = Counter[str](), Counter[str]()
    for text in texts:
        found = scrubber.scrub(text, lambda _: False)
        verdicts[found.verdict] += 1
        words.update(found.doubtful)
    return {"texts": len(texts), **verdicts, "held_back_for": [word for word, _ in words.most_common(SHOWN)]}


def _innocent_texts() -> dict[str, list[str]]:
    texts = {f"made-up {language}": list(sentences) for language, sentences in INNOCENT.items()}
    if (DATA / "slake" / "test.json").is_file():
        rows = [
            row for name in ("validate", "test") for row in json.loads((DATA / "slake" / f"{name}.json").read_text())
        ]
        texts["slake"] = [f"{row['question']} {row['answer']}" for row in rows if row["q_lang"] == "en"]
    if (DATA / "vqa_med_2019" / "validation").is_dir():
        texts["vqa_med_2019"] = [f"{caption.capitalize()}." for caption in _captions(DATA / "vqa_med_2019")]
        texts["vqa_med_2019 in capitals"] = [caption.upper() for caption in texts["vqa_med_2019"]]
    return texts


def _captions(folder: Path) -> list[str]:
    answers: dict[str, dict[str, None]] = defaultdict(dict)
    for path in [*(folder / "validation").glob("*.txt"), *(folder / "testing").glob("*.txt")]:
        for line in path.read_text(encoding="utf-8").splitlines():
            fields = line.split("|")
            if len(fields) >= 3:
                answers[fields[0]][fields[-1].split("#")[0]] = None
    return [", ".join(parts) for parts in answers.values()]


def headers_part() -> dict[str, Any]:
    planted, gone, missed = Counter[str](), Counter[str](), list[str]()
    for place, kind, keyword, content in headers.make():
        dataset = parse(content, IntakeConfig())
        clean = deidentify(dataset, Pseudonyms(bytes(32)), IntakeConfig(), pixels_examined=False)
        told = json.dumps(clean.to_json_dict()).casefold()
        is_gone = not any(word in told for word in headers.TELL_TALE)
        for group in (place, f"{place}, {kind}"):
            planted[group] += 1
            gone[group] += is_gone
        missed += [] if is_gone else [f"{place}: {keyword}"]
    kinds = {group: {"planted": planted[group], "gone": gone[group]} for group in sorted(planted)}
    return {"kinds": kinds, "missed": missed[:SHOWN]}


def pixels_part(pictures: int, seed: int) -> dict[str, Any]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    missed, nothing = [], burned_in.Hint(reason="")
    for made in pixels.make(pictures, seed, [DATA / path for path in BLANK_SLICES if (DATA / path).is_file()]):
        found = burned_in.examine(made.pixels, nothing, IntakeConfig())
        changed = (found.pixels != made.pixels)[made.letters & (made.pixels != 0)]
        is_painted = found.verdict == "redacted" and (not changed.size or changed.mean() >= 0.9)
        is_caught = is_painted or found.verdict == "waiting"
        facts = {"kind": made.kind, "size": made.size, "ground": made.ground, "tone": made.tone, "place": made.place}
        for group in ("all", *(f"{name} {value}" for name, value in facts.items()), f"turned {made.turned}"):
            counts[group] += Counter(planted=1, painted=int(is_painted), caught=int(is_caught))
        missed += [] if is_caught else [{"text": made.text, "turned": made.turned, **facts}]
    return {"planted": {name: dict(counts[name]) for name in sorted(counts)}, "missed": missed} | _as_they_are(seed)


def _as_they_are(seed: int) -> dict[str, Any]:
    """Verdicts on real pictures, and the seconds of one core that looking through one took."""
    found = {}
    for name, pattern, count in (("slake", "slake/imgs/*/source.jpg", 40), ("vqa_rad", "vqa_rad/images/*.jpg", 20)):
        paths = sorted(DATA.glob(pattern))
        verdicts, start = Counter[str](), time.process_time()
        chosen = random.Random(seed).sample(paths, min(count, len(paths)))
        for path in chosen:
            with Image.open(path) as image:
                grey = np.asarray(image.convert("L"))
            verdicts[burned_in.examine(grey, burned_in.Hint(reason=""), IntakeConfig()).verdict] += 1
        if chosen:
            found[name] = {**verdicts, "seconds_each": round((time.process_time() - start) / len(chosen), 2)}
    return {"as_they_are": found}


PARTS = {
    "text": lambda options: text_part(options.reports, options.seed),
    "headers": lambda options: headers_part(),
    "pixels": lambda options: pixels_part(options.pictures, options.seed),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--reports", type=int, default=600)
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = {name: PARTS[name](options) for name in options.parts.split(",")}
    print(json.dumps(found, indent=None if options.json else 2, ensure_ascii=False))


if __name__ == "__main__":
    main()
