"""Prompt sets: read rows from a file, take some of them, and identify what was taken. Imports no torch."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from sstmerge_core.adapters.fingerprint import file_state, is_settled
from sstmerge_core.errors import DataError, Problem
from sstmerge_core.suites import guess as guesses
from sstmerge_core.suites.chats import RowFault
from sstmerge_core.suites.columns import Columns, at, part, value
from sstmerge_core.suites.guess import Guess, guess_columns
from sstmerge_core.suites.records import ABSENT, read_records
from sstmerge_core.words import count
from sstmerge_core.workspace import given_path

__all__ = ["Row", "guess_columns", "load_rows", "read_records", "read_rows", "rows_digest", "splits", "take"]

SHOWN = 10
"""Problems of one file named at most"""
KEPT_BYTES = 2 * 2**20
"""Rows of the 32 files last read are kept where a file is no larger: pages ask for the same ones at every click"""


@dataclass(frozen=True)
class Row:
    """One prompt and what a good answer to it is."""

    prompt_id: str
    topic: str
    """Rows of one topic never sit in two splits."""
    prompt: str
    response: str
    """Reference answer; empty where there is none."""
    twin_of: str = ""
    """Id of the harmful prompt that this harmless one looks like; empty where none is named"""
    split: str = field(default="", compare=False)
    """As its file has it; which split a row is in does not make it another one"""


def load_rows(path: Path | str, split: str | None = None, columns: Columns | None = None) -> list[Row]:
    """The rows of a file (see `read_rows`), in file order; those of `split` only, if given.

    Raises DataError as `read_rows` does, and where no row is of the split.
    """
    rows = read_rows(path, columns)
    found = rows if split is None else [row for row in rows if row.split == split]
    if not found:
        known = ", ".join(sorted({row.split for row in rows} - {""}))
        fix = f"Its splits: {known}." if known else _NO_SPLITS
        raise DataError(Problem(str(path), f"has no rows of split {split!r}", fix))
    return found


def read_rows(path: Path | str, columns: Columns | None = None, limit: int | None = None) -> list[Row]:
    """The first `limit` rows of a file (see `read_records`), or all, in file order.

    Without `columns`, or for what of them was not set, they are found out (`guess.guess_columns`): ``prompt`` and, if
    there, ``response``, ``topic``, ``split``, ``id`` (or ``prompt_id``) and ``twin_of`` in any case, chats, Alpaca;
    more are ignored. Without an id a row is known by the hash of its prompt, and by that and a number where the prompt
    comes again. Raises DataError: one problem where the columns are not known, otherwise one for each fault, with the
    first row that has it.
    """
    path = given_path(path)
    if columns is None and limit is None and path.is_file() and path.stat().st_size <= KEPT_BYTES and is_settled(path):
        return list(_kept(path, file_state(path)))
    return _read(path, columns, limit)


@lru_cache(maxsize=32)
def _kept(path: Path, _state: str) -> tuple[Row, ...]:
    return tuple(_read(path, None, None))


def _read(path: Path, columns: Columns | None, limit: int | None) -> list[Row]:
    rows: list[Row] = []
    for _, row in checked_rows(path, columns):
        rows.append(row)
        if len(rows) == limit:
            break
    if not rows:
        raise DataError(Problem(str(path), "has no rows", "Add rows with a prompt column."))
    return rows


def checked_rows(path: Path, columns: Columns | None = None) -> Iterator[tuple[str, Row]]:
    """(where, row) of every row of a file. Raises DataError at the end, for all rows that cannot be used."""
    faults: dict[tuple[str, str], list[str]] = {}
    seen: dict[str, str] = {}
    repeats: Counter[str] = Counter()
    layout = Layout(str(path), columns)
    for where, record in _records(path, columns):
        try:
            row = _row(record, layout.columns(record), seen, repeats)
        except RowFault as error:
            faults.setdefault((str(error), error.fix), []).append(where)
            continue
        seen[row.prompt_id] = where
        yield where, row
    layout.check_seen()
    if faults:
        raise DataError(grouped(faults, str(path)))


def check_whole(texts: Mapping[str, str]) -> None:
    """Raises RowFault for a text with a lone surrogate, which no file and no database can hold."""
    for name, text in texts.items():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise RowFault(f"has half a character in its {name} (a lone surrogate)", "Write it whole.") from None


def grouped(faults: Mapping[tuple[str, str], Sequence[str]], path: str) -> list[Problem]:
    """One problem for each kind of fault, at the first row that has it; at most `SHOWN` kinds."""
    problems = []
    for (fault, fix), places in faults.items():
        others = f" (and {count(len(places) - 1, 'more row')})" if len(places) > 1 else ""
        problems.append(Problem(places[0], fault + others, fix))
    rest = sum(map(len, itertools.islice(faults.values(), SHOWN, None)))
    return problems[:SHOWN] + ([Problem(path, f"{rest} more rows cannot be used")] if rest else [])


def splits(path: Path | str, columns: Columns | None = None) -> list[str]:
    """The splits that a file names, in order of appearance; empty where it has none. Raises DataError."""
    layout = Layout(str(path), columns)
    found: dict[str, None] = {}
    for _, record in _records(Path(path), columns):
        if isinstance(record, Mapping):
            known = layout.guess(record).columns
            found[value(record, known.split if known else "split")] = None
    return [name for name in found if name]


def take(rows: Sequence[Row], n: int) -> list[Row]:
    """`n` rows, spread over the topics: one of each topic in turn, in file order.

    Raises DataError when there are fewer than `n`.
    """
    if not 0 < n <= len(rows):
        raise DataError(Problem("number of prompts", f"{n} asked for, {len(rows)} there", f"Use 1 to {len(rows)}."))
    turn: dict[str, int] = {}
    turns = []
    for index, row in enumerate(rows):
        turn[row.topic] = turn.get(row.topic, 0) + 1
        turns.append((turn[row.topic], index))
    return [rows[index] for index in sorted(index for _, index in sorted(turns)[:n])]


def rows_digest(rows: Iterable[Row]) -> str:
    """SHA-256 (hexadecimal) of the rows' ids, prompts and reference answers, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row.prompt_id, row.prompt, row.response], ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


