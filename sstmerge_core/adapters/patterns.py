"""Which pattern of an adapter's settings matches a module's name, in bounded time whatever the patterns are.

PEFT matches them with Python's `re` (``get_pattern_key``: ``(.*\\.)?(pattern)$``), which takes exponential time for
some. Here plain names are looked up, and all ways through another pattern are followed at once, as sets of places in
the name (Thompson 1968, Regular expression search algorithm). The answers are those of `re`.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

LONGEST = 20_000
"""Characters of a pattern that is no plain name"""
WORK = 5_000_000
"""Places looked at for one adapter, a few seconds; 20 patterns and 560 modules need about a thirtieth"""
_PLAIN = re.compile(r"(?:[A-Za-z0-9_.-]|\\[._-])+")

Places = frozenset[int]
Step = Callable[["_Name", Places], Places]
"""From places in a name to those after what it matches"""


class UnusablePattern(ValueError):
    """A pattern that is no regular expression, or one that is not read here; the text says which and why."""


@dataclass
class _Name:
    """A module's name that patterns are tried on."""

    text: str
    patterns: Patterns

    def spend(self, places: Places) -> None:
        self.patterns.work -= 1 + len(places)
        if self.patterns.work < 0:
            raise UnusablePattern("takes too long to match")


@dataclass
class Patterns:
    """Values by pattern. Raises UnusablePattern when made, or when what it is asked takes more than `WORK`."""

    values: Mapping[str, Any]
    work: int = WORK
    _order: dict[str, int] = field(default_factory=dict)
    _names: dict[tuple[int, tuple[int, ...]], dict[str, str]] = field(default_factory=dict)
    """Plain names by length and where their unescaped dots are, which stand for any character"""
    _others: dict[str, Step] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number, pattern in enumerate(self.values):
            self._order[pattern] = number
            if _PLAIN.fullmatch(pattern):
                text, dots = _plain(pattern)
                self._names.setdefault((len(text), dots), {}).setdefault(text, pattern)
            else:
                self._others[pattern] = _compiled(pattern)

    def value(self, module: str, default: Any) -> Any:
        """The value of the first pattern that matches the whole name or its end after a dot."""
        if not self.values:
            return default
        found = self._among_names(module) + self._among_others(module)
        return self.values[min(found, key=self._order.__getitem__)] if found else default

    def _among_names(self, module: str) -> list[str]:
        found = []
        starts = {len(module) - start: start for start in _starts(module)}
        for (length, dots), names in self._names.items():
            if length in starts:
                end = list(module[starts[length] :])
                for place in dots:
                    end[place] = "."
                if (pattern := names.get("".join(end))) is not None:
                    found.append(pattern)
        return found

    def _among_others(self, module: str) -> list[str]:
        name, starts = _Name(module, self), frozenset(_starts(module))
        for pattern, step in self._others.items():
            try:
                if len(module) in step(name, starts):
                    return [pattern]
            except UnusablePattern as error:
                raise UnusablePattern(f"{pattern[:60]} {error}") from None
        return []


