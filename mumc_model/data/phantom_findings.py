"""Findings, each kind with a look of its own, drawn into an anatomy; what a finding covers is its mask."""

import numpy as np

from mumc_model.data.phantom_canvas import Canvas, Plane
from mumc_model.data.phantom_cases import Case

_CENTRES = {"chest": (0.43, 0.32, -0.06), "head": (0.34, 0.32, -0.08), "abdomen": (0.42, 0.4, 0.0)}
"""Distance from the midline, distance up or down, and the height from which that counts, by organ."""
_RADII = {"small": 0.135, "large": 0.26}


def draw_finding(canvas: Canvas, case: Case, contrast: float) -> Plane:
    """Paint the finding; its coverage in [0, 1], in which the mask is what is at least half covered.

    Contrast multiplies the difference between the finding and what surrounds it.
    """
    rng = canvas.rng
    across, along, middle = _CENTRES[case.organ]
    x = (across + rng.uniform(-0.06, 0.06)) * (1 if case.side == "left" else -1)
    y = middle + (along + rng.uniform(-0.08, 0.08)) * (1 if case.place == "lower" else -1)
    radius = _RADII[case.size] * float(np.exp(rng.uniform(-0.12, 0.12)))
    return _FINDINGS[case.finding](canvas, x, y, radius, contrast * rng.uniform(0.85, 1.15))


def _mass(canvas: Canvas, x: float, y: float, radius: float, contrast: float) -> Plane:
    """Solid, light and about round, with a lobed, spiculated outline."""
    u_HW, v_HW = canvas.local(x, y)
    turn_HW = np.arctan2(v_HW, u_HW)
    lobes, phase = canvas.rng.integers(6, 10), canvas.rng.uniform(0, 6.3)
    outline_HW = 0.95 * radius * (1 + 0.06 * np.sin(lobes * turn_HW + np.float32(phase)))
    cover_HW = canvas.edge(np.hypot(u_HW, v_HW) - outline_HW, 0.03)
    canvas.paint(cover_HW, 0.88, min(1.0, 0.9 * contrast))
    return cover_HW


def _cyst(canvas: Canvas, x: float, y: float, radius: float, contrast: float) -> Plane:
    """Round, dark inside a thin light wall."""
    wall, radius = 0.05, 1.08 * radius
    aspect = canvas.rng.uniform(0.85, 1.15)
    cover_HW = canvas.ellipse(x, y, radius * aspect, radius / aspect)
    inside_HW = canvas.ellipse(x, y, radius * aspect - wall, radius / aspect - wall)
    canvas.paint(cover_HW, 0.85, min(1.0, 0.85 * contrast))
    canvas.paint(inside_HW, 0.04, min(1.0, 0.9 * contrast))
    return cover_HW


def _bleed(canvas: Canvas, x: float, y: float, radius: float, contrast: float) -> Plane:
    """Ragged, long and very light, in a dark halo of oedema."""
    angle = canvas.rng.uniform(-0.6, 0.6) + (0.5 * np.pi if canvas.rng.random() < 0.5 else 0)
    u_HW, v_HW = canvas.local(x, y, angle)
    ragged_HW = np.hypot(u_HW / 1.35, v_HW / 0.6) + 0.25 * radius * canvas.clouds(16)
    canvas.add(canvas.edge(ragged_HW - 1.45 * radius, 0.06), -0.2 * contrast)
    cover_HW = canvas.edge(ragged_HW - radius)
    canvas.add(cover_HW, 0.65 * contrast)
    return cover_HW


def _opacity(canvas: Canvas, x: float, y: float, radius: float, contrast: float) -> Plane:
    """A veil without an edge, patchy with soft light spots."""
    u_HW, v_HW = canvas.local(x, y)
    spread_HW = np.exp(-(((u_HW**2 + v_HW**2) / np.float32(1.3 * radius) ** 2) ** 2))
    spots = round(2.5 + 20 * radius)
    turns = (np.arange(spots) * 2.4 + canvas.rng.uniform(0, 6.3)).astype(np.float32)
    areas = (np.arange(spots) + canvas.rng.uniform(0.2, 0.8, spots)) / spots
    reaches = (1.25 * radius * np.sqrt(areas)).astype(np.float32)
    patches_HW = np.zeros_like(u_HW)
    for turn, reach in zip(turns, reaches, strict=True):
        distance_HW = (u_HW - reach * np.cos(turn)) ** 2 + (v_HW - reach * np.sin(turn)) ** 2
        patches_HW += np.exp(distance_HW * np.float32(-1 / (2 * 0.04**2)))
    canvas.add(0.14 * spread_HW + 0.45 * patches_HW, contrast)
    return spread_HW


def _effusion(canvas: Canvas, x: float, y: float, radius: float, contrast: float) -> Plane:
    """Fluid that has settled, flat above and round below, under a thin layer of air."""
    u_HW, v_HW = canvas.local(x, y, canvas.rng.uniform(-0.12, 0.12))
    cover_HW = canvas.edge(np.hypot(u_HW / 1.3, v_HW) - radius)
    level_HW = v_HW + 0.15 * radius
    fluid_HW = canvas.edge(-level_HW)
    canvas.paint(cover_HW * fluid_HW, 0.85, min(1.0, 0.85 * contrast))
    canvas.paint(cover_HW * (1 - fluid_HW), 0.08, min(1.0, 0.8 * contrast))
    return cover_HW


def _fracture(canvas: Canvas, x: float, y: float, radius: float, contrast: float) -> Plane:
    """A thin, jagged dark line between two light edges."""
    u_HW, v_HW = canvas.local(x, y, canvas.rng.uniform(0, np.pi))
    teeth_HW = 0.035 * (np.abs((u_HW / 0.13 + canvas.rng.uniform(0, 2)) % 2 - 1) - 0.5)
    reach_HW = canvas.edge(np.abs(u_HW) - 1.35 * radius, 0.03)
    gap_HW = np.abs(v_HW - teeth_HW)
    cover_HW = reach_HW * canvas.edge(gap_HW - 0.085)
    canvas.add(cover_HW, 0.25 * contrast)
    canvas.paint(reach_HW * canvas.edge(gap_HW - 0.026), 0.02, min(1.0, 0.9 * contrast))
    return cover_HW


_FINDINGS = {
    "mass": _mass,
    "cyst": _cyst,
    "bleed": _bleed,
    "opacity": _opacity,
    "effusion": _effusion,
    "fracture": _fracture,
}
