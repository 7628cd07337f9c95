"""One hostile or odd input and what is expected of it, and the ways in which that may end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sstmerge_core.errors import SSTMergeError

Expected = Literal["right", "refused in words", "either"]
RIGHT: Expected = "right"
REFUSED: Expected = "refused in words"
EITHER: Expected = "either"
FAULTS = (
    "wrong result",
    "wrongly accepted",
    "wrongly refused",
    "in no words",
    "beyond the bounds",
    "hung",
    "got through",
)
"""What must not be: another value than the right one, a faulty input taken, a usable one refused, an error that is not
of `sstmerge_core.errors` or does not say file, fault and fix, more time or memory than allowed, an attack's gain"""
LONGEST = 4_000
"""Characters of an error"""


@dataclass(frozen=True)
class Case:
    """An input. `tried` gets an empty folder, reads the input and says whether what came of it is right."""

    name: str
    expected: Expected
    tried: Callable[[Path], bool]


@dataclass(frozen=True)
class Outcome:
    name: str
    how: str
    """``right``, ``refused in words`` or one of `FAULTS`"""
    told: str = ""
    """What was said, or what is wrong"""
    seconds: float = 0.0
    bytes: int = 0

    @property
    def is_fault(self) -> bool:
        return self.how in FAULTS

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def outcome(case: Case, folder: Path) -> Outcome:
    """What came of one input, without the bounds."""
    try:
        right = case.tried(folder)
    except GotThrough as error:
        return Outcome(case.name, "got through", str(error))
    except SSTMergeError as error:
        if fault := badly_told(error):
            return Outcome(case.name, "in no words", fault)
        how = "wrongly refused" if case.expected == RIGHT else REFUSED
        return Outcome(case.name, how, str(error)[:400])
    except Exception as error:  # whatever it is, nobody expected it
        return Outcome(case.name, "in no words", f"{type(error).__name__}: {error}"[:400])
    if case.expected == REFUSED:
        return Outcome(case.name, "wrongly accepted")
    return Outcome(case.name, RIGHT if right else "wrong result")


class GotThrough(Exception):
    """An attack reached what it must not; says what."""


def badly_told(error: SSTMergeError) -> str:
    """What is wrong with how an error is told; empty where each problem names place, fault and fix in one line."""
    if not error.problems:
        return "an error without a problem"
    for problem in error.problems:
        if not problem.where or not problem.fault:
            return f"a problem without its place or fault: {problem!r}"
        if not problem.fix and len(error.problems) == 1:
            return f"a problem without a fix: {problem}"
        line = str(problem)
        if len(line.splitlines()) > 1 or len(line) > LONGEST:
            return f"not one line, or an endless one ({len(line):,} characters): {line[:200]!r}"
        if any(char in line for char in "\x1b\x07\x08\x00\x9b"):
            return f"a control character in it: {line[:200]!r}"
        try:
            line.encode()
        except UnicodeEncodeError:
            return f"cannot be printed: {line[:200]!r}"
    return ""
