"""VQA-RAD: 315 radiology images from MedPix with questions by clinicians.

Layout: `images/synpicNNNNN.jpg`, `trainset.json`, `testset.json` (lists of objects), the files that the MEVF project
published (3,064 and 451 rows) and that most papers report on.
Source: Lau et al., A dataset of clinically generated visual questions and answers about radiology images, Scientific
Data 5:180251, 2018. Licence: CC0 1.0.
"""

from pathlib import Path
from typing import Any, Literal

from mumc_model.data.importers.gathering import Gathering, ImportSummary, importer, read_rows, share_of, text_of
from mumc_model.data.schema import UnusableRowError
from mumc_model.data.site_writer import Progress

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
    split: Literal["official", "image_disjoint"] = "official",
    max_side: int = 512,
) -> ImportSummary:
    """VQA-RAD: questions on radiology images. Options: split=official|image_disjoint, max_side.

    The official split shares every test image with train, so it says how well known images are read; `image_disjoint`
    deals the images anew and says whether a model generalises. Validation is carved out of train by image in both.
    """
    gathering = Gathering("vqa_rad")
    for file_name, official in (("trainset.json", "train"), ("testset.json", "test")):
        for row in read_rows(src / file_name):
            try:
                _add(gathering, src / "images", row, official, split)
            except UnusableRowError as error:
                gathering.left_out[error.reason] += 1
    return gathering.write(dst, max_side, on_progress)


def _add(gathering: Gathering, images: Path, row: Any, official: str, split: str) -> None:
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
        split=_split(image, official, split),
        labels={"organ": organ} if organ else None,
    )


def _split(image: str, official: str, split: str) -> str:
    share = share_of(f"vqa_rad/{image}")
    if split == "official":
        return "val" if official == "train" and share < VAL_SHARE else official
    if share < TEST_SHARE:
        return "test"
    return "val" if share < TEST_SHARE + VAL_SHARE else "train"
