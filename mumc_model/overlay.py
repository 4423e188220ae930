"""An explanation's heat over its image, and the words that must go with it."""

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from textwrap import wrap

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mumc_model.data.files import write_atomically
from mumc_model.data.images import UnusableImageError, open_image, to_eight_bits
from mumc_model.errors import DataError
from mumc_model.explain import Explanation

LABEL = "where the model looked, not the lesion"
"""What every picture and every line about one says."""
LEAST_SIDE = 480
"""Smaller images are enlarged to this longer side in pixels, so that heat and label can be read."""
_OPACITY = 0.6
_MARGIN, _LETTER = 10, 16


def viewed(image: Path, most_side: int = 0) -> Image.Image:
    """The image as a person looks at it: enlarged where it is small, and at most `most_side` pixels long (0: any).

    Raises:
        DataError: the image cannot be read.
    """
    try:
        whole = to_eight_bits(open_image(image, draft_side=most_side))
    except UnusableImageError as error:
        raise DataError(f"{image.name} cannot be used: {error.reason}; give a PNG or JPEG file") from None
    except OSError:
        raise DataError(f"{image.name} cannot be read; give a PNG or JPEG file") from None
    longest = max(whole.size)
    scale = min(most_side or math.inf, max(LEAST_SIDE, longest)) / longest
    size = (max(1, round(whole.width * scale)), max(1, round(whole.height * scale)))
    return whole if size == whole.size else whole.resize(size, Image.Resampling.BICUBIC)


def overlay(image: Path, explanation: Explanation, most_side: int = 0) -> Image.Image:
    """The image in colour with the heat over it, dark to bright; where there is none the image is as it was.

    A study of many megapixels takes gigabytes to draw over, unless its longer side is kept to `most_side` pixels.

    Raises:
        DataError: the image cannot be read.
    """
    grey = viewed(image, most_side).convert("RGB")
    below, heat = np.asarray(grey, dtype=np.float32), explanation.to_image(grey.size)
    colour = mpl.colormaps["inferno"](heat)[..., :3] * 255
    share = _OPACITY * heat[..., None]
    return Image.fromarray((below * (1 - share) + colour * share + 0.5).astype(np.uint8))


def captioned(picture: Image.Image, lines: Sequence[str]) -> Image.Image:
    """The picture over a white strip with the lines in it, broken where they are too long."""
    font = ImageFont.load_default(_LETTER)
    letters = max(10, int((picture.width - 2 * _MARGIN) / font.getlength("n")))
    rows = [row for line in lines for row in wrap(line, letters) or [""]]
    height = round(1.4 * _LETTER)
    page = Image.new("RGB", (picture.width, picture.height + height * len(rows) + 2 * _MARGIN), "white")
    page.paste(picture)
    pen = ImageDraw.Draw(page)
    for number, row in enumerate(rows):
        pen.text((_MARGIN, picture.height + _MARGIN + height * number), row, fill="black", font=font)
    return page


def write_picture(image: Path, question: str, explanation: Explanation, out: Path) -> None:
    """Write the image with its heat, the label, the question and the explained answer, as a PNG file.

    Raises:
        DataError: the image cannot be read.
    """
    lines = (LABEL, f"question: {question}", f"answer: {explanation.answer} (by {explanation.method})")
    content = BytesIO()
    captioned(overlay(image, explanation), lines).save(content, "PNG")
    write_atomically(out, content.getvalue())
