"""The rows that a training learns and those that only measure it. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sstmerge_core.errors import DataError, Problem
from sstmerge_core.suites.columns import Columns
from sstmerge_core.suites.guess import guess_columns, lacks_response
from sstmerge_core.suites.prepare import assign, normalised
from sstmerge_core.suites.rows import load_rows
from sstmerge_core.suites.rows import splits as splits_of

Pair = tuple[str, str]
"""Prompt and response"""
SHOWN = 10
"""Problems of one file named at most."""


@dataclass(frozen=True)
class TrainingData:
    """What a training learns, and the rows held out to measure it."""

    rows: list[Pair]
    validation: list[Pair]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(json.dumps([self.rows, self.validation], ensure_ascii=False).encode()).hexdigest()


def read(
    files: Sequence[str | Path],
    split: str | None = None,
    *,
    validation_split: str | None = None,
    share: float = 0.0,
    columns: Columns | None = None,
) -> TrainingData:
    """The prompt–response pairs of JSONL, JSON, CSV, Parquet or YAML files, in file order, as `suites` reads them.

    Taken are the rows of `split`, or all. Held out for validation are the rows of `validation_split`, or a `share` of
    the prompts by a stable hash: which ones does not depend on the other rows, and a prompt is never on both sides.
    Raises DataError with every unusable row (the first ten of each file), and where either side is empty.
    """
    if validation_split is not None and validation_split == split:
        fault = f"the split {split!r} is both learnt and held out"
        raise DataError(Problem("validation rows", fault, "Name another split, or a share."))
    rows = [row for file in files for row in _pairs(Path(file), split, columns)]
    if validation_split is not None:
        held_out = [row for file in files for row in _pairs(Path(file), validation_split, columns)]
        held = {normalised(prompt) for prompt, _ in held_out}
        return TrainingData([row for row in rows if normalised(row[0]) not in held], held_out)
    if not share:
        return TrainingData(rows, [])
    if not 0 < share < 1:
        raise DataError(Problem("validation rows", f"a share of {share:g} cannot be held out", "Give 0 to below 1."))
    shares = {"validation": share, "train": 1 - share}
    sides: dict[str, list[Pair]] = {"validation": [], "train": []}
    for row in rows:
        sides[assign(normalised(row[0]), shares)].append(row)
    if not all(sides.values()):
        which = "held out" if not sides["validation"] else "learnt"
        fault = f"with a share of {share:g}, none of the {len(rows)} rows is {which}"
        raise DataError(Problem("validation rows", fault, "Give another share, or more rows."))
    return TrainingData(sides["train"], sides["validation"])


def splits(files: Iterable[str | Path], columns: Columns | None = None) -> list[str]:
    """The splits that the files name, in order of appearance; empty where they have none. Raises DataError."""
    return list(dict.fromkeys(name for file in files for name in splits_of(file, columns)))


def _pairs(path: Path, split: str | None, columns: Columns | None) -> list[Pair]:
    rows = load_rows(path, split, columns)
    lacking = [row for row in rows if not row.response.strip()]
    if lacking:
        found = guess_columns(path, columns)
        if found.columns is None or found.columns.response is None:  # one problem for the file, instead of one a row
            raise DataError(lacks_response(str(path), found))
        problems = [
            Problem(f"{path}: prompt {row.prompt[:60]!r}", "has no response to learn", "Fill it in, or remove the row.")
            for row in lacking[:SHOWN]
        ]
        if len(lacking) > SHOWN:
            problems.append(Problem(str(path), f"{len(lacking) - SHOWN} more rows have no response"))
        raise DataError(problems)
    return [(row.prompt, row.response) for row in rows]
