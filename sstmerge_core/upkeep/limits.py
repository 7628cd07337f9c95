"""How much of each thing a workspace may hold before `sstmerge tidy` lists what is beyond, the oldest first.

``tidy.toml`` of the workspace says otherwise, a line each, such as ``cache = "50 GB"`` or ``jobs = 500``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path

from sstmerge_core import documents, words
from sstmerge_core.errors import DataError, Problem, disk_problem
from sstmerge_core.workspace import Workspace

NAME = "tidy.toml"
_UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True)
class Limits:
    """Defaults for a machine with some hundred GB; sizes in bytes."""

    cache: int = 20_000_000_000
    """Gradients, answers, fits, uploads, and what was fetched from the content store"""
    logs: int = 200_000_000
    """What the workers printed"""
    adapters: int = 50_000_000_000
    """Weights of merged adapters that recipes make again"""
    jobs: int = 2_000
    """Jobs that have ended, in the queue's list"""
    runs: int = 5_000
    """Runs in one folder; finished ones beyond move into a folder for each beginning of their ids"""

    def told(self, name: str) -> str:
        value = getattr(self, name)
        return f"{value:,}" if name in _COUNTS else words.size(value)


_COUNTS = ("jobs", "runs")


def file(workspace: Workspace) -> Path:
    return workspace.root / NAME


def read(workspace: Workspace) -> Limits:
    """The limits of a workspace. Raises DataError for a file that cannot be read, with the line at fault."""
    path = file(workspace)
    try:
        told = documents.from_toml(path.read_bytes())
    except FileNotFoundError:
        return Limits()
    except documents.FormatError as error:
        raise DataError(Problem(str(path), f"cannot be read ({error})", "Correct the file.")) from None
    except OSError as error:
        raise DataError(disk_problem(error, str(path)) or Problem(str(path), str(error))) from None
    known = [one.name for one in fields(Limits)]
    if strange := [name for name in told if name not in known]:
        raise DataError(Problem(f"{path}: {strange[0]}", "is no limit", f"Use {', '.join(known)}."))
    return Limits(**{name: _number(value, f"{path}: {name}", name) for name, value in told.items()})


def _number(value: object, where: str, name: str) -> int:
    units = "" if name in _COUNTS else "|".join(_UNITS)
    found = re.fullmatch(rf"\s*(\d{{1,30}}(?:\.\d{{1,30}})?)\s*({units})\s*", str(value))
    if found is None or isinstance(value, (bool, dict, list)):
        fix = "Write a whole number." if name in _COUNTS else 'Write bytes, or a text such as "20 GB".'
        raise DataError(Problem(where, f"{value!r} is no limit", fix))
    return int(float(found[1]) * _UNITS[found[2]])
