"""ROCO: figures of open-access articles with their captions.

Layout: `{train,validation,test}/radiology/{images/ROCO_NNNNN.jpg, captions.txt, licences.txt}`, directly or under
`data/` or `all_data/`; captions.txt holds identifier, tab, caption; licences.txt is a table `ROCO_ID,PMC_ID,CC`. Read
off the owners' repository (razorx89/roco-dataset), which lists the images; its script fetches them.
Source: Pelka et al., Radiology Objects in COntext (ROCO): a multimodal image dataset, LABELS 2018, LNCS 11043.
Each image has a licence of its own.
"""

import csv
from pathlib import Path

from mumc_model.data.importers.gathering import Gathering, ImportSummary, importer
from mumc_model.data.site_writer import Progress
from mumc_model.errors import ConfigError, DataError

SPLITS = ("train", "validation", "test")
PLACES = ("", "data", "all_data")


@importer
def roco(
    src: Path,
    dst: Path,
    *,
    on_progress: Progress | None = None,
    splits: str = "train",
    licences: str = "",
    max_side: int = 512,
) -> ImportSummary:
    """ROCO: captions of radiology figures. Options: splits, licences, max_side.

    `splits` is a list of train, validation and test separated by commas. `licences` keeps only images under these
    licences, separated by commas (for example `CC BY,CC0`); empty keeps all.
    """
    wanted = [part.strip() for part in splits.split(",")]
    if unknown := set(wanted) - set(SPLITS):
        raise ConfigError(f"ROCO has no split '{min(unknown)}'; choose among {', '.join(SPLITS)}")
    allowed = {part.strip().upper() for part in licences.split(",") if part.strip()}
    gathering = Gathering("roco")
    for split in wanted:
        folder = _folder(src, split)
        licence_of = _licences(folder / "licences.txt", required=bool(allowed))
        for identifier, caption in _captions(folder / "captions.txt", gathering):
            licence = licence_of.get(identifier, "")
            if allowed and licence.upper() not in allowed:
                gathering.left_out["another licence"] += 1
                continue
            labels = {"split": split} | ({"licence": licence} if licence else {})
            gathering.add_caption(folder / "images" / f"{identifier}.jpg", identifier, caption, labels=labels)
    return gathering.write(dst, max_side, on_progress)


def _folder(src: Path, split: str) -> Path:
    for place in PLACES:
        if (src / place / split / "radiology").is_dir():
            return src / place / split / "radiology"
    raise DataError(f"the set has no {split}/radiology; check that its folder is complete")


def _captions(path: Path, gathering: Gathering) -> list[tuple[str, str]]:
    rows = []
    for line in _text(path).splitlines():
        identifier, tab, caption = line.partition("\t")
        if tab and Path(identifier).name == identifier.strip():
            rows.append((identifier.strip(), caption))
        elif line.strip():
            gathering.left_out["not a row"] += 1
    return rows


def _licences(path: Path, *, required: bool) -> dict[str, str]:
    if not path.is_file() and not required:
        return {}
    rows = csv.reader(_text(path).splitlines())
    return {row[0]: row[-1].strip() for row in rows if len(row) >= 3}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        raise DataError(f"the set has no readable {path.name}; check that its folder is complete") from None
