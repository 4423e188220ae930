"""Names burned into pixels: hints of the header, rules for devices, and reading what is there to be read.

What is found is painted over. What cannot be decided waits for a person: a picture that may show a name is not clean.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset

from client.intake.config import DeviceRule, IntakeConfig
from client.intake.outcome import Verdict
from client.intake.reading import text_of
from client.intake.rendering import Eight

SECONDARY = "a secondary capture or screenshot"
SAID = "its header says that text is burned in"
RULE = "a rule for its device"
FOUND, MUCH = "text was found in it", "text covers much of it"
UNDECIDED, LEFT = "something in it may be text and could not be read", "text in it could not be painted over"
_CAPTURES = ("1.2.840.10008.5.1.4.1.1.7",)
"""Secondary Capture, and its multi-frame kinds, which begin alike."""
_SCREENS = ("SCREEN SAVE", "SCREENSHOT", "SCREEN_SAVE")

READ_SIDE = (640, 1600)
"""Pixels of the longer side at which text is looked for: smaller images are enlarged, larger ones made smaller."""
_RIM = 40
"""Pixels by which the edge is continued outwards: the detector overlooks what stands close to it, as labels do."""
SURE = 0.8
"""Confidence from which on a text is taken for what was read."""
DOUBTFUL = 0.5
"""Confidence below which nobody can say what, and how much, was read."""
_MARKERS = {"L", "R", "AP", "PA", "LAT", "LL", "RL", "H", "F", "A", "P", "S", "I", "LI", "RE", "SUPINE", "ERECT"}
"""Marks of side and projection, which say nothing of anybody and much of the image."""
_SHORT = 2.2
"""Longer side of a box by its shorter one, up to which it holds no more than two letters."""
_MUCH = 0.1
_MARGIN = 0.3
"""Of a text's height (its width where it is turned), painted around it."""

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels; the last two are outside."""


@dataclass(frozen=True, kw_only=True)
class Hint:
    """What the header lets expect of the pixels."""

    reason: str
    """Why the image waits whatever is found; empty where it does not."""
    blank: tuple[tuple[float, float, float, float], ...] = ()
    """Parts that a rule for the device paints over: left, top, right, bottom as shares."""


@dataclass(frozen=True)
class Examined:
    """Pixels that were looked through."""

    pixels: Eight
    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True)
class Found:
    """A text in an image."""

    box: Box
    text: str
    confidence: float

    @property
    def tells_nothing(self) -> bool:
        """Whether it marks the side or the projection, or is anatomy: a skull, for one, reads as the digit nought.

        A letter or two in a box that is no longer than these are name nobody; in a longer box more may stand.
        """
        marks = "".join(filter(str.isalnum, self.text))
        if self.confidence >= SURE and self.text.strip(" .:()[]").upper() in _MARKERS:
            return True
        width, height = self.box[2] - self.box[0], self.box[3] - self.box[1]
        is_short = max(width, height) < _SHORT * max(1, min(width, height))
        return is_short and (len(marks) < 2 or (len(marks) == 2 and self.confidence < SURE))


def hint(dataset: Dataset, config: IntakeConfig) -> Hint:
    """What this header lets expect."""
    rules = [rule for rule in config.devices if _is_meant(rule, dataset)]
    blank = tuple(box for rule in rules for box in rule.blank)
    if any(rule.trusted for rule in rules):
        return Hint(reason="", blank=blank)
    if any(rule.quarantine for rule in rules):
        return Hint(reason=RULE, blank=blank)
    modality = text_of(dataset, "Modality").upper()
    types = text_of(dataset, "ImageType").upper()
    if text_of(dataset, "BurnedInAnnotation").upper() == "YES":
        return Hint(reason=SAID, blank=blank)
    is_capture = text_of(dataset, "SOPClassUID").startswith(_CAPTURES) or bool(text_of(dataset, "ConversionType"))
    if is_capture or any(word in types for word in _SCREENS):
        return Hint(reason=SECONDARY, blank=blank)
    if not modality or modality in config.quarantine:
        return Hint(reason=f"its modality is {modality or 'not named'}", blank=blank)
    return Hint(reason="", blank=blank)


def examine(pixels: Eight, expected: Hint, config: IntakeConfig) -> Examined:
    """The pixels with every text painted over that was found, and whether they may be used."""
    pixels = pixels.copy()
    height, width = pixels.shape[:2]
    for left, top, right, bottom in expected.blank:
        _paint(pixels, (int(left * width), int(top * height), round(right * width), round(bottom * height)))
    if expected.reason:
        return Examined(pixels, "waiting", expected.reason)
    found = [text for text in read(pixels) if not text.tells_nothing]
    if not found:
        return Examined(pixels, "clean")
    if config.burned_in == "quarantine":
        return Examined(pixels, "waiting", FOUND)
    if any(text.confidence < DOUBTFUL for text in found):
        return Examined(pixels, "waiting", UNDECIDED)
    if sum(_area(text.box) for text in found) > _MUCH * height * width:
        return Examined(pixels, "waiting", MUCH)
    painted = pixels.copy()
    for text in found:
        _paint(painted, _widened(text.box))
    if any(not text.tells_nothing for text in read(painted)):
        return Examined(pixels, "waiting", LEFT)
    return Examined(painted, "redacted")


def read(pixels: Eight) -> list[Found]:
    """Every text in an image, also where it is only suspected."""
    longer = max(pixels.shape[:2])
    scale = min(max(longer, READ_SIDE[0]), READ_SIDE[1]) / longer
    image = Image.fromarray(pixels).convert("RGB")
    if scale != 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BICUBIC)
    result = _engine()(np.pad(np.asarray(image), ((_RIM, _RIM), (_RIM, _RIM), (0, 0)), mode="edge"))
    if result.boxes is None:
        return []
    texts = zip(result.boxes, result.txts, result.scores, strict=True)
    return [Found(_box(corners, scale, pixels.shape), text, float(score)) for corners, text, score in texts]


def _box(corners: npt.NDArray[Any], scale: float, shape: Sequence[int]) -> Box:
    places = (np.asarray(corners, dtype=np.float64) - _RIM) / scale
    left, top = np.floor(places.min(0)).clip(0)
    right, bottom = np.ceil(places.max(0)).clip(0)
    return int(left), int(top), min(int(right), shape[1]), min(int(bottom), shape[0])


def _widened(box: Box) -> Box:
    left, top, right, bottom = box
    margin = 1 + round(_MARGIN * min(right - left, bottom - top))
    return left - margin, top - margin, right + margin, bottom + margin


def _paint(pixels: Eight, box: Box) -> None:
    left, top, right, bottom = box
    pixels[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = 0


def _area(box: Box) -> int:
    return max(0, box[2] - box[0]) * max(0, box[3] - box[1])


def _is_meant(rule: DeviceRule, dataset: Dataset) -> bool:
    given = (rule.manufacturer, "Manufacturer"), (rule.model, "ManufacturerModelName"), (rule.modality, "Modality")
    return all(wanted.casefold() in text_of(dataset, name).casefold() for wanted, name in given)


@lru_cache(maxsize=1)
def _engine() -> Any:
    """The reader, whose models are part of its package; one thread, since every core has a process of its own."""
    # It sets its logger up when it is imported, and tells of every file that it opens.
    logging.getLogger("RapidOCR").disabled = True
    from rapidocr import RapidOCR

    logging.getLogger("RapidOCR").disabled = True
    return RapidOCR(
        params={
            "Global.log_level": "critical",
            "Global.text_score": 0.0,
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )
