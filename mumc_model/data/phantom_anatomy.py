"""Radiograph-, CT- and MR-like pictures of a healthy chest, head or abdomen.

All views are frontal: the patient's left is on the right of the image (the heart's apex and the spleen lie there, the
liver on the left), up is towards the head. Radiographs are projections, CT and MR are slices.
"""

from dataclasses import dataclass

import numpy as np

from mumc_model.data.phantom_canvas import Canvas


@dataclass(frozen=True, kw_only=True)
class Patient:
    """The shape of a body, the same in all of a patient's images: factors near 1, shifts near 0."""

    breadth: float
    height: float
    organ: float
    lean: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Patient":
        """A patient at random."""
        breadth, height, organ = np.exp(rng.normal(0, 0.06, 3).clip(-0.12, 0.12))
        return cls(breadth=breadth, height=height, organ=organ, lean=float(rng.normal(0, 0.03)))


def draw_anatomy(canvas: Canvas, modality: str, organ: str, patient: Patient) -> None:
    """Paint the healthy body on the canvas; each examination is posed a little differently."""
    rng = canvas.rng
    canvas.pose(
        shift=(rng.normal(0, 0.03), rng.normal(0, 0.03)),
        scale=(patient.breadth, patient.height),
        angle=patient.lean + rng.normal(0, 0.03),
    )
    _ANATOMY[modality, organ](canvas, patient.organ)


def _vertebrae(canvas: Canvas, bone: float, *, top: float = -1.0, bottom: float = 1.0, opacity: float = 1.0) -> None:
    column_HW = canvas.edge(np.abs(canvas.x_HW) - 0.09) * canvas.edge(
        np.abs(canvas.y_HW - (top + bottom) / 2) - (bottom - top) / 2
    )
    discs_HW = canvas.edge(np.cos(canvas.y_HW * np.float32(2 * np.pi / 0.24)) * 0.03 - 0.02)
    canvas.paint(column_HW, 0.8 * bone, opacity)
    canvas.paint(column_HW * discs_HW, bone, opacity)


def _lungs(canvas: Canvas, organ: float, grey: float, softness: float) -> None:
    for side in (-1, 1):
        lung_HW = canvas.ellipse(
            side * 0.42, -0.08, 0.31 * organ, 0.68, angle=side * -0.08, softness=softness, power=2.6
        )
        canvas.paint(lung_HW, grey)


def _heart(canvas: Canvas, organ: float, grey: float, softness: float, opacity: float = 1.0) -> None:
    canvas.paint(canvas.ellipse(0, -0.2, 0.14, 0.75, softness=softness), grey, opacity)
    canvas.paint(canvas.ellipse(0.12, 0.25, 0.3 * organ, 0.25 * organ, angle=0.5, softness=softness), grey, opacity)


def _xray_chest(canvas: Canvas, organ: float) -> None:
    body_HW = canvas.ellipse(0, 0.35, 0.93, 1.3, softness=0.06, power=3.5)
    canvas.paint(body_HW, 0.5)
    _lungs(canvas, organ, 0.2, 0.07)
    wave_HW = np.sin((canvas.y_HW - 0.45 * canvas.x_HW**2) * np.float32(2 * np.pi / 0.27) + canvas.rng.uniform(0, 6))
    canvas.add(canvas.ellipse(0, 0, 0.8, 0.8, softness=0.1, power=3) * canvas.edge(0.35 - wave_HW, 0.5), 0.1)
    for side in (-1, 1):
        canvas.add(canvas.ellipse(side * 0.42, -0.74, 0.4, 0.04, angle=side * -0.2, softness=0.04), 0.2)
    _heart(canvas, organ, 0.68, 0.06, 0.85)
    _vertebrae(canvas, 0.8, opacity=0.5)
    canvas.paint(canvas.edge(0.62 + 0.25 * canvas.x_HW**2 - canvas.y_HW, 0.04) * body_HW, 0.68, 0.8)


def _ct_chest(canvas: Canvas, organ: float) -> None:
    canvas.paint(canvas.ellipse(0, 0.3, 0.9, 1.25, power=3.5), 0.36)
    canvas.paint(canvas.ellipse(0, 0.3, 0.83, 1.2, power=3.5), 0.5)
    _lungs(canvas, organ, 0.06, 0.02)
    vessels_HW = np.clip(np.abs(canvas.clouds(14)), 0.9, 1.6) - 0.9
    canvas.add(vessels_HW * canvas.ellipse(0, -0.08, 0.68, 0.6), 0.22)
    ribs_HW = canvas.edge(0.6 - np.cos(canvas.y_HW * np.float32(2 * np.pi / 0.26)), 0.1)
    wall_HW = canvas.ellipse(0, -0.05, 0.81, 0.84, power=3) - canvas.ellipse(0, -0.05, 0.73, 0.76, power=3)
    canvas.paint(np.clip(wall_HW, 0, 1) * ribs_HW, 0.95)
    _heart(canvas, organ, 0.56, 0.02)
    _vertebrae(canvas, 0.9, bottom=0.1, opacity=0.8)
    canvas.paint(canvas.ellipse(-0.4, 0.95, 0.45, 0.4), 0.6)
    canvas.paint(canvas.ellipse(0.5, 0.95, 0.28, 0.33), 0.54)


def _xray_head(canvas: Canvas, organ: float) -> None:
    canvas.paint(canvas.ellipse(0, 0.1, 0.74, 0.9, softness=0.06, power=2.3), 0.4)
    canvas.paint(canvas.ellipse(0, 0.75, 0.42, 0.3, softness=0.06, power=3), 0.55)
    canvas.paint(canvas.ellipse(0, -0.1, 0.7, 0.76, softness=0.04), 0.8)
    canvas.paint(canvas.ellipse(0, -0.1, 0.61, 0.67, softness=0.1), 0.52)
    for side in (-1, 1):
        orbit_HW = canvas.ellipse(side * 0.27, 0.2, 0.18 * organ, 0.14 * organ, softness=0.05)
        canvas.paint(orbit_HW, 0.36)
        canvas.add(canvas.ellipse(side * 0.27, 0.06, 0.22, 0.04, softness=0.04), 0.15)
    canvas.paint(canvas.ellipse(0, 0.4, 0.09, 0.16, softness=0.05), 0.28)
    teeth_HW = canvas.edge(np.cos(canvas.x_HW * np.float32(2 * np.pi / 0.11)) * 0.05 - 0.01)
    canvas.paint(canvas.ellipse(0, 0.72, 0.28, 0.09, softness=0.04) * teeth_HW, 0.9)


def _ct_head(canvas: Canvas, organ: float) -> None:
    canvas.paint(canvas.ellipse(0, 0.02, 0.82, 0.92, power=2.2), 0.3)
    canvas.paint(canvas.ellipse(0, 0.02, 0.76, 0.86), 1.0)
    canvas.paint(canvas.ellipse(0, 0.02, 0.66, 0.77), 0.46 + 0.02 * canvas.clouds(9))
    canvas.add(canvas.edge(np.abs(canvas.x_HW) - 0.012) * canvas.ellipse(0, -0.4, 0.1, 0.34), 0.14)
    _ventricles(canvas, organ, 0.2)


def _mr_head(canvas: Canvas, organ: float) -> None:
    canvas.paint(canvas.ellipse(0, 0.02, 0.82, 0.92, power=2.2), 0.85)
    canvas.paint(canvas.ellipse(0, 0.02, 0.75, 0.86), 0.05)
    brain_HW = canvas.ellipse(0, 0.02, 0.67, 0.78)
    canvas.paint(brain_HW, 0.34)
    folds_HW = np.sqrt(canvas.x_HW**2 + (0.86 * canvas.y_HW) ** 2) + 0.06 * canvas.clouds(12)
    canvas.paint(canvas.edge(folds_HW - 0.5, 0.04), 0.52)
    canvas.paint(
        canvas.edge(np.abs(canvas.x_HW + 0.01 * canvas.clouds(8)) - 0.02) * canvas.ellipse(0, -0.4, 0.1, 0.36), 0.15
    )
    _ventricles(canvas, organ, 0.12)


