"""The PNG of an imported image, which carries its header without identity: where it comes from, and what was done."""

import json
from io import BytesIO
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom.dataset import Dataset

from client.intake.deidentify import with_clean_pixels
from client.intake.rendering import Eight
from mumc_model.data.images import stored_form

PROVENANCE = "dicom"
"""The text of each PNG that holds its header, as the JSON of PS3.18 Annex F."""
_FRAME = "frame"


def provenance(path: Path) -> Dataset:
    """The header that an imported image carries, without identity.

    Raises:
        KeyError: the image was not imported from DICOM.
    """
    with Image.open(path, formats=("PNG",)) as image:
        image.load()
        return Dataset.from_json(image.info[PROVENANCE])


def png(pixels: Eight, header: Dataset, frame: int, max_side: int) -> bytes:
    """The image at the size that is kept, with where it comes from inside it."""
    stored, _ = stored_form(Image.fromarray(pixels), max_side)
    with Image.open(BytesIO(stored)) as image:
        return _encoded(image, header, str(frame))


def released(path: Path) -> bytes:
    """The image that a person released, the same pixels, with a header that says so."""
    header = with_clean_pixels(provenance(path), seen=True)
    with Image.open(path, formats=("PNG",)) as image:
        image.load()
        return _encoded(image, header, str(image.info[_FRAME]))


def _encoded(image: Image.Image, header: Dataset, frame: str) -> bytes:
    info = PngInfo()
    info.add_itxt(PROVENANCE, json.dumps(header.to_json_dict(), sort_keys=True), zip=True)
    info.add_text(_FRAME, frame)
    buffer = BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()
