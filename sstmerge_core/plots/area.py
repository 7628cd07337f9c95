"""What a reader draws around points in a picture: a rectangle or a free line, as text for a link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CORNERS = 60
"""Of a lasso at most: more make the link long, and nobody draws that exactly"""


@dataclass(frozen=True)
class Box:
    """A rectangle in the units of the two axes, borders included."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    @classmethod
    def parse(cls, text: str) -> Box:
        """From ``0.1,0.5,0.2,0.9`` (x low, x high, y low, y high). Raises ValueError."""
        values = _numbers(text)
        if len(values) != 4:
            raise ValueError("a box is four numbers: x low, x high, y low, y high")
        return cls(*sorted(values[:2]), *sorted(values[2:]))

    def __str__(self) -> str:
        return ",".join(f"{value:.4g}" for value in (self.x_low, self.x_high, self.y_low, self.y_high))

    def contains(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
        return (x >= self.x_low) & (x <= self.x_high) & (y >= self.y_low) & (y <= self.y_high)

    @property
    def outline(self) -> str:
        """As an SVG path in the units of the axes."""
        return f"M{self.x_low},{self.y_low}H{self.x_high}V{self.y_high}H{self.x_low}Z"


@dataclass(frozen=True)
class Lasso:
    """A closed line through at least three corners, in the units of the two axes."""

    corners: tuple[tuple[float, float], ...]

    @classmethod
    def parse(cls, text: str) -> Lasso:
        """From ``x,y,x,y,x,y …``. Raises ValueError."""
        values = _numbers(text)
        if len(values) < 6 or len(values) % 2:
            raise ValueError("a lasso is at least three corners: x, y, x, y, x, y")
        return cls(tuple(zip(values[::2], values[1::2], strict=True)))

    @classmethod
    def through(cls, x: Sequence[float], y: Sequence[float]) -> Lasso:
        """The line that was drawn, with `CORNERS` corners at most. Raises ValueError for fewer than three."""
        kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), CORNERS)).astype(int))
        if len(kept) < 3:
            raise ValueError("a lasso is at least three corners")
        return cls(tuple((float(x[place]), float(y[place])) for place in kept))

    def __str__(self) -> str:
        return ",".join(f"{value:.4g}" for corner in self.corners for value in corner)

    def contains(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
        """By the even-odd rule: a ray from the point crosses the line an odd number of times."""
        inside = np.zeros(len(x), dtype=bool)
        for (x1, y1), (x2, y2) in zip(self.corners, (*self.corners[1:], self.corners[0]), strict=True):
            if y1 != y2:
                crossing = x1 + (y - y1) * (x2 - x1) / (y2 - y1)
                inside ^= ((y1 > y) != (y2 > y)) & (x < crossing)
        return inside

    @property
    def outline(self) -> str:
        return "M" + "L".join(f"{x},{y}" for x, y in self.corners) + "Z"


Area = Box | Lasso


def _numbers(text: str) -> list[float]:
    values = [float(part) for part in text.split(",")]
    if not np.isfinite(values).all():
        raise ValueError("every number must be finite")
    return values
