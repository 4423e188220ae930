"""Pictures of the Ask tab: a study as it is, and with where the model looked over it."""

from io import BytesIO
from pathlib import Path

from PIL import Image

from client.config import read_site_config
from client.own_model import folder_of_model
from client.ui.look import paragraph, picture, weights
from client.where import explained
from mumc_model.explain import Explanation, Method
from mumc_model.members import further_members
from mumc_model.overlay import LABEL, overlay, viewed

SHOWN_SIDE = 1024
"""A larger study is shown, never asked about, at this longer side in pixels."""


def study_html(image: Path, name: str) -> str:
    """The study as it is.

    Raises:
        DataError: it is no PNG or JPEG image, or too large.
    """
    return picture(_bytes(viewed(image, SHOWN_SIDE)), f"study {name}", name)


def looked_html(
    root: Path, model: Path | None, image: Path, name: str, question: str, answer: str, method: Method
) -> str:
    """The study with where the site's model looked for the answer, and the question's words by weight.

    Raises:
        CheckpointError, DataError: there is no such model, or the image cannot be read.
    """
    folder, device = folder_of_model(root, model), read_site_config(root).device
    found = explained(folder, image, question, answer=answer, method=method, device=device)
    drawn = overlay(image, found, SHOWN_SIDE)
    caption = f"{LABEL}: for the answer “{found.answer}”, by {found.method}; bright is much, dark is little"
    if further_members(folder):
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


def _bytes(drawn: Image.Image) -> bytes:
    content = BytesIO()
    drawn.save(content, "PNG")
    return content.getvalue()
