"""The queue: one SQLite file (WAL) that every process of a workspace opens. Only this module knows its tables.

Each change is one statement or one immediate transaction, guarded by the state it starts from, so that two processes
can never both claim, end or requeue a job.
"""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from sstmerge_core.errors import JobError, Problem, disk_fault, lock_fault
from sstmerge_core.jobs.estimate import blend
from sstmerge_core.jobs.model import QUEUED, RESUMABLE, RUNNING, Job
from sstmerge_core.jobs.process import Process
from sstmerge_core.workspace import Workspace, lock_refusal

Move = Literal["first", "up", "down"]

PER_DEVICE = 1
"""Jobs that may run at the same time on one device (the CPU is one)."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    place INTEGER PRIMARY KEY AUTOINCREMENT, job_id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL, name TEXT NOT NULL, user TEXT NOT NULL, device TEXT NOT NULL,
    spec TEXT NOT NULL, run_ids TEXT NOT NULL, points INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued', created_at REAL NOT NULL, started_at REAL, finished_at REAL,
    host TEXT, pid INTEGER, pid_started INTEGER, heartbeat_at REAL, cancel_at REAL,
    point INTEGER NOT NULL DEFAULT 0, stage TEXT NOT NULL DEFAULT '', progress REAL NOT NULL DEFAULT 0,
    eta_seconds REAL, eta_at_half REAL, eta_error REAL, error TEXT, eta_low REAL, eta_high REAL, answers TEXT
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, device, place);
CREATE TABLE IF NOT EXISTS rates (scope TEXT, stage TEXT, seconds REAL, PRIMARY KEY (scope, stage));
"""
_LATER = {"eta_low": "REAL", "eta_high": "REAL", "answers": "TEXT"}
"""Columns of `jobs` that the queue of an older version lacks"""
_FREE = "(SELECT count(*) FROM jobs r WHERE r.state = 'running' AND r.device = jobs.device) < ?"
_NEXT = f"SELECT job_id, device FROM jobs WHERE state = 'queued' AND {_FREE} ORDER BY place LIMIT 1"
_CLAIM = """
UPDATE jobs SET state = 'running', started_at = ?, heartbeat_at = ?, host = ?, pid = ?, pid_started = ?,
    stage = 'Starting' WHERE job_id = ? AND state = 'queued'
"""


