"""One colour, marker symbol and dash per method, the same in every picture.

The colours stay apart under simulated protanopia, deuteranopia and tritanopia (a test measures it) and are readable on
the light and on the dark background; symbol and dash say the method a second time. A method that names no look gets a
colour of its family, shared with a relative, and a symbol and dash that nobody of that colour has.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache
from itertools import product

from sstmerge_core import methods
from sstmerge_core.errors import RecipeError
from sstmerge_core.methods import Look, Method
from sstmerge_core.methods.palette import BLUE, OF_FAMILY, PURPLE, SKY, VERMILION

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


_POINTS = {
    "sst_reported": ("SST-Merge as published", Look(PURPLE, "pentagon", "longdashdot")),
    "adapter": ("Single adapter", Look(NEUTRAL, "x", "dot")),
    "fine_tuned": ("Fine-tuned model", Look(NEUTRAL, "star-triangle-up", "dot")),
    "base": ("Base model", Look(NEUTRAL, "circle-cross", "dot")),
}
"""What is drawn and is no merge method: a reported one, then reference points, which come last in a legend"""
_SYMBOLS = (
    "octagon",
    "star-triangle-down",
    "hourglass",
    "pentagon",
    "star-diamond",
    "star-triangle-up",
    "diamond-tall",
    "diamond-wide",
)
"""Solid and centred on their point: half a square (triangle-ne) stands beside it, and a cross within is not seen"""
_DASHES = ("longdashdot", "dash", "dot")


def style(method: str) -> MethodStyle:
    """The style of `method`; a name that no registered method has gets a spare one, always the same."""
    title, look = _POINTS[method] if method in _POINTS else _of_method(method)
    return MethodStyle(look.color, look.symbol, look.dash, title)


_FAMILY_SYMBOLS = dict(zip(methods.FAMILIES, ("diamond", "circle", "triangle-up", "square", "hexagon"), strict=True))


def family_style(method: str) -> MethodStyle:
    """The style of a method's family, where a picture tells no single methods apart; what is no merge keeps its own."""
    own = style(method)
    if method not in methods.names():
        return own
    family = methods.get(method).family
    return MethodStyle(OF_FAMILY[family][0], _FAMILY_SYMBOLS[family], own.dash, family)


def known() -> list[str]:
    """What has a style of its own, in the order of a legend: family by family, reference points last."""
    return [*methods.names(), *_POINTS]


def order(method: str) -> tuple[int, str]:
    """Sort key: `known` in its order, and what is unknown between the methods and the reference points, by name."""
    names = known()
    return (names.index(method) if method in names else names.index("adapter"), method)


def marker_symbol(method: str, source: str) -> str:
    """Reported figures are hollow."""
    symbol = style(method).symbol
    return f"{symbol}-open" if source == "reported" else symbol


def faded(color: str, opacity: float) -> str:
    """`color` (``#RRGGBB``) as ``rgba(…)`` with `opacity` 0–1."""
    red, green, blue = (int(color[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def _of_method(name: str) -> tuple[str, Look]:
    try:
        entry = methods.get(name)
    except RecipeError:
        return name.replace("_", " ").capitalize(), _spare(name, "")
    return entry.title, _looks()[name]


@cache
def _looks() -> dict[str, Look]:
    """Every method's look. Those that name none get theirs one after the other, in the order of their names."""
    found: dict[str, Look] = {entry.name: entry.look for entry in methods.methods() if entry.look}
    for entry in sorted((own for own in methods.methods() if not own.look), key=lambda own: own.name):
        found[entry.name] = _of_family(entry, {*found.values(), *(look for _, look in _POINTS.values())})
    return found


def _of_family(entry: Method, taken: set[Look]) -> Look:
    """A look of the method's family that nobody has, begun at a place of its own in the family's colours and symbols:
    a further method rarely moves it."""
    looks = [_spare(entry.name, entry.family, step) for step in range(len(OF_FAMILY[entry.family]) * len(_SYMBOLS))]
    marked = {(look.color, look.symbol) for look in taken}  # points have no dash
    return next((look for look in looks if (look.color, look.symbol) not in marked), looks[0])


def _spare(name: str, family: str, step: int = 0) -> Look:
    colors = OF_FAMILY.get(family) or tuple(color for own in OF_FAMILY.values() for color in own)
    choices = [(color, symbol) for symbol, color in product(_SYMBOLS, colors)]
    number = zlib.crc32(name.encode())
    color, symbol = choices[(number + step) % len(choices)]
    return Look(color, symbol, _DASHES[number // len(choices) % len(_DASHES)])