def _ventricles(canvas: Canvas, organ: float, grey: float) -> None:
    for side in (-1, 1):
        canvas.paint(canvas.ellipse(side * 0.1, -0.06, 0.05 * organ, 0.17 * organ, angle=side * -0.45), grey)
    canvas.paint(canvas.ellipse(0, 0.16, 0.025, 0.09), grey)


def _xray_abdomen(canvas: Canvas, organ: float) -> None:
    canvas.paint(canvas.ellipse(0, 0, 0.86, 1.5, softness=0.08, power=4), 0.42)
    gas_HW = np.clip(canvas.clouds(7) - 0.7, 0, 0.6) * canvas.ellipse(0, 0.1, 0.65, 0.6, softness=0.1)
    canvas.add(gas_HW, -0.3)
    canvas.add(canvas.ellipse(-0.42, -0.5, 0.4 * organ, 0.36 * organ, softness=0.12), 0.09)
    for side in (-1, 1):
        canvas.add(canvas.ellipse(side * 0.5, 0.78, 0.34, 0.26, angle=side * -0.6, softness=0.08), 0.22)
    _vertebrae(canvas, 0.85, opacity=0.8)


def _ct_abdomen(canvas: Canvas, organ: float) -> None:
    canvas.paint(canvas.ellipse(0, 0, 0.92, 1.4, power=4), 0.22)
    canvas.paint(canvas.ellipse(0, 0, 0.82, 1.35, power=4), 0.42 + 0.03 * canvas.clouds(10))
    _abdominal_organs(canvas, organ, liver=0.6, spleen=0.62, kidney=0.74, bowel=0.3)
    _vertebrae(canvas, 1.0, opacity=0.9)


def _mr_abdomen(canvas: Canvas, organ: float) -> None:
    canvas.paint(canvas.ellipse(0, 0, 0.92, 1.4, power=4), 0.9)
    canvas.paint(canvas.ellipse(0, 0, 0.82, 1.35, power=4), 0.3 + 0.04 * canvas.clouds(10))
    _abdominal_organs(canvas, organ, liver=0.46, spleen=0.56, kidney=0.66, bowel=0.55)
    _vertebrae(canvas, 0.5, opacity=0.9)


def _abdominal_organs(
    canvas: Canvas, organ: float, *, liver: float, spleen: float, kidney: float, bowel: float
) -> None:
    canvas.paint(canvas.ellipse(-0.4, -0.5, 0.42 * organ, 0.4 * organ, angle=0.3), liver)
    canvas.paint(canvas.ellipse(0.55, -0.5, 0.2 * organ, 0.27 * organ, angle=-0.2), spleen)
    for side in (-1, 1):
        canvas.paint(canvas.ellipse(side * 0.28, 0.08, 0.11 * organ, 0.22 * organ, angle=side * -0.25), kidney)
    loops_HW = np.clip(canvas.clouds(9) - 0.2, 0, 0.5) * canvas.ellipse(0, 0.65, 0.68, 0.35, softness=0.06)
    canvas.paint(loops_HW, bowel)


_ANATOMY = {
    ("xray", "chest"): _xray_chest,
    ("xray", "head"): _xray_head,
    ("xray", "abdomen"): _xray_abdomen,
    ("ct", "chest"): _ct_chest,
    ("ct", "head"): _ct_head,
    ("ct", "abdomen"): _ct_abdomen,
    ("mr", "head"): _mr_head,
    ("mr", "abdomen"): _mr_abdomen,
}