class Queue:
    """Opened anew for every operation, so it can be shared between threads and survives anything."""

    def __init__(self, workspace: Workspace):
        self.path = workspace.queue

    @classmethod
    def at(cls, path: Path) -> Queue:
        """A queue that lies elsewhere, such as a copy."""
        found = cls.__new__(cls)
        found.path = path
        return found

    def stand_still(self, why: str) -> None:
        """End every running and waiting job of a copy, whose workers are another queue's."""
        sql = (
            "UPDATE jobs SET state = CASE state WHEN 'queued' THEN 'cancelled' ELSE 'lost' END, error = ?,"
            " finished_at = ?, eta_seconds = NULL, host = NULL, pid = NULL, pid_started = NULL, cancel_at = NULL"
            " WHERE state IN ('running', 'queued')"
        )
        with self._open() as db:
            db.execute(sql, [why, time.time()])
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def add(
        self,
        job_id: str,
        *,
        kind: str,
        name: str,
        user: str,
        device: str,
        spec: Mapping[str, Any],
        run_ids: list[str],
        seconds: float | None = None,
    ) -> None:
        """Queue a job last. `seconds`: how long it should take, for those who wait behind it."""
        values = (job_id, kind, name, user, device, json.dumps(spec), json.dumps(run_ids), max(1, len(run_ids)))
        with self._open() as db:
            db.execute(
                "INSERT INTO jobs (job_id, kind, name, user, device, spec, run_ids, points, created_at, eta_seconds)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*values, time.time(), seconds),
            )

    def jobs(self, limit: int) -> list[Job]:
        with self._open() as db:
            return [_job(row) for row in db.execute(f"{_SELECT} ORDER BY created_at DESC, place DESC LIMIT ?", [limit])]

    def active(self) -> list[Job]:
        """Running jobs, then waiting ones in the order in which they are served."""
        sql = f"{_SELECT} WHERE state IN ('running', 'queued') ORDER BY state = 'queued', place"
        with self._open() as db:
            return [_job(row) for row in db.execute(sql)]

    def job(self, job_id: str) -> Job | None:
        with self._open() as db:
            row = db.execute(f"{_SELECT} WHERE job_id = ?", [job_id]).fetchone()
            return _job(row) if row else None

    def spec(self, job_id: str) -> dict[str, Any]:
        with self._open() as db:
            return json.loads(db.execute("SELECT spec FROM jobs WHERE job_id = ?", [job_id]).fetchone()["spec"])

    def start_one(self, start: Callable[[str, str], Process]) -> str | None:
        """Start the next job whose device is free by `start(job_id, device)`; its id, or None when there is none.

        The process is started within the transaction: either both the process and the row know of each other, or the
        row stays queued and the process, which asks `adopt` first, may still take it.
        """
        with self._open() as db:
            if db.execute(_NEXT, [PER_DEVICE]).fetchone() is None:
                return None
            with _immediate(db):
                row = db.execute(_NEXT, [PER_DEVICE]).fetchone()
                if row is None:
                    return None
                job_id = row["job_id"]
                try:
                    _claim(db, job_id, start(job_id, row["device"]))
                except OSError as error:
                    _end(db, job_id, "failed", f"The worker could not be started: {error}", from_state=QUEUED)
                return job_id

    def adopt(self, job_id: str, process: Process) -> bool:
        """Called by a worker: whether the job is its own, claiming it if it is still queued and its device is free."""
        with self._open() as db, _immediate(db):
            where = "WHERE job_id = ? AND state = 'running' AND host = ? AND pid = ? AND pid_started = ?"
            own = [job_id, process.host, process.pid, process.started]
            if db.execute(f"SELECT 1 FROM jobs {where}", own).fetchone():
                return True
            free = f"SELECT 1 FROM jobs WHERE job_id = ? AND state = 'queued' AND {_FREE}"
            return db.execute(free, [job_id, PER_DEVICE]).fetchone() is not None and _claim(db, job_id, process)

    def running(self) -> list[tuple[Job, Process, float, float | None]]:
        """Running jobs with their process, last heartbeat and the time at which they were asked to stop."""
        with self._open() as db:
            rows = db.execute(f"{_SELECT} WHERE state = 'running'").fetchall()
        return [
            (_job(row), Process(row["pid"], row["pid_started"], row["host"]), row["heartbeat_at"], row["cancel_at"])
            for row in rows
        ]

    def beat(self, job_id: str, **fields: Any) -> bool:
        """Write a sign of life and progress fields; returns whether the job was asked to stop."""
        names = ", ".join(f"{name} = ?" for name in ("heartbeat_at", *fields))
        with self._open() as db:
            values = [time.time(), *fields.values(), job_id]
            db.execute(f"UPDATE jobs SET {names} WHERE job_id = ? AND state = 'running'", values)
            row = db.execute("SELECT cancel_at FROM jobs WHERE job_id = ?", [job_id]).fetchone()
            return row is None or row["cancel_at"] is not None

    def end(self, job_id: str, state: str, error: str | None = None, process: Process | None = None) -> bool:
        """End a running job (only if it is still run by `process`, where given); whether it was there to end."""
        with self._open() as db:
            return _end(db, job_id, state, error, from_state=RUNNING, process=process)

    def ask_to_stop(self, job_id: str) -> str:
        """Cancel a queued job for good, or flag a running one; returns the state it was in.

        Raises JobError for a job that does not exist.
        """
        with self._open() as db, _immediate(db):
            row = db.execute("SELECT state FROM jobs WHERE job_id = ?", [job_id]).fetchone()
            if row is None:
                raise unknown(job_id)
            if row["state"] == QUEUED:
                _end(db, job_id, "cancelled", None, from_state=QUEUED)
            elif row["state"] == RUNNING:
                db.execute("UPDATE jobs SET cancel_at = coalesce(cancel_at, ?) WHERE job_id = ?", [time.time(), job_id])
            return row["state"]

    def move(self, job_id: str, to: Move) -> int:
        """Move a waiting job among those that wait for the same device; returns its new position, 1 is next.

        Beyond either end it stays where it is. Raises JobError for a job that does not wait (any more): a worker may
        have claimed it since the queue was looked at.
        """
        with self._open() as db, _immediate(db):
            row = db.execute("SELECT state, device FROM jobs WHERE job_id = ?", [job_id]).fetchone()
            if row is None:
                raise unknown(job_id)
            if row["state"] != QUEUED:
                raise JobError(Problem(f"job {job_id}", f"it is {row['state']}", "Only a waiting job can be moved."))
            sql = "SELECT job_id FROM jobs WHERE state = 'queued' AND device = ? ORDER BY place"
            before = [each["job_id"] for each in db.execute(sql, [row["device"]])]
            after = moved(before, job_id, to)
            if after != before:
                # fresh places at the end: a place is unique, and the order within other devices does not change
                last = db.execute("SELECT max(place) AS last FROM jobs").fetchone()["last"]
                places = [(last + number, each) for number, each in enumerate(after, start=1)]
                db.executemany("UPDATE jobs SET place = ? WHERE job_id = ?", places)
            return after.index(job_id) + 1

    def requeue(self, job_id: str, seconds: float | None = None) -> None:
        """Put a failed, cancelled or lost job at the end of the queue. Raises JobError for any other."""
        with self._open() as db, _immediate(db):
            row = db.execute("SELECT state FROM jobs WHERE job_id = ?", [job_id]).fetchone()
            if row is None:
                raise unknown(job_id)
            if row["state"] not in RESUMABLE:
                raise JobError(Problem(f"job {job_id}", f"it is {row['state']}", "Only a stopped job can be resumed."))
            db.execute(
                "UPDATE jobs SET state = 'queued', place = (SELECT max(place) + 1 FROM jobs), started_at = NULL,"
                " finished_at = NULL, pid = NULL, pid_started = NULL, cancel_at = NULL, point = 0, stage = '',"
                " progress = 0, eta_seconds = ?, eta_at_half = NULL, eta_error = NULL, error = NULL,"
                " eta_low = NULL, eta_high = NULL, answers = NULL"
                " WHERE job_id = ?",
                [seconds, job_id],
            )

    def rates(self, scope: str) -> dict[str, float]:
        """Seconds per unit of each stage, as earlier jobs of this scope (device and base model) showed."""
        with self._open() as db:
            rows = db.execute("SELECT stage, seconds FROM rates WHERE scope = ?", [scope])
            return {row["stage"]: row["seconds"] for row in rows}

    def learn(self, scope: str, rates: Mapping[str, float]) -> None:
        known = self.rates(scope)
        self.set_rates(scope, {stage: blend(known.get(stage), seconds) for stage, seconds in rates.items()})

    def set_rates(self, scope: str, rates: Mapping[str, float]) -> None:
        rows = [(scope, stage, seconds) for stage, seconds in rates.items()]
        with self._open() as db, _immediate(db):
            db.executemany("INSERT OR REPLACE INTO rates VALUES (?, ?, ?)", rows)

    def eta_errors(self) -> list[float]:
        """Errors of the remaining time announced at half of each finished job, newest first."""
        with self._open() as db:
            sql = "SELECT eta_error FROM jobs WHERE state = 'done' AND eta_error IS NOT NULL ORDER BY finished_at DESC"
            return [row["eta_error"] for row in db.execute(sql)]

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Raises JobError for a file that is damaged, held too long, or that cannot be written, and what to do."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if (refusal := lock_refusal(self.path.parent)) is not None:
            raise JobError(Problem(str(self.path), *lock_fault(refusal))) from refusal
        db = None
        try:
            db = sqlite3.connect(self.path, timeout=30, isolation_level=None)
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA synchronous = NORMAL")
            tables = dict(db.execute("SELECT name, sql FROM sqlite_master WHERE name IN ('jobs', 'rates')").fetchall())
            if "rates" not in tables:
                db.execute("PRAGMA journal_mode = WAL")
                db.executescript(_SCHEMA)
            elif any(name not in tables.get("jobs", "") for name in _LATER):
                with _immediate(db):  # whoever came first has added them
                    known = {row["name"] for row in db.execute("PRAGMA table_info(jobs)")}
                    for name in _LATER.keys() - known:
                        db.execute(f"ALTER TABLE jobs ADD COLUMN {name} {_LATER[name]}")
            yield db
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise  # a fault of ours
        except sqlite3.DatabaseError as error:
            raise JobError(_file_problem(self.path, error)) from error
        finally:
            if db is not None:
                db.close()


def moved(order: Sequence[str], job_id: str, to: Move) -> list[str]:
    """`order` with `job_id` one place ``up`` or ``down``, or ``first``."""
    place = order.index(job_id)
    target = {"first": 0, "up": max(0, place - 1), "down": place + 1}[to]
    rest = [each for each in order if each != job_id]
    return [*rest[:target], job_id, *rest[target:]]


def unknown(job_id: str) -> JobError:
    return JobError(Problem(f"job {job_id}", "there is no such job", "The queue lists the jobs there are."))


def _file_problem(path: Path, error: sqlite3.DatabaseError) -> Problem:
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


_SELECT = """
SELECT *, CASE WHEN state = 'queued' THEN (
    SELECT count(*) FROM jobs q WHERE q.state = 'queued' AND q.device = jobs.device AND q.place <= jobs.place
) END AS queue_position FROM jobs
"""


@contextlib.contextmanager
def _immediate(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _claim(db: sqlite3.Connection, job_id: str, process: Process) -> bool:
    now = time.time()
    return db.execute(_CLAIM, [now, now, process.host, process.pid, process.started, job_id]).rowcount == 1


def _end(
    db: sqlite3.Connection,
    job_id: str,
    state: str,
    error: str | None,
    *,
    from_state: str,
    process: Process | None = None,
) -> bool:
    sql = (
        "UPDATE jobs SET state = ?, error = ?, finished_at = ?, eta_seconds = NULL, eta_low = NULL, eta_high = NULL,"
        " answers = NULL WHERE job_id = ? AND state = ?"
    )
    values: list[Any] = [state, error, time.time(), job_id, from_state]
    if process is not None:
        sql += " AND pid = ? AND pid_started = ?"
        values += [process.pid, process.started]
    return db.execute(sql, values).rowcount == 1


def _job(row: sqlite3.Row) -> Job:
    waiting = row["state"] == QUEUED
    return Job(
        **{name: row[name] for name in ("job_id", "kind", "name", "user", "state", "created_at", "started_at")},
        **{name: row[name] for name in ("finished_at", "point", "points", "eta_seconds", "error", "queue_position")},
        run_ids=json.loads(row["run_ids"]),
        progress=1.0 if row["state"] == "done" else row["progress"],
        stage=f"Waiting, place {row['queue_position']} in the queue" if waiting else row["stage"],
        device=row["device"],
        eta_error=row["eta_error"],
        cancelling=row["state"] == RUNNING and row["cancel_at"] is not None,
        eta_between=None if row["eta_low"] is None else (row["eta_low"], row["eta_high"]),
        answers=json.loads(row["answers"] or "[]"),
    )
