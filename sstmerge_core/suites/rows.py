"""Prompt sets: read rows from a file, take some of them, and identify what was taken. Imports no torch."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sstmerge_core import documents
from sstmerge_core.errors import DataError, Problem


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


def load_rows(path: Path | str, split: str | None = None) -> list[Row]:
    """The rows of a file (see `read_records`), in file order; those of `split` only, if given.

    Columns: ``id`` (or ``prompt_id``), ``prompt``, and, if there, ``response``, ``topic``, ``split``, ``twin_of``;
    more are ignored. Without an id the row is known by the hash of its prompt. Raises DataError with every unusable
    row at once (the first ten of them).
    """
    path = Path(path)
    rows: list[Row] = []
    problems: list[Problem] = []
    seen: dict[str, str] = {}
    splits: set[str] = set()
    for where, record in read_records(path):
        try:
            row = _row(record)
            found = str(record.get("split") or "")
            if row.prompt_id in seen:
                raise ValueError(f"id {row.prompt_id!r} was used before, at {seen[row.prompt_id]}")
        except ValueError as error:
            problems.append(Problem(where, str(error), "Correct the row."))
            continue
        seen[row.prompt_id] = where
        splits.add(found)
        if split is None or found == split:
            rows.append(row)
    if problems:
        rest = len(problems) - 10
        more = [Problem(str(path), f"{rest} more rows cannot be used")] if rest > 0 else []
        raise DataError(problems[:10] + more)
    if not rows:
        known = ", ".join(sorted(splits - {""}))
        fault = "has no rows" if split is None else f"has no rows of split {split!r}"
        fix = f"Its splits: {known}." if known else "Add rows with a prompt column."
        raise DataError(Problem(str(path), fault, fix))
    return rows


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


def _row(record: Any) -> Row:
    """Raises ValueError saying what is wrong."""
    if not isinstance(record, dict):
        raise ValueError("is not an object with columns")
    prompt = record.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError("has no prompt")
    response = record.get("response") or ""
    if not isinstance(response, str):
        raise ValueError(f"has a response that is {type(response).__name__}, not text")
    given = record.get("prompt_id") or record.get("id")
    prompt_id = str(given) if given else hashlib.sha256(prompt.encode()).hexdigest()[:12]
    return Row(prompt_id, str(record.get("topic") or ""), prompt, response, str(record.get("twin_of") or ""))


def read_records(path: Path, under: str = "", header: bool = True) -> Iterator[tuple[str, Any]]:
    """(where, record) of every record in a JSONL, JSON, CSV, Parquet or YAML file, plain or gzipped.

    JSON and YAML hold one list, or have it at the dotted path `under`; JSON Lines called .json are read too. A CSV file
    without a `header` has the columns 0, 1, 2 … Raises DataError when the file cannot be read.
    """
    kind = Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    if kind == ".parquet":
        yield from _parquet(path)
        return
    if kind not in (".csv", ".json", ".jsonl", ".yaml", ".yml", ".prompt"):
        fix = "Use .jsonl, .json, .csv, .parquet or .yaml."
        raise DataError(Problem(str(path), f"has the unknown ending {kind or 'none'}", fix))
    text = _text(path)
    if kind == ".csv":
        lines = text.splitlines(keepends=True)
        rows: Iterable[Any] = csv.DictReader(lines) if header else _without_header(lines)
        for number, record in enumerate(rows, start=1):
            yield f"{path} row {number}", record
    elif kind == ".jsonl" or (kind == ".json" and not under and _is_json_lines(text)):
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield f"{path} line {number}", _parse(line, f"{path} line {number}")
    else:
        content = _parse(text, str(path)) if kind == ".json" else _parse_yaml(text, str(path))
        for key in filter(None, under.split(".")):
            content = content.get(key) if isinstance(content, dict) else None
        if not isinstance(content, list):
            what = "JSON" if kind == ".json" else "YAML"
            fault = f"has no list at {under!r}" if under else f"is not one {what} list"
            raise DataError(Problem(str(path), fault, "Give a list of objects, or a JSONL file."))
        for number, record in enumerate(content, start=1):
            yield f"{path} item {number}", record


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix.lower() == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        reason = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else getattr(error, "strerror", "")
        fix = "Give a JSONL, JSON, CSV, Parquet or YAML file."
        raise DataError(Problem(str(path), f"cannot be read: {reason or error}", fix)) from error


def _without_header(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    for cells in csv.reader(lines):
        yield {str(index): cell for index, cell in enumerate(cells)}


def _is_json_lines(text: str) -> bool:
    """Whether the first line alone is an object and more lines follow: some sets call JSON Lines .json."""
    first, _, rest = text.lstrip().partition("\n")
    return first.startswith("{") and first.rstrip().endswith("}") and rest.lstrip().startswith("{")


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        records = parquet.read_table(io.BytesIO(path.read_bytes())).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise DataError(Problem(str(path), f"cannot be read: {reason}", "Give a complete Parquet file.")) from error
    for number, record in enumerate(records, start=1):
        yield f"{path} row {number}", record


def _parse(text: str, where: str) -> Any:
    try:
        return documents.from_json(text)
    except documents.FormatError as error:
        raise DataError(Problem(where, str(error), "Correct it, or remove it.")) from error


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return documents.from_yaml(text)
    except documents.FormatError as error:
        raise DataError(Problem(where, str(error), "Correct it, or remove it.")) from error