def whole(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that `pattern` matches from beginning to end (PEFT's `target_modules`). Raises UnusablePattern."""
    budget, step = Patterns({}), _compiled(pattern)
    start = frozenset({0})
    return [name for name in names if len(name) in step(_Name(name, budget), start)]


def plain(pattern: object) -> None:
    """Raises UnusablePattern where `pattern` is more than a name."""
    if not isinstance(pattern, str) or not _PLAIN.fullmatch(pattern):
        raise UnusablePattern(f"{str(pattern)[:60]} is more than a name")


def _starts(module: str) -> list[int]:
    """Where the name and its ends after a dot begin."""
    return [0, *(place + 1 for place, char in enumerate(module) if char == ".")]


def _plain(pattern: str) -> tuple[str, tuple[int, ...]]:
    """A plain name without its backslashes, and where it has dots that stand for any character."""
    text, dots = "", []
    chars = iter(pattern)
    for char in chars:
        if char == ".":
            dots.append(len(text))
        text += next(chars) if char == "\\" else char
    return text, tuple(dots)


def _compiled(pattern: str) -> Step:
    about = pattern[:60] + "…" * (len(pattern) > 60)
    if len(pattern) > LONGEST:
        raise UnusablePattern(f"{about} has {len(pattern):,} characters, too many for a pattern")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what `re` will read in another way one day
            re.compile(rf"(.*\.)?({pattern})$")  # as PEFT does: what it cannot read is no pattern
            return _sequence(importlib.import_module("re._parser").parse(pattern))
    except UnusablePattern as error:
        raise UnusablePattern(f"{about} {error}") from None
    except re.error as error:
        raise UnusablePattern(f"{about} is no regular expression ({error})") from None
    except (RecursionError, OverflowError, MemoryError):
        raise UnusablePattern(f"{about} is nested too deeply for a pattern") from None


def _sequence(nodes: Iterable[Any]) -> Step:
    steps = [_node(str(kind), value) for kind, value in nodes]

    def follow(name: _Name, places: Places) -> Places:
        for step in steps:
            if not places:
                break
            name.spend(places)
            places = step(name, places)
        return places

    return follow


def _node(kind: str, value: Any) -> Step:
    """One part of a parsed pattern, by the names of `re`'s own parser."""
    if kind == "BRANCH":
        ways = [_sequence(way) for way in value[1]]
        return lambda name, places: frozenset().union(*(way(name, places) for way in ways))
    if kind == "SUBPATTERN":
        _, on, off, inner = value
        if on or off:
            raise UnusablePattern("changes flags, which is not read here")
        return _sequence(inner)
    if kind in ("MAX_REPEAT", "MIN_REPEAT"):
        return _repeated(*value)
    if kind == "AT":
        return _at(str(value))
    if kind in ("ASSERT", "ASSERT_NOT") and value[0] == 1:
        inside, wanted = _sequence(value[1]), kind == "ASSERT"
        return lambda name, places: frozenset(
            place for place in places if bool(inside(name, frozenset({place}))) == wanted
        )
    fits = _char(kind, value)
    return lambda name, places: frozenset(
        place + 1 for place in places if place < len(name.text) and fits(name.text[place])
    )


def _repeated(least: int, most: Any, inner: Iterable[Any]) -> Step:
    step = _sequence(inner)

    def follow(name: _Name, places: Places) -> Places:
        # after more rounds than the name has places nothing changes: places die out, or nothing new comes in
        rounds = len(name.text) + 1
        for _ in range(min(least, rounds)):
            places = step(name, places)
        reached = new = places
        for _ in range(min(int(most) - least, rounds)):
            new = step(name, new) - reached
            if not new:
                break
            reached |= new
        return reached

    return follow


def _at(where: str) -> Step:
    if where in ("AT_BEGINNING", "AT_BEGINNING_STRING"):
        return lambda name, places: places & {0}
    if where in ("AT_END", "AT_END_STRING"):
        return lambda name, places: places & {len(name.text)}
    if where in ("AT_BOUNDARY", "AT_NON_BOUNDARY"):
        wanted = where == "AT_BOUNDARY"
        return lambda name, places: frozenset(place for place in places if _is_boundary(name.text, place) == wanted)
    raise UnusablePattern(f"uses {where}, which is not read here")


def _is_boundary(name: str, place: int) -> bool:
    before = place > 0 and _CATEGORIES["WORD"](name[place - 1])
    after = place < len(name) and _CATEGORIES["WORD"](name[place])
    return before != after


_CATEGORIES: dict[str, Callable[[str], bool]] = {
    "DIGIT": str.isdecimal,
    "SPACE": str.isspace,
    "WORD": lambda char: char.isalnum() or char == "_",
}


def _char(kind: str, value: Any) -> Callable[[str], bool]:
    """What one character has to be."""
    if kind == "ANY":
        return lambda char: char != "\n"
    if kind == "LITERAL":
        return chr(value).__eq__
    if kind == "NOT_LITERAL":
        return chr(value).__ne__
    if kind == "IN":
        wanted = not (value and str(value[0][0]) == "NEGATE")
        tests = [_char(str(part), inner) for part, inner in value if str(part) != "NEGATE"]
        return lambda char: any(test(char) for test in tests) == wanted
    if kind == "RANGE":
        low, high = value
        return lambda char: low <= ord(char) <= high
    if kind == "CATEGORY":
        named = str(value).removeprefix("CATEGORY_")
        if test := _CATEGORIES.get(named.removeprefix("NOT_")):
            return (lambda char: not test(char)) if named.startswith("NOT_") else test
    raise UnusablePattern(f"uses {kind.lower().replace('_', ' ')}, which is not read here")
