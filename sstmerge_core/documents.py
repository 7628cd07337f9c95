"""The one reader of JSON and YAML from elsewhere: uploads, links, adapters' own files, event lines, models' answers.

A text is looked at before it is parsed, so that none can end the process or use up its memory: libyaml composes by
recursion in C without a limit (25,000 brackets overflow its stack and kill the server), a few hundred aliases or merge
keys stand for billions of nodes, and Python's own parser gives up at its recursion limit with an error that nobody
expects. `FormatError` is a ValueError, as `json.JSONDecodeError` is.
"""

from __future__ import annotations

import json
import re
import stat
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

DEPTH = 64
"""Lists and objects within each other at most; what this program writes has 10 levels"""
LARGEST = 64_000_000
"""Characters of a text at most"""
NODES = 100_000
"""Scalars, lists and mappings of a YAML text at most: some 2 s of PyYAML's time"""
ALIASED = 20_000
"""Nodes at most that aliases stand for"""
DIGITS = 308
"""Of a whole number at most: a longer one is no floating-point number, nor meant"""

_BRACKETS_ONLY = re.compile(r'"(?:[^"\\]++|\\.?)*+"?|[^\[\]{}"]++', re.DOTALL)
"""What is no bracket outside a string; possessive, so that its time is linear in the text"""
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_NUMBER = re.compile(r"[-+]?(0b[01_]+|0x[\da-fA-F_]+|[\d_]+((:[0-5]?\d)+(\.[\d_]*)?)?)\Z")
"""A YAML scalar that becomes a whole number, or one in base 60, for which PyYAML's time is quadratic"""


class FormatError(ValueError):
    """A text that is not what it should be, or beyond the limits; says what is wrong as a sentence without its stop."""


def from_json(text: str | bytes, *, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """The value of a JSON text (bytes: UTF-8). Raises FormatError for all that `json.loads` may raise, and too much."""
    told = _text(text)
    look_at_json(told)
    try:
        return json.loads(told, parse_constant=parse_constant, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise FormatError(f"is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None


def look_at_json(text: str) -> None:
    """For readers that parse a JSON text in their own way: raises FormatError where it is nested too deeply."""
    if text.count("[") + text.count("{") > DEPTH:
        depth = 0
        for bracket in _BRACKETS_ONLY.sub("", text):
            depth += 1 if bracket in "[{" else -1
            if depth > DEPTH:
                raise FormatError(_too_deep())


def from_yaml(text: str | bytes) -> Any:
    """The value of a YAML text of one document (bytes: UTF-8), by its safe types. Raises FormatError."""
    import yaml

    told = _text(text)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        look_at_yaml(yaml.parse(told, Loader=loader))
        value = yaml.load(told, loader)
    except FormatError:
        raise
    except yaml.YAMLError as error:
        raise FormatError(f"is not YAML: {_short(error, 300)}") from None
    except Exception as error:  # of its constructors: !!timestamp and !!int of anything end in errors of every kind
        raise FormatError(f"is not YAML: {type(error).__name__} ({_short(error, 160)})") from None
    if any(isinstance(one, int) and abs(one) >= 10**DIGITS for one in _scalars(value)):
        raise FormatError(_too_long())
    return value


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises FormatError, also where there is no such file or it cannot be read."""
    return from_json(read_text(path))


def read_yaml(path: Path) -> Any:
    """The value of a YAML file. Raises FormatError, also where there is no such file or it cannot be read."""
    return from_yaml(read_text(path))


def from_toml(text: str | bytes) -> dict[str, Any]:
    """The value of a TOML text (bytes: UTF-8). Raises FormatError, also for what ends its parser otherwise."""
    told = _text(text)
    try:
        look_at_json(told)  # its lists and inline tables are opened and closed by the same brackets
        return tomllib.loads(told)
    except FormatError:
        raise
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a ValueError of Python's own
        raise FormatError(f"is not TOML: {_short(error, 160)}") from None


def read_text(path: Path) -> str:
    """The UTF-8 text of a regular file of at most `LARGEST` bytes. Raises FormatError, never waits for a pipe."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise FormatError("is not a file")
        if found.st_size > LARGEST:
            raise FormatError(_too_large(found.st_size))
        data = path.read_bytes()
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # a NUL in the path; FormatError is one too
        raise error if isinstance(error, FormatError) else FormatError(f"cannot be read: {error}") from None
    return _text(data)


def _text(text: str | bytes) -> str:
    if len(text) > LARGEST:
        raise FormatError(_too_large(len(text)))
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise FormatError("is not UTF-8 text") from None


def look_at_yaml(events: Iterator[Any]) -> None:
    """Go through a YAML text's events, which takes no recursion. Raises FormatError beyond a limit."""
    import yaml

    nodes = aliased = 0
    open_nodes: list[tuple[str | None, int, int]] = []  # anchor, nodes before it, height of what is in it so far
    known: dict[str, tuple[int, int] | None] = {}  # anchor → nodes and height; None: not yet at its end

    def note(height: int) -> None:
        """That what is open now holds something of this height."""
        if len(open_nodes) + height > DEPTH:
            raise FormatError(_too_deep())
        if open_nodes and open_nodes[-1][2] < height + 1:
            open_nodes[-1] = (*open_nodes[-1][:2], height + 1)

    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            nodes += 1
            open_nodes.append((event.anchor, nodes + aliased, 1))
            if event.anchor:
                known[event.anchor] = None
            if len(open_nodes) > DEPTH:
                raise FormatError(_too_deep())
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before, height = open_nodes.pop()
            if anchor:
                known[anchor] = nodes + aliased - before + 1, height
            note(height)
        elif isinstance(event, yaml.AliasEvent):
            size, height = _alias(known, event.anchor)
            aliased += size
            note(height)
        elif isinstance(event, yaml.ScalarEvent):
            nodes += 1
            if event.anchor:
                known[event.anchor] = 1, 0
            if (
                len(event.value) > DIGITS
                and (event.implicit[0] or event.tag in _NUMBERS)
                and _NUMBER.match(event.value)
            ):
                raise FormatError(_too_long())
        if nodes > NODES:
            raise FormatError(f"has more than {NODES:,} values, which is too much for YAML; give it as JSON Lines")
        if aliased > ALIASED:
            raise FormatError(f"has aliases that stand for more than {ALIASED:,} values")


def _alias(known: dict[str, tuple[int, int] | None], anchor: str) -> tuple[int, int]:
    if anchor not in known:
        return 1, 0  # the parser says what is wrong with it
    found = known[anchor]
    if found is None:
        raise FormatError(f"has an alias *{anchor} within what it stands for")
    return found


def _whole(digits: str) -> int:
    if len(digits.lstrip("-")) > DIGITS:
        raise FormatError(_too_long())
    return int(digits)


def _scalars(value: Any) -> Iterator[Any]:
    """Every key and value that is no list or mapping; `value` is at most `DEPTH` deep."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield key
            yield from _scalars(one)
    elif isinstance(value, (list, tuple, set)):
        for one in value:
            yield from _scalars(one)
    else:
        yield value


def _short(error: Exception, most: int) -> str:
    """What a library said, on one line; it may repeat the whole text."""
    line = " ".join(str(error).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _too_deep() -> str:
    return f"has more than {DEPTH} lists and objects within each other"


def _too_long() -> str:
    return f"has a whole number of more than {DIGITS} digits"


def _too_large(size: int) -> str:
    return f"has {size / 1e6:,.0f} MB, more than the {LARGEST / 1e6:,.0f} MB that are read of such a file"
