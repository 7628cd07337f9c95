"""Colours that stay apart under simulated protanopia, deuteranopia and tritanopia, on light and on dark."""

from __future__ import annotations

VERMILION, ORANGE, PINK, PURPLE = "#D55E00", "#E39A00", "#CC79A7", "#7459F2"
BLUE, SKY, GREEN, BROWN = "#0072B2", "#4FB0E6", "#009E73", "#96674A"

OF_FAMILY = {
    "SST-Merge": (VERMILION, PURPLE, ORANGE, PINK),
    "Averaging": (BLUE, SKY),
    "Sparse": (GREEN, BROWN),
    "Subspace": (BROWN, PURPLE),
    "Safety-aware": (PINK, ORANGE),
}
"""Of a method that names none: one of its family's, shared with a relative that has another marker and dash"""
