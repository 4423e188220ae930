"""VQA-Med 2019: 4,200 radiology images, each with four questions that together read as a caption.

Layout: `training/{train_images, QAPairsByCategory/C1_Modality_train.txt ... C4_Abnormality_train.txt}`, `validation/`
the same with `val`, `testing/{VQAMed2019_Test_Images, VQAMed2019_Test_Questions_w_Ref_Answers.txt}`; rows are separated
by pipes: image, question, answer (in the test file image, category, question, answer).
Source: Ben Abacha et al., VQA-Med: overview of the medical visual question answering task at ImageCLEF 2019, CLEF 2019
working notes. Licence: CC BY 4.0.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mumc_model.data.importers.gathering import Gathering, ImportSummary, answer_type_of, importer
from mumc_model.data.importers.vqa_med_caption import compose_caption, labels_of
from mumc_model.data.site_writer import Progress
from mumc_model.errors import ConfigError, DataError

SPLITS = {"training": "train", "validation": "val", "testing": "test"}
CATEGORIES = ("modality", "plane", "organ", "abnormality")
IN_VQA_RAD = frozenset(
    f"synpic{number}"
    for number in (
        *(15006, 17664, 17848, 19114, 21028, 21776, 21902, 22037, 23631, 24350, 24538, 27047, 27402, 27646, 28210),
        *(28718, 31928, 32727, 33102, 33429, 33481, 35155, 37275, 37605, 38630, 39301, 39757, 40096, 40520, 41325),
        *(42202, 42307, 43433, 44995, 45544, 47964, 49862, 50962, 53207, 55317, 55583, 59356),
    )
)
"""Images of VQA-RAD: trained on here, they would leak into its test."""


class _Row(NamedTuple):
    split: str
    category: str
    image: str
    question: str
    answer: str


@importer
def vqa_med_2019(
    src: Path,
    dst: Path,
    *,
    on_progress: Progress | None = None,
    exclude: str = "vqa_rad",
    captions: str = "train",
    max_side: int = 512,
) -> ImportSummary:
    """VQA-Med 2019: questions, and captions made of their answers. Options: exclude, captions, max_side.

    `exclude` leaves images out of train and val: `vqa_rad` (those that VQA-RAD has too), image ids separated by commas,
    or nothing; the test split, on which nothing is trained, stays as published. `captions` names the splits, separated
    by commas, whose images get a caption; one of val or test would tell a model the answers it is examined on.
    """
    protocol = "vqa_med_2019" if exclude == "vqa_rad" else "vqa_med_2019_full"
    gathering = Gathering("vqa_med_2019", protocol=protocol)
    excluded = IN_VQA_RAD if exclude == "vqa_rad" else frozenset(filter(None, map(str.strip, exclude.split(","))))
    captioned = {part.strip() for part in captions.split(",")}
    if unknown := captioned - {*SPLITS.values(), ""}:
        raise ConfigError(
            f"option captions names the split '{min(unknown)}'; choose among {', '.join(SPLITS.values())}"
        )
    for folder, split in SPLITS.items():
        images = _images(src / folder)
        asked: dict[str, dict[str, _Row]] = {}
        for row in _rows(src / folder, split, gathering):
            if row.image in excluded and split != "test":
                gathering.left_out["image excluded"] += 1
            else:
                asked.setdefault(row.image, {}).setdefault(row.category, row)
        for image, by_category in asked.items():
            _add_image(gathering, images / f"{image}.jpg", by_category, captioned=split in captioned)
    return gathering.write(dst, max_side, on_progress)


def _images(folder: Path) -> Path:
    found = sorted(path for path in folder.glob("*") if path.is_dir() and path.name.lower().endswith("images"))
    if not found:
        raise DataError(f"{folder.name}/ holds no folder of images; check that the set is complete and unpacked")
    return found[0]


def _rows(folder: Path, split: str, gathering: Gathering) -> Iterator[_Row]:
    if split == "test":
        yield from _lines(folder / "VQAMed2019_Test_Questions_w_Ref_Answers.txt", split, "", gathering)
        return
    for number, category in enumerate(CATEGORIES, start=1):
        name = f"C{number}_{category.capitalize()}_{split}.txt"
        yield from _lines(folder / "QAPairsByCategory" / name, split, category, gathering)


def _lines(path: Path, split: str, category: str, gathering: Gathering) -> Iterator[_Row]:
    """Rows of one file; where no category is given, it is the second of four parts."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        raise DataError(f"the set has no readable {path.name}; check that its folder is complete") from None
    for line in filter(str.strip, lines):
        parts = [" ".join(part.split()) for part in line.split("|")]
        if len(parts) != (3 if category else 4) or Path(parts[0]).name != parts[0]:
            gathering.left_out["not a row"] += 1
        else:
            yield _Row(split, category or parts[1], parts[0], *parts[-2:])


def _add_image(gathering: Gathering, source: Path, by_category: dict[str, _Row], *, captioned: bool) -> None:
    pairs = {category: (row.question, row.answer) for category, row in by_category.items()}
    labels = labels_of(pairs)
    name = source.stem
    if captioned and len(pairs) == len(CATEGORIES):
        gathering.add_caption(source, name, compose_caption(pairs), labels=labels)
    elif captioned:
        gathering.left_out["caption of an image without all four answers"] += 1
    for row in by_category.values():
        gathering.add_question(
            source,
            name,
            question=row.question,
            answer=row.answer,
            answer_type=answer_type_of(row.answer),
            question_type=row.category,
            split=row.split,
            labels=labels,
        )
