"""What SLAKE's annotators outlined: the organs and lesions that a question names, as masks.

Each image has `detection.json`, a list of {name: [left, top, width, height]}, and `mask.png`, in which a region's grey
value is that of its name in `mask.txt`. Findings of chest radiographs have boxes alone.

Dimensions: H rows, W columns.

Source: Liu et al., SLAKE, ISBI 2021, arXiv 2102.09542. Licence: CC BY 4.0.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mumc_model.data.images import open_image
from mumc_model.errors import DataError

Mask = NDArray[np.bool_]
_SIDES = ("left ", "right ")


@dataclass(frozen=True)
class Region:
    """One outlined organ or lesion."""

    name: str
    """In lower case, as in "left kidney"."""
    mask_HW: Mask


def grey_values(path: Path) -> dict[str, int]:
    """The grey value of each name, in lower case, from `mask.txt`.

    Raises:
        DataError: the file is not lines of number:name.
    """
    try:
        rows = [line.split(":", 1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return {name.strip().lower(): int(value) for value, name in rows}
    except (OSError, ValueError) as error:
        raise DataError("SLAKE's mask.txt cannot be read as lines of number:name; fetch it again") from error


def read_regions(folder: Path, values: dict[str, int]) -> tuple[Region, ...]:
    """The regions of the image in `folder`. A box without a grey value in it is its own mask.

    Only grey values inside the box of their name count: where outlines were smoothed, their edges pass through others'.

    Raises:
        DataError: the boxes or the mask cannot be read.
    """
    try:
        boxes = json.loads((folder / "detection.json").read_text(encoding="utf-8"))
        grey_HW = np.asarray(open_image(folder / "mask.png").convert("RGB"))[..., 0]
        pairs = [(str(name).lower(), [float(edge) for edge in box]) for entry in boxes for name, box in entry.items()]
        return tuple(_region(name, box, grey_HW, values.get(name)) for name, box in pairs)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError("an image of SLAKE has no readable mask.png and detection.json; fetch it again") from error


def named(regions: Sequence[Region], text: str) -> Mask | None:
    """All that the text names, together; None where it names nothing that is outlined.

    "lung" is either lung, "left lung" the left one alone, and "liver cancer" no liver.
    """
    text = re.sub(r"[^a-z]+", " ", text.lower())
    found = {region.name: _called(region.name, text) for region in regions}
    called = [phrase for phrase in found.values() if phrase]
    wanted = [
        region.mask_HW
        for region in regions
        if (phrase := found[region.name]) and not any(phrase != other and _says(phrase, other) for other in called)
    ]
    return np.logical_or.reduce(wanted) if wanted and any(mask.any() for mask in wanted) else None


def _region(name: str, box: Sequence[float], grey_HW: NDArray[np.uint8], value: int | None) -> Region:
    left, top, width, height = box
    inside_HW = np.zeros(grey_HW.shape, dtype=bool)
    inside_HW[max(0, round(top)) : round(top + height), max(0, round(left)) : round(left + width)] = True
    outlined_HW = inside_HW & (grey_HW == value) if value is not None else np.zeros_like(inside_HW)
    return Region(name, outlined_HW if outlined_HW.any() else inside_HW)


def _called(name: str, text: str) -> str:
    """The words by which the text calls a region; empty if it does not."""
    plain = re.sub(r"[^a-z]+", " ", name)
    if _says(plain, text):
        return plain
    bare = plain.removeprefix(_SIDES[0]).removeprefix(_SIDES[1])
    sided = any(_says(side + bare, text) for side in _SIDES)
    return bare if bare != plain and not sided and _says(bare, text) else ""


def _says(phrase: str, text: str) -> bool:
    return re.search(rf"\b{phrase}s?\b", text) is not None
