"""Pictures with an identifier burned in, and the pixels that its letters took."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

TEXTS = {
    "name": ("MUELLER^ANNA", "Okonkwo, Chidi", "Jane Otterly", "GARCÍA LÓPEZ", "Nguyễn Thi Mai", "Li Wu"),
    "date": ("31.08.1947", "1947-08-31", "08/31/1947", "Aug 31 1947", "DOB 19470831"),
    "id": ("MRN-83749261", "ID: 4711-0815", "83749261", "A2019-00417", "Acc# 7730021"),
}
SIZES = (10, 12, 14, 20, 28, 40)
"""Pixels of the letters in pictures of 512 pixels a side."""
SMALL, SMALL_SIZES = 256, (7, 8, 10, 12, 16, 20)
"""Side and letters of small pictures: a scanner's matrix with its own small letters in it."""
GROUNDS = ("black", "white", "grey", "noise", "anatomy")
PLACES = {"top left": (0, 0), "top right": (1, 0), "bottom left": (0, 1), "bottom right": (1, 1), "within": (0.5, 0.6)}


@dataclass(frozen=True)
class Planted:
    """One picture with one text in it."""

    pixels: npt.NDArray[np.uint8]
    letters: npt.NDArray[np.bool_]
    """Where the text is."""
    kind: str
    text: str
    size: int
    ground: str
    tone: str
    place: str
    turned: bool


def make(
    count: int, seed: int, anatomy: list[Path], *, side: int = 512, sizes: tuple[int, ...] = SIZES
) -> Iterator[Planted]:
    """So many pictures of `side` pixels a side, drawn at random from all kinds, sizes, grounds and places."""
    rng = random.Random(seed)
    for _ in range(count):
        kind, size, place = rng.choice(list(TEXTS)), rng.choice(sizes), rng.choice(list(PLACES))
        text, ground, turned = (
            rng.choice(TEXTS[kind]),
            rng.choice(GROUNDS if anatomy else GROUNDS[:-1]),
            rng.random() < 0.2,
        )
        under = _ground(ground, rng, anatomy, side)
        mask = _mask(text, size, turned, PLACES[place], side)
        around = float(under[mask > 0].mean())
        tone = rng.choice(("strong", "strong", "weak"))
        grey = (255 if around < 128 else 0) if tone == "strong" else int(around + (90 if around < 128 else -90))
        pixels = np.asarray(
            Image.composite(Image.new("L", (side, side), grey), Image.fromarray(under), Image.fromarray(mask))
        )
        yield Planted(pixels, mask > 127, kind, text, size, ground, tone, place, turned)


def _ground(ground: str, rng: random.Random, anatomy: list[Path], side: int) -> npt.NDArray[np.uint8]:
    if ground == "anatomy":
        with Image.open(rng.choice(anatomy)) as image:
            return np.asarray(image.convert("L").resize((side, side)))
    if ground == "noise":
        noise = np.random.default_rng(rng.getrandbits(32)).normal(70, 25, (side, side))
        return noise.clip(0, 255).astype(np.uint8)
    return np.full((side, side), {"black": 0, "white": 235, "grey": 110}[ground], np.uint8)


def _mask(text: str, size: int, turned: bool, share: tuple[float, float], picture: int) -> npt.NDArray[np.uint8]:
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(text)
    drawn = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
    ImageDraw.Draw(drawn).text((1 - left, 1 - top), text, font=font, fill=255)
    if turned:
        drawn = drawn.transpose(Image.Transpose.ROTATE_90)
    whole = Image.new("L", (picture, picture))
    whole.paste(
        drawn, tuple(round(6 + part * (picture - 12 - side)) for part, side in zip(share, drawn.size, strict=True))
    )
    return np.asarray(whole)
