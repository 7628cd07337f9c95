"""The queue's file: SQLite (WAL), opened anew for every operation; its tables, and how older files get them."""

from __future__ import annotations

import contextlib
import errno
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sstmerge_core import documents
from sstmerge_core.errors import OF_SQLITE, JobError, Problem, disk_fault, lock_fault
from sstmerge_core.workspace import lock_refusal

VERSION = 2
"""Of the tables, kept as the file's ``user_version``; files of before trials have 0"""
_JOBS = """
CREATE TABLE jobs (
    place INTEGER PRIMARY KEY AUTOINCREMENT, job_id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL, name TEXT NOT NULL, user TEXT NOT NULL, device TEXT NOT NULL,
    spec TEXT NOT NULL, run_ids TEXT NOT NULL, points INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued', created_at REAL NOT NULL, started_at REAL, finished_at REAL,
    host TEXT, pid INTEGER, pid_started INTEGER, heartbeat_at REAL, cancel_at REAL,
    point INTEGER NOT NULL DEFAULT 0, stage TEXT NOT NULL DEFAULT '', progress REAL NOT NULL DEFAULT 0,
    eta_seconds REAL, eta_at_half REAL, eta_error REAL, error TEXT, eta_low REAL, eta_high REAL, answers TEXT
)
"""
_LATER = {"eta_low": "REAL", "eta_high": "REAL", "answers": "TEXT"}
_FIRST = (
    _JOBS,
    "CREATE INDEX jobs_by_state ON jobs (state, device, place)",
    "CREATE TABLE rates (scope TEXT, stage TEXT, seconds REAL, PRIMARY KEY (scope, stage))",
)
_TRIALS = """
CREATE TABLE trials (
    job TEXT NOT NULL, run TEXT NOT NULL, number INTEGER NOT NULL, part TEXT NOT NULL DEFAULT 'point',
    needs TEXT, family TEXT NOT NULL DEFAULT '', state TEXT NOT NULL DEFAULT 'waiting', worker TEXT,
    attempt INTEGER NOT NULL DEFAULT 0, lost INTEGER NOT NULL DEFAULT 0, lease_until REAL,
    started_at REAL, finished_at REAL, error TEXT, PRIMARY KEY (job, run)
) WITHOUT ROWID
"""
_WORKERS = """
CREATE TABLE workers (
    job TEXT NOT NULL, worker TEXT NOT NULL, device TEXT NOT NULL, place TEXT NOT NULL,
    host TEXT NOT NULL, pid INTEGER NOT NULL, pid_started INTEGER NOT NULL,
    heartbeat_at REAL NOT NULL, started_at REAL NOT NULL, stage TEXT NOT NULL DEFAULT '', PRIMARY KEY (job, worker)
)
"""
_LEASES = """
CREATE TABLE leases (
    place TEXT NOT NULL, device TEXT NOT NULL, holder TEXT NOT NULL, user TEXT NOT NULL,
    host TEXT NOT NULL, pid INTEGER NOT NULL, pid_started INTEGER NOT NULL, since REAL NOT NULL,
    PRIMARY KEY (place, host, pid)
)
"""
_SECOND = (
    "ALTER TABLE jobs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE jobs ADD COLUMN turn REAL NOT NULL DEFAULT 0",
    "ALTER TABLE jobs ADD COLUMN workers INTEGER NOT NULL DEFAULT 1",
    "ALTER TABLE jobs ADD COLUMN devices TEXT NOT NULL DEFAULT '[]'",
    "ALTER TABLE jobs ADD COLUMN slice_at REAL",
    _TRIALS,
    "CREATE INDEX trials_by_number ON trials (job, state, part, number)",
    "CREATE INDEX trials_by_family ON trials (job, state, family, number)",
    "CREATE INDEX trials_by_run ON trials (run, state)",
    _WORKERS,
    _LEASES,
    # those that the older version has started go on; their order stays as it was
    "INSERT INTO workers SELECT job_id, host || ':' || pid || ':' || pid_started, device, device, host, pid,"
    " pid_started, coalesce(heartbeat_at, created_at), coalesce(started_at, created_at), '' FROM jobs"
    " WHERE state = 'running' AND pid IS NOT NULL",
    "UPDATE jobs SET turn = place",
)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to the queue's file, which is made, or given the tables that it lacks, where that is needed.

    Raises JobError for a file that is damaged, held too long, or that cannot be written, and what to do.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if (refusal := lock_refusal(path.parent)) is not None:
        raise JobError(Problem(str(path), *lock_fault(refusal))) from refusal
    db = None
    try:
        db = sqlite3.connect(path, timeout=30, isolation_level=None)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA synchronous = NORMAL")
        if _version(db) < VERSION or _lacking(db):
            _bring_up_to_date(db)
        yield db
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise  # a fault of ours
    except OF_SQLITE as error:
        raise JobError(_file_problem(path, error)) from error
    finally:
        if db is not None:
            db.close()


@contextlib.contextmanager
def immediate(db: sqlite3.Connection) -> Iterator[None]:
    """A transaction that nobody else writes beside."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def listed(text: str | None, kind: type = str) -> list[Any]:
    """What of a list in a column is of `kind`; nothing where a fault of the disk made another thing of the column."""
    try:
        found = documents.from_json(text or "[]")
    except (ValueError, TypeError):
        return []
    return [one for one in found if isinstance(one, kind)] if isinstance(found, list) else []


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _lacking(db: sqlite3.Connection) -> list[str]:
    """Columns that versions between the first and this one have added to the jobs one by one."""
    row = db.execute("SELECT sql FROM sqlite_master WHERE name = 'jobs'").fetchone()
    return [name for name in _LATER if row is None or name not in row["sql"]]


def _bring_up_to_date(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA journal_mode = WAL")
    with immediate(db):  # whatever another process was faster with is left out
        older = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'rates'").fetchone()
        first = [f"ALTER TABLE jobs ADD COLUMN {name} {_LATER[name]}" for name in _lacking(db)] if older else _FIRST
        for statement in (*first, *(_SECOND if _version(db) < VERSION else ())):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {VERSION}")


def _file_problem(path: Path, error: Exception) -> Problem:
    """What SQLite said of the file, and what to do."""
    told = (getattr(error, "sqlite_errorname", None) or "").removeprefix("SQLITE_")
    name = told.split("_")[0]
    if name == "IOERR" and "LOCK" in told:
        return Problem(str(path), *lock_fault(OSError(errno.ENOLCK, str(error))))
    if name in ("IOERR", "CANTOPEN") and shutil.disk_usage(path.parent).free < 1 << 20:
        name = "FULL"  # there is no room for the memory that its readers share
    known = {"FULL": errno.ENOSPC, "READONLY": errno.EACCES, "PERM": errno.EACCES, "IOERR": errno.EIO}
    if name in known:
        return Problem(str(path), *disk_fault(known[name]))
    if name in ("BUSY", "LOCKED"):
        return Problem(str(path), "another process holds the queue for more than 30 s", "Stop it, then try again.")
    if name == "CANTOPEN":
        return Problem(str(path), "the queue cannot be opened", "Give this user the rights to the file and its folder.")
    fix = (
        f"Close the dashboard, then move it away: `mv {path} {path}.damaged`. Jobs that wait are lost, finished runs "
        "and their results are not."
    )
    return Problem(str(path), f"the queue of jobs is damaged or no queue ({error})", fix)