class Layout:
    """Which columns of a file's records are what. Records with other columns than those before are looked at anew."""

    def __init__(self, where: str, columns: Columns | None = None) -> None:
        self._where, self._given = where, columns
        self._known: dict[Any, Guess] = {}

    def guess(self, record: Mapping[str, Any]) -> Guess:
        key = tuple((name, guesses.kind(found)) for name, found in record.items())
        if key not in self._known:
            self._known[key] = guesses.of_record(record, self._given, self._where)
        return self._known[key]

    def columns(self, record: Any) -> Columns:
        """Raises RowFault for what would lose a part of the record, DataError for a file of unknown columns."""
        if not isinstance(record, Mapping):
            raise RowFault("is not an object with columns")
        found = self.guess(record)
        if found.problem is not None:
            if len(self._known) == 1:
                raise DataError(found.problem)
            raise RowFault(found.problem.fault if found.columns else "has no prompt", found.problem.fix)
        assert found.columns is not None
        for name in found.beside:
            if record[name]:
                prompt = found.columns.prompt
                chat = isinstance(prompt, str) and guesses.kind(at(record, prompt)).startswith("chat")
                raise guesses.beside_fault(name, prompt, chat=chat)
        if (
            str(record.get("label")).strip().casefold() in _UNWANTED
            and found.columns.response == "completion"
            and self._given is None
        ):
            fault = "has the label false: its completion is one that is not wanted"  # TRL's format for KTO
            raise RowFault(fault, "Remove such rows, or say `--columns 'prompt=prompt,response=completion'`.")
        for name in sorted(guesses.used_names(found.columns)):
            if record.get(name) is ABSENT:  # such a line may be half of one with a line break in it
                fix = "Fill the row up, or put a text with a line break in it into quotes."
                raise RowFault(f"ends before its column {name}", fix)
        return found.columns

    def check_seen(self) -> None:
        """Once all records are read. Raises DataError for columns that were given and that none of them has."""
        names = dict.fromkeys(str(name) for key in self._known for name, _ in key)
        if names and (wrong := guesses.unseen(self._where, names, self._given)):
            raise DataError(wrong)


def _records(path: Path, columns: Columns | None) -> Iterator[tuple[str, Any]]:
    given = columns or Columns()
    return read_records(path, encoding=given.encoding, delimiter=given.delimiter)


def _row(record: Mapping[str, Any], columns: Columns, taken: Mapping[str, str], repeats: Counter[str]) -> Row:
    prompt, response = (_text(record, columns, name) for name in ("prompt", "response"))
    if not prompt.strip():
        raise RowFault("has no prompt")
    others = {name: value(record, getattr(columns, name)) for name in ("topic", "split", "twin_of")}
    given = value(record, columns.id)
    if given in taken and given:
        raise RowFault(f"id {given!r} was used before, at {taken[given]}")
    check_whole({"prompt": prompt, "response": response, "id": given, **others})
    if not any(char != " " and char.isprintable() for char in prompt):  # what has no width is no text
        raise RowFault("has no prompt that could be seen")
    return Row(given or _id(prompt, taken, repeats), prompt=prompt, response=response, **others)


def _id(prompt: str, taken: Mapping[str, str], repeats: Counter[str]) -> str:
    """The prompt's hash, with a number behind it where the prompt came before."""
    plain = hashlib.sha256(prompt.encode()).hexdigest()[:12]
    while True:
        repeats[plain] += 1
        found = plain if repeats[plain] == 1 else f"{plain}-{repeats[plain]}"
        if found not in taken:  # such an id may have been given to another row
            return found


def _text(record: Mapping[str, Any], columns: Columns, name: Literal["prompt", "response"]) -> str:
    """A prompt or response. Numbers and dates are text as they are written, nothing else is. Raises RowFault."""
    column = getattr(columns, name)
    found = at(record, column) if isinstance(column, str) else None
    chat = isinstance(found, list) and guesses.kind(found) != "list"
    if (
        isinstance(found, bool)
        or not (found is None or chat or isinstance(found, (str, int, float, Decimal, date)))
        or isinstance(found, datetime)
    ):
        raise RowFault(f"has a {name} that is {type(found).__name__}, not text", "Put it into quotes, as text.")
    return part(record, columns, name)


_UNWANTED = ("false", "0", "0.0")
"""What a label says of a completion that is not wanted"""
_NO_SPLITS = (
    "It has no column split: add one, take every row by `--columns split:=test`, or declare a suite whose splits are "
    "by prompt (docs/suites.md)."
)
