"""From a case, a patient and a scanner to a grey image and the mask of its finding."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mumc_model.data.phantom_anatomy import Patient, draw_anatomy
from mumc_model.data.phantom_canvas import Canvas, Plane
from mumc_model.data.phantom_cases import Case
from mumc_model.data.phantom_findings import draw_finding

_NOISE = {"xray": 0.02, "ct": 0.03, "mr": 0.025}


@dataclass(frozen=True, kw_only=True)
class Scanner:
    """How a hospital's machines render what they see."""

    contrast: float = 1.0
    """How much findings differ from what surrounds them, as a factor."""
    noise: float = 1.0
    """Standard deviation of the noise, as a factor."""
    gamma: float = 1.0
    """Exponent of the grey values: above 1 the image is darker."""
    window: float = 1.0
    """Slope of the grey values about mid-grey."""
    level: float = 0.0
    """What is added to the grey values."""

    @classmethod
    def draw(cls, unlike: float, contrast: float, noise: float, rng: np.random.Generator) -> "Scanner":
        """A hospital's scanner: the plain one if `unlike` is 0, far from it if 1."""
        spread = unlike * rng.uniform(-1, 1, 5)
        return cls(
            contrast=contrast * float(np.exp(0.1 * spread[0])),
            noise=noise * float(np.exp(0.4 * spread[1])),
            gamma=float(np.exp(0.25 * spread[2])),
            window=float(np.exp(0.2 * spread[3])),
            level=float(0.06 * spread[4]),
        )


def draw_image(
    case: Case, patient: Patient, scanner: Scanner, size: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The image and its finding's mask, both [size, size]; the mask of a normal examination is empty."""
    canvas = Canvas(size, rng)
    draw_anatomy(canvas, case.modality, case.organ, patient)
    cover_HW = np.zeros_like(canvas.grey_HW) if case.normal else draw_finding(canvas, case, scanner.contrast)
    grey_HW = _expose(canvas, case.modality, scanner)
    return (grey_HW * 255 + 0.5).astype(np.uint8), cover_HW >= 0.5


def _expose(canvas: Canvas, modality: str, scanner: Scanner) -> Plane:
    rng = canvas.rng
    grey_HW = canvas.grey_HW
    if modality == "mr":
        grey_HW = grey_HW * (1 + 0.15 * canvas.clouds(3))
    grey_HW = np.clip(grey_HW, 0, 1) ** np.float32(scanner.gamma * np.exp(rng.normal(0, 0.08)))
    grey_HW = 0.5 + (grey_HW - 0.5) * np.float32(scanner.window) + np.float32(scanner.level + rng.normal(0, 0.02))
    noise_HW = rng.standard_normal(grey_HW.shape, dtype=np.float32) * np.float32(_NOISE[modality] * scanner.noise)
    if modality == "ct":
        noise_HW = (noise_HW + np.roll(noise_HW, 1, axis=1)) * np.float32(0.75)
    return np.clip(grey_HW + noise_HW, 0, 1)
