"""One colour, marker symbol and dash per method, the same in every picture.

The colours of the shipped methods stay apart under simulated protanopia, deuteranopia and tritanopia (a test measures
it) and are readable on the light and on the dark background; symbol and dash say the method a second time. Methods
beyond those eight share a colour with their nearest relative and differ from it in symbol and dash.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from sstmerge_core import methods
from sstmerge_core.errors import RecipeError

VERMILION, ORANGE, PINK, PURPLE = "#D55E00", "#E39A00", "#CC79A7", "#7459F2"
BLUE, SKY, GREEN, BROWN = "#0072B2", "#4FB0E6", "#009E73", "#96674A"
NEUTRAL = "#8A919C"
"""For what is not a method: fronts, reference points, guides. 3:1 on both backgrounds."""

LEGEND = {
    "orientation": "h",
    "yref": "container",
    "y": 0,
    "yanchor": "bottom",
    "x": 0,
    "xanchor": "left",
    "title": None,
    "itemsizing": "constant",
    "maxheight": 0.3,
}
"""Below the picture, where it leaves the data the whole width of a telephone; a longer one scrolls."""
DIVERGING = ((0.0, BLUE), (0.5, "#D5D9DF"), (1.0, VERMILION))
GOOD_TO_BAD = ((0.0, SKY), (0.5, PURPLE), (1.0, VERMILION))
"""For points: no end fades into the light or the dark background, and no kind of sight mixes the ends up."""
SEQUENTIAL = ((0.0, "#E4E8EE"), (0.5, "#5E9BC7"), (1.0, "#0B3C66"))


@dataclass(frozen=True)
class MethodStyle:
    color: str
    symbol: str
    dash: str
    title: str


_STYLES = {
    "sst_gevp": (VERMILION, "diamond", "solid"),
    "sst_soft": (ORANGE, "star", "dash"),
    "sst_shield": (PINK, "hexagon", "longdash"),
    "sst_diag": (PURPLE, "diamond-tall", "dash"),
    "sst_datafree": (PURPLE, "diamond-wide", "dot"),
    "sst_budget": (VERMILION, "star-diamond", "dot"),
    "sst_reported": (PURPLE, "pentagon", "longdashdot"),
    "linear": (BLUE, "circle", "solid"),
    "task_arithmetic": (SKY, "square", "dash"),
    "average": (BLUE, "triangle-down", "dashdot"),
    "slerp": (BLUE, "triangle-right", "dash"),
    "model_stock": (SKY, "hexagon2", "dot"),
    "fisher": (SKY, "bowtie", "dashdot"),
    "base_interpolation": (BLUE, "star-square", "dot"),
    "base_slerp": (SKY, "star-square", "longdash"),
    "ties": (GREEN, "triangle-up", "dot"),
    "dare_linear": (BROWN, "cross", "dashdot"),
    "dare_ties": (BROWN, "triangle-down", "longdash"),
    "della": (GREEN, "triangle-left", "longdash"),
    "safe_lora": (PINK, "hourglass", "dot"),
    "safemerge": (PINK, "hexagram", "dashdot"),
    "alignguard": (ORANGE, "octagon", "dashdot"),
    "led_merging": (PINK, "star-square", "dash"),
    "adapter": (NEUTRAL, "x", "dot"),
    "fine_tuned": (NEUTRAL, "star-triangle-up", "dot"),
    "base": (NEUTRAL, "circle-cross", "dot"),
}
"""In the order of a legend: the SST family, averages, sparse methods, safety-aware ones, reference points"""

_TITLES = {
    "sst_reported": "SST-Merge as published",
    "fine_tuned": "Fine-tuned model",
    "slerp": "SLERP",
    "model_stock": "Model Stock",
    "dare_ties": "DARE + TIES",
}

_SPARE_COLORS = (BLUE, ORANGE, GREEN, PINK, BROWN, SKY)
_SPARE_SYMBOLS = ("triangle-ne", "triangle-se", "triangle-sw", "triangle-nw", "star-triangle-down", "circle-x")


def style(method: str) -> MethodStyle:
    """The style of `method`; one that nobody has drawn before gets a spare one, always the same."""
    title = _title(method)
    if method in _STYLES:
        return MethodStyle(*_STYLES[method], title)
    number = zlib.crc32(method.encode())
    symbol = _SPARE_SYMBOLS[number // len(_SPARE_COLORS) % len(_SPARE_SYMBOLS)]
    return MethodStyle(_SPARE_COLORS[number % len(_SPARE_COLORS)], symbol, "longdashdot", title)


def known() -> list[str]:
    """The methods that have a style of their own."""
    return list(_STYLES)


def order(method: str) -> tuple[int, str]:
    """Sort key: methods as listed above, reference points last, everything else in between by name."""
    names = list(_STYLES)
    return (names.index(method) if method in _STYLES else names.index("adapter"), method)


def marker_symbol(method: str, source: str) -> str:
    """Reported figures are hollow."""
    symbol = style(method).symbol
    return f"{symbol}-open" if source == "reported" else symbol


def faded(color: str, opacity: float) -> str:
    """`color` (``#RRGGBB``) as ``rgba(…)`` with `opacity` 0–1."""
    red, green, blue = (int(color[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def _title(method: str) -> str:
    if method in _TITLES:
        return _TITLES[method]
    try:
        return methods.get(method).title
    except RecipeError:
        return method.replace("_", " ").capitalize()
