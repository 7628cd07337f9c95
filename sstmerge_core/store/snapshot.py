"""Published snapshots: read-only copies of the database that other processes may open."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KEPT = 2
"""A reader that has just picked the newest snapshot still finds it after the next one is published."""


MOST_CHANGED = 2_000
"""Runs that may have changed for a snapshot to be made of the one before it"""
GROWN = 1.5, 64 << 20
"""Times the size of the last whole copy, and bytes beside: what is deleted in a file leaves room in it"""


@dataclass(frozen=True)
class Since:
    """What a snapshot can be made of instead of the whole database."""

    snapshot: Path
    """The newest, published from this very database"""
    changed: Collection[str]
    """Owners (runs, pairs …) of every row that differs from it now, in the tables of `owned`"""
    owned: Mapping[str, str]
    """Table → the column that says whose a row is; other tables are small and copied whole"""
    whole_bytes: int
    """Size of the last whole copy"""


def publish(connection: Any, database: str, folder: Path, since: Since | None = None) -> Path:
    """Copy `database` (its name within `connection`) to a new file in `folder`, whole or not at all.

    Each snapshot has a new name: a process that has one open would see stale data under a name used again. With `since`
    the new one is a copy of the file before it in which the rows of what has changed are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder)
    target = folder / f"snap.{_number(folder)}.duckdb"
    temporary = folder / f".{target.name}.{os.getpid()}"
    if since is not None and not _usable(since):
        since = None
    try:
        if since is not None:
            shutil.copyfile(since.snapshot, temporary)
        connection.execute(f"ATTACH '{_quoted(temporary)}' AS snap")
        try:
            if since is not None:
                _renew(connection, database, since)
            else:
                _copy(connection, database)
        finally:
            connection.execute("DETACH snap")
        os.replace(temporary, target)
    finally:
        for path in (temporary, Path(f"{temporary}.wal")):
            path.unlink(missing_ok=True)
    for old in published(folder)[:-KEPT]:
        old.unlink(missing_ok=True)
    return target


def _usable(since: Since) -> bool:
    """Whether a snapshot of the one before pays: little has changed, and it has not grown much by earlier changes."""
    try:
        size = since.snapshot.stat().st_size
    except OSError:
        return False
    return len(since.changed) <= MOST_CHANGED and size <= GROWN[0] * since.whole_bytes + GROWN[1]


def _renew(connection: Any, database: str, since: Since) -> None:
    """The rows of what has changed, and every small table, in one transaction as in `_copy`."""
    tables = "SELECT table_name FROM duckdb_tables() WHERE database_name = ?"
    changed = list(since.changed)
    connection.execute("BEGIN")
    try:
        for (table,) in connection.execute(tables, [database]).fetchall():
            new, old = f'"{database}"."{table}"', f'snap."{table}"'
            if (column := since.owned.get(table)) is None:
                connection.execute(f"DELETE FROM {old}")
                connection.execute(f"INSERT INTO {old} FROM {new}")
            elif changed:
                connection.execute(f"DELETE FROM {old} WHERE list_contains(?, {column})", [changed])
                connection.execute(f"INSERT INTO {old} FROM {new} WHERE list_contains(?, {column})", [changed])
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _copy(connection: Any, database: str) -> None:
    """Tables without their keys, whose indices would take most of the time and which no reader needs; then views.

    One transaction, so that what is ingested meanwhile is in it whole or not at all.
    """
    tables = "SELECT table_name FROM duckdb_tables() WHERE database_name = ?"
    views = "SELECT sql FROM duckdb_views() WHERE database_name = ? AND NOT internal ORDER BY view_oid"
    connection.execute("BEGIN")
    try:
        for (table,) in connection.execute(tables, [database]).fetchall():
            connection.execute(f'CREATE TABLE snap."{table}" AS FROM "{database}"."{table}"')
        statements = connection.execute(views, [database]).fetchall()
        connection.execute("USE snap")
        for (sql,) in statements:
            connection.execute(sql)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    finally:
        connection.execute(f'USE "{database}"')


def _number(folder: Path) -> int:
    """Now, in nanoseconds, but later than every snapshot there is: a clock set back must not hide the newest."""
    last = newest(folder)
    return max(time.time_ns(), int(last.name.split(".")[1]) + 1 if last else 0)


def published(folder: Path) -> list[Path]:
    """The snapshots of a folder, oldest first."""
    found = [path for path in folder.glob("snap.*.duckdb") if path.name.split(".")[1].isdecimal()]
    return sorted(found, key=lambda path: int(path.name.split(".")[1]))


def remove_unfinished(folder: Path) -> None:
    """Remove what processes left that were killed while they published; for the owner of the database alone."""
    for left in folder.glob(".snap.*"):
        left.unlink(missing_ok=True)


def newest(folder: Path) -> Path | None:
    return next(reversed(published(folder)), None)


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
