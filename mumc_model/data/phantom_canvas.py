"""Soft shapes and smooth noise on a square grey image.

Dimensions: H rows, W columns (H = W). x grows to the right of the image and y downwards, both from -1 to 1.
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.floating[Any]]


class Canvas:
    """A grey picture, built up by painting shapes over one another; 0 is black and 1 is white."""

    def __init__(self, size: int, rng: np.random.Generator):
        self.size, self.rng = size, rng
        axis = ((np.arange(size, dtype=np.float32) + 0.5) / size) * 2 - 1
        self.x_HW, self.y_HW = np.meshgrid(axis, axis)
        self.grey_HW = np.zeros((size, size), np.float32)

    def pose(self, *, shift: tuple[float, float], scale: tuple[float, float], angle: float) -> None:
        """Move the coordinates: what follows is drawn for a body so shifted, scaled and turned (radians)."""
        x_HW, y_HW = self.x_HW - np.float32(shift[0]), self.y_HW - np.float32(shift[1])
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        self.x_HW = (cos * x_HW + sin * y_HW) / np.float32(scale[0])
        self.y_HW = (cos * y_HW - sin * x_HW) / np.float32(scale[1])

    def edge(self, distance_HW: Plane, softness: float = 0.02) -> Plane:
        """Coverage in [0, 1] of the region where the distance is negative, blurred over the softness or a pixel."""
        width = np.float32(max(softness, 1 / self.size))
        coverage_HW: Plane = np.clip(0.5 - distance_HW / (2 * width), 0, 1)
        return coverage_HW

    def local(self, x: float, y: float, angle: float = 0.0) -> tuple[Plane, Plane]:
        """Coordinates about a point, turned by an angle in radians."""
        dx_HW, dy_HW = self.x_HW - np.float32(x), self.y_HW - np.float32(y)
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        return cos * dx_HW + sin * dy_HW, cos * dy_HW - sin * dx_HW

    def ellipse(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        *,
        angle: float = 0.0,
        softness: float = 0.02,
        power: float = 2.0,
    ) -> Plane:
        """Coverage of an ellipse; a power above 2 squares its corners."""
        u_HW, v_HW = self.local(x, y, angle)
        u_HW, v_HW = np.abs(u_HW) / np.float32(rx), np.abs(v_HW) / np.float32(ry)
        if power == 2.0:
            radius_HW = np.sqrt(u_HW * u_HW + v_HW * v_HW)
        else:
            radius_HW = (u_HW**power + v_HW**power) ** np.float32(1 / power)
        return self.edge((radius_HW - 1) * np.float32(min(rx, ry)), softness)

    def paint(self, coverage_HW: Plane, grey: float | Plane, opacity: float = 1.0) -> None:
        """Replace what is covered by a grey value or a texture."""
        self.grey_HW = self.grey_HW + coverage_HW * np.float32(opacity) * (grey - self.grey_HW)

    def add(self, coverage_HW: Plane, amount: float) -> None:
        """Lighten (or darken) what is covered, as things that lie behind one another do in a projection."""
        self.grey_HW = self.grey_HW + coverage_HW * np.float32(amount)

    def clouds(self, cells: int) -> Plane:
        """Smooth noise of unit variance at its knots, of about `cells` knots across the image."""
        weights = _interpolation(self.size, cells)
        knots = self.rng.standard_normal((cells, cells), dtype=np.float32)
        return weights @ knots @ weights.T


@cache
def _interpolation(size: int, cells: int) -> Plane:
    """Weights that stretch `cells` knots over `size` pixels, with a rounded (cosine) ramp between two knots."""
    position = np.linspace(0, cells - 1, size)
    below = np.minimum(position.astype(int), cells - 2)
    ramp = (1 - np.cos(np.pi * (position - below))) / 2
    weights = np.zeros((size, cells), np.float32)
    weights[np.arange(size), below] = 1 - ramp
    weights[np.arange(size), below + 1] = ramp
    return weights
