"""Names burned into pixels: hints of the header, rules for devices, and what the reader finds.

What is found is painted over. What cannot be decided waits for a person: a picture that may show a name is not clean.
"""

from dataclasses import dataclass

from pydicom.dataset import Dataset

from client.intake.config import DeviceRule, IntakeConfig
from client.intake.outcome import Verdict
from client.intake.reader import Box, Found, read
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


def tells_nothing(found: Found) -> bool:
    """Whether a text marks the side or the projection, or is anatomy: a skull, for one, reads as the digit nought.

    A letter or two in a box that is no longer than these are name nobody; in a longer box more may stand.
    """
    marks = "".join(filter(str.isalnum, found.text))
    if found.confidence >= SURE and found.text.strip(" .:()[]").upper() in _MARKERS:
        return True
    width, height = found.box[2] - found.box[0], found.box[3] - found.box[1]
    is_short = max(width, height) < _SHORT * max(1, min(width, height))
    return is_short and (len(marks) < 2 or (len(marks) == 2 and found.confidence < SURE))


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
    found = [text for text in read(pixels) if not tells_nothing(text)]
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
    if any(not tells_nothing(text) for text in read(painted)):
        return Examined(pixels, "waiting", LEFT)
    return Examined(painted, "redacted")


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
