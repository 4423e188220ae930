"""SLAKE: 642 radiology images with questions in English and Chinese.

Layout: `imgs/xmlabN/source.jpg`, `train.json`, `validate.json`, `test.json` (lists of objects); masks and boxes are not
read.
Source: Liu et al., SLAKE: a semantically-labeled knowledge-enhanced dataset for medical visual question answering,
ISBI 2021, arXiv 2102.09542. Licence: CC BY 4.0.
"""

from pathlib import Path
from typing import Any, Literal

from mumc_model.data.importers.gathering import Gathering, ImportSummary, importer, read_rows, source_inside, text_of
from mumc_model.data.schema import UnusableRowError
from mumc_model.data.site_writer import Progress

FILES = {"train": "train.json", "val": "validate.json", "test": "test.json"}
REGIONS = {"lung": "chest", "chest": "chest", "abdomen": "abdomen", "pelvic": "pelvis", "brain": "head", "neck": "neck"}


@importer
def slake(
    src: Path,
    dst: Path,
    *,
    on_progress: Progress | None = None,
    language: Literal["en", "zh", "both"] = "en",
    max_side: int = 512,
) -> ImportSummary:
    """SLAKE: questions on radiology images, with organs. Options: language=en|zh|both, max_side.

    The published splits share no image within one language only; with `both`, the Chinese questions follow the English
    split of their image.
    """
    rows = [(split, row) for split, name in FILES.items() for row in read_rows(src / name)]
    english = {_image(row): split for split, row in rows if _language(row) == "en"}
    gathering = Gathering("slake", protocol=f"slake_{language}")
    for split, row in rows:
        if language not in (_language(row), "both"):
            gathering.left_out["question in another language"] += 1
            continue
        try:
            _add(gathering, src / "imgs", row, english.get(_image(row), split) if language == "both" else split)
        except UnusableRowError as error:
            gathering.left_out[error.reason] += 1
    return gathering.write(dst, max_side, on_progress)


def _language(row: Any) -> str:
    return text_of(row, "q_lang") if isinstance(row, dict) else ""


def _image(row: Any) -> str:
    return text_of(row, "img_name") if isinstance(row, dict) else ""


def _add(gathering: Gathering, images: Path, row: dict[str, Any], split: str) -> None:
    image = _image(row)
    if not image:
        raise UnusableRowError("no image name")
    region = text_of(row, "location").lower()
    labels = {
        "modality": text_of(row, "modality").lower(),
        "organ": next((organ for start, organ in REGIONS.items() if region.startswith(start)), region),
    }
    gathering.add_question(
        source_inside(images, image),
        image.split("/")[0],
        question=text_of(row, "question"),
        answer=text_of(row, "answer"),
        answer_type=text_of(row, "answer_type").upper(),
        question_type=text_of(row, "content_type") or "other",
        split=split,
        labels={name: value for name, value in labels.items() if value},
    )
