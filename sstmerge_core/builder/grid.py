"""Lists of parameter values as people type them: ``0.1, 0.3`` or ``0.1:1.0:0.1``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Literal, overload

from sstmerge_core.errors import Problem, RecipeError

MOST = 1_000
"""Values that one list may have; more is a slip of the hand."""


@overload
def numbers(text: str, *, where: str, whole: Literal[False] = False) -> list[float]: ...


@overload
def numbers(text: str, *, where: str, whole: Literal[True]) -> list[int]: ...


def numbers(text: str, *, where: str, whole: bool = False) -> list[float] | list[int]:
    """The values of `text`: numbers and ranges ``start:stop:step`` (stop included), separated by commas or spaces.

    Duplicates are dropped, the order is kept. Raises RecipeError with every part that is not usable.
    """
    found: list[float] = []
    problems = []
    for part in filter(None, re.split(r"[,;\s]+", text.strip())):
        try:
            found += _range(part) if ":" in part else [_finite(part)]
        except ValueError as error:
            problems.append(Problem(where, f"“{part}” {error}", "Write for example 0.1, 0.3 or 0.1:1.0:0.1."))
    if len(found) > MOST:
        problems.append(Problem(where, f"gives {len(found):,} values", f"Use at most {MOST:,}."))
    if whole:
        fractions = [value for value in found if value != int(value)]
        if fractions:
            problems.append(Problem(where, f"{fractions[0]:g} is not a whole number", "Use whole numbers."))
    if problems:
        raise RecipeError(problems)
    unique = list(dict.fromkeys(round(value, 10) for value in found))
    return [int(value) for value in unique] if whole else unique


def text(values: Sequence[float]) -> str:
    """The inverse of `numbers`, without ranges."""
    return ", ".join(f"{value:g}" for value in values)


def _finite(part: str) -> float:
    try:
        value = float(part)
    except ValueError:
        raise ValueError("is not a number") from None
    if not math.isfinite(value):
        raise ValueError("is not a finite number")
    return value


def _range(part: str) -> list[float]:
    ends = [_finite(piece) for piece in part.split(":")]
    if len(ends) != 3:
        raise ValueError("is not a range")
    start, stop, step = ends
    if step <= 0 or stop < start:
        raise ValueError("is an empty range")
    steps = math.floor((stop - start) / step + 1e-9)
    if steps > MOST:
        raise ValueError(f"has {steps + 1:,} values")
    return [start + step * index for index in range(steps + 1)]
