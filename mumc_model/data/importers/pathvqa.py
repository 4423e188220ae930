"""PathVQA: 4,998 pathology images from textbooks with 32,799 generated questions.

Layout: `pvqa/images/{train,val,test}/NAME.jpg` as published, with the questions as JSON lines in
`pvqa/qas/{train,val,test}/{train,val,test}_qa.jsonl` or `pvqa/qas/{train,val,test}_vqa.jsonl`. The published questions
are pickle files, which can run code when they are opened, so these are never opened here; the keys of their two forms
(`image, question, answer` and `img_id, sent, label`) are both understood. File names and keys were read off public
loaders of the set.
Source: He et al., PathVQA: 30000+ questions for medical visual question answering, arXiv 2003.10286.
"""

from pathlib import Path
from typing import Any

from mumc_model.data.importers.gathering import (
    Gathering,
    ImportSummary,
    answer_type_of,
    importer,
    read_rows,
    text_of,
)
from mumc_model.data.schema import SPLITS, UnusableRowError
from mumc_model.data.site_writer import Progress
from mumc_model.errors import DataError

SUFFIXES = (".jpg", ".png")


@importer
def pathvqa(src: Path, dst: Path, *, on_progress: Progress | None = None, max_side: int = 512) -> ImportSummary:
    """PathVQA: questions on pathology images, from its JSON-lines export. Options: max_side."""
    root = src / "pvqa" if (src / "pvqa").is_dir() else src
    gathering = Gathering("pathvqa", protocol="pathvqa")
    for split in SPLITS:
        for row in read_rows(_questions(root, split)):
            try:
                _add(gathering, root / "images" / split, row, split)
            except UnusableRowError as error:
                gathering.left_out[error.reason] += 1
    return gathering.write(dst, max_side, on_progress)


def _questions(root: Path, split: str) -> Path:
    stems = (root / "qas" / split / f"{split}_qa", root / "qas" / f"{split}_qa", root / "qas" / f"{split}_vqa")
    for stem in stems:
        if stem.with_suffix(".jsonl").is_file():
            return stem.with_suffix(".jsonl")
    if any(stem.with_suffix(".pkl").is_file() for stem in stems):
        raise DataError(
            f"the {split} questions are a pickle file, which can run code when opened, so it is not opened here; write "
            f"them as JSON lines with image, question and answer to qas/{split}/{split}_qa.jsonl, from the set's "
            "Parquet version or on a machine that may run the file"
        )
    raise DataError(f"the set has no qas/{split}/{split}_qa.jsonl; check that its folder is complete")


def _add(gathering: Gathering, images: Path, row: Any, split: str) -> None:
    if not isinstance(row, dict):
        raise UnusableRowError("not an object")
    image = text_of(row, "image") or text_of(row, "img_id")
    if not image or Path(image).name != image:
        raise UnusableRowError("no image name")
    candidates = [images / image, *(images / f"{image}{suffix}" for suffix in SUFFIXES)]
    source = next((path for path in candidates if path.is_file()), candidates[1])
    label = row.get("label")
    answer = text_of(row, "answer") or (str(next(iter(label), "")) if isinstance(label, dict) else "")
    question = text_of(row, "question") or text_of(row, "sent")
    gathering.add_question(
        source,
        source.stem,
        question=question,
        answer=answer,
        answer_type=answer_type_of(answer),
        question_type="yes/no" if answer_type_of(answer) == "CLOSED" else _first_word(question),
        split=split,
        labels={"modality": "pathology"},
    )


def _first_word(question: str) -> str:
    """What, where, how and so on: the kinds that the paper counts."""
    return next(iter(question.lower().split()), "other")
