"""Image files at a site: which may be read, how they are checked, and in which form they are stored."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mumc_model.errors import DataError

SITE_FORMATS = ("PNG", "JPEG")
"""What a site folder holds; each further decoder would be one more way in."""
SOURCE_FORMATS = (*SITE_FORMATS, "BMP", "GIF", "TIFF", "WEBP")
"""What importers convert from."""
MAX_PIXELS = 64_000_000
"""A header that announces more is refused before anything is decoded (decompression bombs)."""
MAX_BYTES = 256 << 20
UPRIGHT = 1
"""The EXIF orientation of an image that needs no turning."""
EXIF_ORIENTATION = 0x0112
GREY_MODES = ("1", "L", "LA", "I", "F")

UNREADABLE = "image unreadable"
TOO_LARGE = "image too large"


class UnusableImageError(DataError):
    """An image cannot be used; `reason` says why in words that name no file."""

    def __init__(self, reason: str) -> None:
        """Keep the reason for the counts."""
        super().__init__(f"{reason}; re-export it as PNG or JPEG of at most {MAX_PIXELS:,} pixels, or leave it out")
        self.reason = reason


def open_image(source: Path | BytesIO, formats: tuple[str, ...] = SITE_FORMATS, *, draft_side: int = 0) -> Image.Image:
    """The fully decoded image; with `draft_side`, JPEG is decoded at some smaller size that is at least that.

    Raises:
        UnusableImageError: it is no such image, is cut short, or announces more than `MAX_PIXELS`.
    """
    try:
        content = BytesIO(_read(source)) if isinstance(source, Path) else source
        image = Image.open(content, formats=formats)
        if image.width * image.height > MAX_PIXELS:
            raise UnusableImageError(TOO_LARGE)
        if draft_side:
            image.draft(None, (draft_side, draft_side))
        image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnusableImageError(TOO_LARGE) from None
    except UnusableImageError:
        raise
    except Exception:  # Decoders raise anything at all on broken input, often quoting it.
        raise UnusableImageError(UNREADABLE) from None
    return image


def is_grey(path: Path) -> bool:
    """Whether the file's header announces no colour (an unreadable file has none either)."""
    try:
        with Image.open(path, formats=SITE_FORMATS) as image:
            return image.mode in GREY_MODES or image.mode.startswith("I;16")
    except Exception:  # As in open_image; whoever decodes the file will say so.
        return True


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UnusableImageError(TOO_LARGE)
    return content


def _content(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        if len(source) > MAX_BYTES:
            raise UnusableImageError(TOO_LARGE)
        return source
    try:
        return _read(source)
    except OSError:
        raise UnusableImageError(UNREADABLE) from None


def to_eight_bits(image: Image.Image) -> Image.Image:
    """The image upright, as 8-bit grey (L) or colour (RGB); deeper grey levels are stretched to fit."""
    image = ImageOps.exif_transpose(image)
    if image.mode in ("L", "RGB"):
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        levels = np.nan_to_num(np.asarray(image, dtype=np.float64))
        span = float(np.ptp(levels)) or 1.0
        return Image.fromarray(np.rint((levels - levels.min()) * (255.0 / span)).astype(np.uint8))
    return image.convert("L" if image.mode in ("1", "LA") else "RGB")


def stored_form(source: Path | bytes | Image.Image, max_side: int) -> tuple[bytes, str]:
    """The bytes to store and their suffix (`.png`, `.jpg`); small PNG and JPEG files are kept bit by bit.

    `source` is a file, the content of one, or pixels.

    Raises:
        UnusableImageError: as `open_image`.
    """
    if not isinstance(source, Image.Image):
        content = _content(source)
        image = open_image(BytesIO(content), SOURCE_FORMATS)
        plain = image.mode in ("L", "RGB") and image.getexif().get(EXIF_ORIENTATION, UPRIGHT) == UPRIGHT
        if plain and max(image.size) <= max_side and image.format in SITE_FORMATS:
            return content, ".jpg" if image.format == "JPEG" else ".png"
    else:
        image = source
    image = to_eight_bits(image)
    if max(image.size) > max_side:
        scale = max_side / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue(), ".png"
