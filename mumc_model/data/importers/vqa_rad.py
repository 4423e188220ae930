"""VQA-RAD: 315 radiology images from MedPix with questions by clinicians.

Layout: `images/synpicNNNNN.jpg`; `VQA_RAD Dataset Public.json`, the owners' file (2,248 rows); `trainset.json` and
`testset.json`, the files that the MEVF project published (3,064 and 451 rows) and that most papers report on.
Source: Lau et al., A dataset of clinically generated visual questions and answers about radiology images, Scientific
Data 5:180251, 2018. Licence: CC0 1.0.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from mumc_model.data.importers.gathering import Gathering, ImportSummary, importer, read_rows, text_of
from mumc_model.data.schema import UnusableRowError
from mumc_model.data.site_writer import Progress
from mumc_model.data.splits import share_of

OWNERS_FILE = "VQA_RAD Dataset Public.json"
ORGANS = {"HEAD": "head", "CHEST": "chest", "ABD": "abdomen"}
MISSPELT = {"PRSE": "PRES", "ATRIB": "ATTRIB"}
VAL_SHARE = 0.1
TEST_SHARE = 0.15


@importer
def vqa_rad(
    src: Path,
    dst: Path,
    *,
    on_progress: Progress | None = None,
    split: Literal["mevf", "official", "image_disjoint"] = "mevf",
    max_side: int = 512,
) -> ImportSummary:
    """VQA-RAD: questions on radiology images. Options: split=mevf|official|image_disjoint, max_side.

    `mevf` is the split of most papers (3,064 training rows with paraphrases, 451 test rows); `official` is the owners'
    (1,793 and 451). Both share every test image with train, so they say how well known images are read;
    `image_disjoint` deals the images anew and says whether a model generalises. Validation is carved out of train by
    image in all three.
    """
    gathering = Gathering("vqa_rad", protocol=f"vqa_rad_{split}")
    for given, row in _official(src, gathering) if split == "official" else _published(src):
        try:
            _add(gathering, src / "images", row, given, split)
        except UnusableRowError as error:
            gathering.left_out[error.reason] += 1
    return gathering.write(dst, max_side, on_progress)


def _published(src: Path) -> Iterator[tuple[str, Any]]:
    for file_name, given in (("trainset.json", "train"), ("testset.json", "test")):
        yield from ((given, row) for row in read_rows(src / file_name))


def _official(src: Path, gathering: Gathering) -> Iterator[tuple[str, Any]]:
    """The owners' rows, test first: the phrase says the split, and a row that repeats another is left out of train."""
    rows = [row for row in read_rows(src / OWNERS_FILE) if isinstance(row, dict)]
    rows.sort(key=lambda row: not text_of(row, "phrase_type").startswith("test"))
    seen: set[tuple[str, ...]] = set()
    for row in rows:
        given = "test" if text_of(row, "phrase_type").startswith("test") else "train"
        key = tuple(text_of(row, name).lower() for name in ("image_name", "question", "answer"))
        if given == "train" and key in seen:
            gathering.left_out["row repeated"] += 1
            continue
        seen.add(key)
        yield given, row


def _add(gathering: Gathering, images: Path, row: Any, given: str, split: str) -> None:
    if not isinstance(row, dict):
        raise UnusableRowError("not an object")
    image = text_of(row, "image_name")
    if not image or Path(image).name != image:
        raise UnusableRowError("no image name")
    kind = text_of(row, "question_type").upper().split(",")[0].strip() or "OTHER"
    organ = ORGANS.get(text_of(row, "image_organ").upper())
    gathering.add_question(
        images / image,
        Path(image).stem,
        question=text_of(row, "question"),
        answer=text_of(row, "answer"),
        answer_type=text_of(row, "answer_type").upper(),
        question_type=MISSPELT.get(kind, kind),
        split=_split(image, given, split),
        labels={"organ": organ} if organ else None,
    )


def _split(image: str, given: str, split: str) -> str:
    share = share_of(f"vqa_rad/{image}")
    if split != "image_disjoint":
        return "val" if given == "train" and share < VAL_SHARE else given
    if share < TEST_SHARE:
        return "test"
    return "val" if share < TEST_SHARE + VAL_SHARE else "train"
