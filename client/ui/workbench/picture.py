"""Pictures of the Ask tab: a study as it is, and with where the model looked over it."""

from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from client.config import read_site_config
from client.ui.look import paragraph, picture, weights
from mumc_model.answerer import Answerer
from mumc_model.data.images import UnusableImageError, open_image, to_eight_bits
from mumc_model.device import choose_device
from mumc_model.errors import DataError
from mumc_model.explain import Explanation, Method, explain
from mumc_model.overlay import LABEL, overlay

SHOWN_SIDE = 1024
"""A larger study is shown, never asked about, at this longer side in pixels."""
LEAST_SIDE = 480


def study_html(image: Path, name: str) -> str:
    """The study as it is.

    Raises:
        DataError: it is no PNG or JPEG image, or too large.
    """
    return picture(_bytes(_shown(image)), f"study {name}", name)


def looked_html(
    root: Path, answerer: Answerer, image: Path, name: str, question: str, answer: str, method: Method
) -> str:
    """The study with where the model looked for the answer, and the question's words by weight.

    Raises:
        DataError: the image cannot be read.
    """
    device = choose_device(read_site_config(root).device)
    found = explain(answerer, image, question, answer=answer, method=method, device=device)
    with TemporaryDirectory() as folder:
        # A study of many megapixels would take gigabytes to draw over.
        small = Path(folder) / "study.png"
        _shown(image).save(small)
        drawn = overlay(small, found)
    caption = f"{LABEL}: for the answer “{found.answer}”, by {found.method}; bright is much, dark is little"
    if answerer.others:
        caption += "; an ensemble answers, and this is its first member"
    alt = f"study {name}, with heat where the model looked for the answer {found.answer}"
    return (
        picture(_bytes(drawn), alt, caption)
        + _nothing(found)
        + weights("Weight of the words of the question", found.words)
    )


def _nothing(found: Explanation) -> str:
    if found.heat_PP.any():
        return ""
    return paragraph("Nothing in the image spoke for this answer, so no place is marked.")


def _shown(image: Path) -> Image.Image:
    try:
        whole = to_eight_bits(open_image(image, draft_side=SHOWN_SIDE))
    except UnusableImageError as error:
        raise DataError(f"{image.name} cannot be used: {error.reason}; give a PNG or JPEG file") from None
    except OSError:
        raise DataError(f"{image.name} cannot be read; choose it again") from None
    longest = max(whole.size)
    scale = min(SHOWN_SIDE, max(LEAST_SIDE, longest)) / longest
    size = (max(1, round(whole.width * scale)), max(1, round(whole.height * scale)))
    return whole if size == whole.size else whole.resize(size, Image.Resampling.BICUBIC)


def _bytes(drawn: Image.Image) -> bytes:
    content = BytesIO()
    drawn.save(content, "PNG")
    return content.getvalue()
