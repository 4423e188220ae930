"""Where text stands in an image and what it says: a detector over the whole image, a recogniser where it found some.

Both networks are part of RapidOCR's package, and run on one thread: every core has a process of its own.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from client.intake.rendering import Eight

READ_SIDE = (640, 1600)
"""Pixels of the longer side at which text is looked for: smaller images are enlarged, larger ones made smaller."""
_RIM = 40
"""Pixels by which the edge is continued outwards: the detector overlooks what stands close to it, as labels do."""
_AROUND = 80
"""Pixels of an empty border that stay: text that fills what the detector is shown is overlooked, too."""
_STEP = 32
"""The detector's sides are multiples of it; what would be scaled to them once more would be blurred."""

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels; the last two are outside."""


@dataclass(frozen=True)
class Found:
    """A text in an image."""

    box: Box
    text: str
    confidence: float


def read(pixels: Eight) -> list[Found]:
    """Every text in an image, also where it is only suspected."""
    return _thread().submit(_read, pixels).result()


def _read(pixels: Eight) -> list[Found]:
    longer = max(pixels.shape[:2])
    scale = min(max(longer, READ_SIDE[0]), READ_SIDE[1]) / longer
    left, top, right, bottom = _filled(pixels, round(_AROUND / scale))
    if left == right:
        return []
    image = Image.fromarray(pixels[top:bottom, left:right]).convert("RGB")
    if scale != 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BICUBIC)
    result = _engine()(_framed(np.asarray(image)))
    if result.boxes is None:
        return []
    texts = zip(result.boxes, result.txts, result.scores, strict=True)
    return [
        Found(_box(corners, scale, (left, top), pixels.shape), text, float(score)) for corners, text, score in texts
    ]


def _filled(pixels: Eight, around: int) -> Box:
    """The image without rows and columns of one value at its edges, but for so many; empty where all is of one."""
    differs_HW = pixels != pixels[0, 0]
    if differs_HW.ndim == 3:
        differs_HW = differs_HW.any(axis=2)
    rows, columns = (np.flatnonzero(differs_HW.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return 0, 0, 0, 0
    height, width = pixels.shape[:2]
    left, top = max(0, int(columns[0]) - around), max(0, int(rows[0]) - around)
    return left, top, min(width, int(columns[-1]) + 1 + around), min(height, int(rows[-1]) + 1 + around)


def _framed(image_HW3: Eight) -> Eight:
    """The image with its edge continued on all sides, at the right and below up to sides that the detector takes."""
    more = [-(side + 2 * _RIM) % _STEP for side in image_HW3.shape[:2]]
    return np.pad(image_HW3, ((_RIM, _RIM + more[0]), (_RIM, _RIM + more[1]), (0, 0)), mode="edge")


def _box(corners: npt.NDArray[Any], scale: float, corner: tuple[int, int], shape: Sequence[int]) -> Box:
    places = (np.asarray(corners, dtype=np.float64) - _RIM) / scale + corner
    left, top = np.floor(places.min(0)).clip(0)
    right, bottom = np.ceil(places.max(0)).clip(0)
    return int(left), int(top), min(int(right), shape[1]), min(int(bottom), shape[0])


@cache
def _thread() -> ThreadPoolExecutor:
    """The one thread that reads, so that what `_flush_denormals` does to a thread is done to no other."""
    return ThreadPoolExecutor(1, thread_name_prefix="reader", initializer=_flush_denormals)


def _flush_denormals() -> None:
    """Have this thread take numbers too small for a normal float as nought.

    A quarter million of the detector's weights are such numbers. They change none of its results, and processors
    compute with them so slowly that two of its 83 convolutions took seven tenths of its time. onnxruntime sets this for
    the thread that makes the first session of a process, and not again.
    """
    import onnxruntime  # type: ignore[import-untyped]
    import rapidocr

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    smallest = Path(rapidocr.__file__).parent / "models" / "ch_ppocr_mobile_v2.0_cls_mobile.onnx"
    onnxruntime.InferenceSession(str(smallest), options, providers=["CPUExecutionProvider"])


@cache
def _engine() -> Any:
    """The reader, whose models are part of its package."""
    # It sets its logger up when it is imported, and tells of every file that it opens.
    logging.getLogger("RapidOCR").disabled = True
    from rapidocr import RapidOCR

    logging.getLogger("RapidOCR").disabled = True
    return RapidOCR(
        params={
            "Global.log_level": "critical",
            "Global.text_score": 0.0,
            "Global.use_preprocess_img": False,
            # Images come at their own size: the detector would enlarge every one to 736 pixels.
            "Det.limit_type": "max",
            "Det.limit_side_len": 1 << 14,
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )
