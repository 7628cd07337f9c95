"""Saved queries and the history of queries: two small JSON files of the workspace, each written whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sstmerge_core import access, documents
from sstmerge_core.errors import Problem, StoreError
from sstmerge_core.workspace import Workspace, write_json

REMEMBERED = 200
"""Queries in the history at most"""
LONGEST_NAME = 80
LONGEST_REMEMBERED = 20_000
"""Characters of a query that the history still keeps"""


@dataclass(frozen=True)
class SavedQuery:
    name: str
    sql: str
    view: dict[str, str] = field(default_factory=dict)
    """How its result is shown, in the words of the Query page's link; empty: a table."""
    user: str = ""
    t: float = field(default_factory=time.time)
    """When it was saved, UTC epoch seconds."""


@dataclass(frozen=True)
class PastQuery:
    sql: str
    user: str = ""
    rows: int | None = None
    """None where it failed."""
    seconds: float | None = None
    error: str = ""
    t: float = field(default_factory=time.time)


def saved(workspace: Workspace) -> list[SavedQuery]:
    """The workspace's saved queries by name. Raises StoreError where their file cannot be read."""
    path = _saved(workspace)
    try:
        return [SavedQuery(**row) for row in sorted(_read(path), key=lambda row: row["name"].casefold())]
    except (KeyError, TypeError) as error:
        raise StoreError(
            Problem(str(path), f"has an odd entry ({error})", "Repair the file, or move it away.")
        ) from None


def save(workspace: Workspace, query: SavedQuery, *, replace: bool = True) -> SavedQuery | None:
    """Keep `query` under its name; returns the one that it replaced.

    Raises StoreError where the name is empty or too long, there is nothing to save, or (without `replace`) another
    query has the name.
    """
    access.require("save query")
    name = _usable(query.name)
    if not query.sql.strip():
        raise StoreError(Problem("query", "there is nothing to save", "Write a query first."))
    with _changing(_saved(workspace)) as rows:
        before = _take(rows, name)
        if before is not None and not replace:
            raise _taken(name)
        rows.append(asdict(query) | {"name": name})
        return before


def rename(workspace: Workspace, name: str, to: str) -> None:
    """Raises StoreError where there is no query `name`, or another one is called `to` already."""
    access.require("save query")
    to = _usable(to)
    with _changing(_saved(workspace)) as rows:
        if to != name and any(row["name"] == to for row in rows):
            raise _taken(to)
        query = _take(rows, name)
        if query is None:
            raise _missing(name)
        rows.append(asdict(query) | {"name": to})


def delete(workspace: Workspace, name: str) -> SavedQuery:
    """Remove a saved query and return it: saving it again undoes this. Raises StoreError where there is none."""
    access.require("save query")
    with _changing(_saved(workspace)) as rows:
        query = _take(rows, name)
        if query is None:
            raise _missing(name)
        return query


def history(workspace: Workspace) -> list[PastQuery]:
    """The last queries of this workspace, newest first. Raises StoreError where their file cannot be read."""
    return [PastQuery(**row) for row in _read(_history(workspace))]


def remember(workspace: Workspace, query: PastQuery) -> None:
    """Put `query` at the head of the history; asking the same again moves it there instead of doubling it."""
    if len(query.sql) > LONGEST_REMEMBERED:
        return
    with _changing(_history(workspace)) as rows:
        others = [row for row in rows if (row["sql"], row["user"]) != (query.sql, query.user)]
        rows[:] = [asdict(query), *others][:REMEMBERED]


def _saved(workspace: Workspace) -> Path:
    return workspace.queries / "saved.json"


def _history(workspace: Workspace) -> Path:
    return workspace.queries / "history.json"


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        rows = documents.read_json(path)
        texts = ("sql", "name", "user", "error")
        if not isinstance(rows, list) or not all(
            isinstance(row, dict) and row.get("sql") and all(isinstance(row.get(name, ""), str) for name in texts)
            for row in rows
        ):
            raise ValueError("not a list of queries")
        return rows
    except ValueError as error:
        raise StoreError(Problem(str(path), f"cannot be read ({error})", "Repair the file, or move it away.")) from None


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[list[dict[str, Any]]]:
    """The rows of `path` to change in place; written when the block ends without an error, one writer at a time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise _unwritable(path, error) from None
    try:
        with contextlib.suppress(OSError):  # some network disks lock no folders
            fcntl.flock(folder, fcntl.LOCK_EX)
        rows = _read(path)
        yield rows
        try:
            write_json(path, rows)
        except OSError as error:
            raise _unwritable(path, error) from None
    finally:
        os.close(folder)


def _take(rows: list[dict[str, Any]], name: str) -> SavedQuery | None:
    """Remove the query called `name` from `rows` and return it."""
    found = next((row for row in rows if row["name"] == name), None)
    if found is not None:
        rows.remove(found)
    return SavedQuery(**found) if found else None


def _usable(name: str) -> str:
    name = " ".join(name.split())
    if not name:
        raise StoreError(Problem("name", "a saved query needs one", "Say in a few words what it answers."))
    if len(name) > LONGEST_NAME:
        fault = f"{len(name)} characters are too many"
        raise StoreError(Problem("name", fault, f"{LONGEST_NAME} at most; the query itself may be longer."))
    return name


def _taken(name: str) -> StoreError:
    return StoreError(Problem(f"query “{name}”", "there is one of this name already", "Choose another name."))


def _missing(name: str) -> StoreError:
    return StoreError(Problem(f"query “{name}”", "is not here any more", "Somebody may have renamed or deleted it."))


def _unwritable(path: Path, error: OSError) -> StoreError:
    return StoreError(Problem(str(path), f"cannot be written ({error.strerror})", "Check the disk and its rights."))
