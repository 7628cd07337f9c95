"""The queue: one SQLite file (WAL) that every process of a workspace opens. Only this module knows its tables.

Each change is one statement or one immediate transaction, guarded by the state it starts from, so that two processes
can never both claim, end or requeue a job.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from sstmerge_core import documents
from sstmerge_core.errors import JobError, Problem
from sstmerge_core.jobs import choice, trials
from sstmerge_core.jobs.database import immediate, listed, opened
from sstmerge_core.jobs.devices import allowed, place
from sstmerge_core.jobs.estimate import blend
from sstmerge_core.jobs.model import QUEUED, RESUMABLE, RUNNING, Job, Worker
from sstmerge_core.jobs.process import Process
from sstmerge_core.recipe import Recipe
from sstmerge_core.workspace import Workspace

Move = Literal["first", "up", "down"]

EPSILON = 1e-6
"""Between the turns of jobs whose order somebody has chosen"""


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
        with opened(self.path) as db:
            db.execute(sql, [why, time.time()])
            for table in ("workers", "leases"):
                db.execute(f"DELETE FROM {table}")
            db.execute("UPDATE trials SET state = 'waiting', lease_until = NULL WHERE state = 'running'")
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
        recipes: Sequence[Recipe] = (),
        devices: Sequence[str] = (),
        workers: int = 1,
        priority: int = 0,
    ) -> None:
        """Queue a job. `seconds`: how long it should take, for those who wait behind it; `recipes` become its trials.

        It may take `devices` (default: `device` alone) with up to `workers` workers at a time. Its turn comes after
        those of its user and after that of what started last: nobody's second job is before somebody's first. Of one
        user's jobs, and among those whose turn is the same, the one of the higher `priority` is first.
        """
        values = (job_id, kind, name, user, device, json.dumps(spec), json.dumps(run_ids), max(1, len(run_ids)))
        with opened(self.path) as db, immediate(db):
            db.execute(
                "INSERT INTO jobs (job_id, kind, name, user, device, spec, run_ids, points, created_at, eta_seconds,"
                " devices, workers, priority, turn) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*values, time.time(), seconds, json.dumps(list(devices)), workers, priority, choice.turn(db, user)),
            )
            if priority:
                choice.put_before_lesser(db, job_id, user)
            trials.insert(db, job_id, recipes)

    def jobs(self, limit: int) -> list[Job]:
        with opened(self.path) as db:
            return [_job(row) for row in db.execute(f"{_SELECT} ORDER BY created_at DESC, place DESC LIMIT ?", [limit])]

    def active(self) -> list[Job]:
        """Running jobs, then waiting ones in the order in which they are served."""
        sql = f"{_SELECT} WHERE state IN ('running', 'queued') ORDER BY state = 'queued', {choice.ORDER}"
        with opened(self.path) as db:
            return [_job(row) for row in db.execute(sql)]

    def job(self, job_id: str) -> Job | None:
        with opened(self.path) as db:
            row = db.execute(f"{_SELECT} WHERE job_id = ?", [job_id]).fetchone()
            return _job(row) if row else None

    def spec(self, job_id: str) -> dict[str, Any]:
        with opened(self.path) as db:
            text = db.execute("SELECT spec FROM jobs WHERE job_id = ?", [job_id]).fetchone()["spec"]
        try:
            found = documents.from_json(text)
        except (ValueError, TypeError):
            found = None
        if not isinstance(found, dict):
            raise JobError(Problem(f"job {job_id}", "what it was to do can no longer be read", "Launch it again."))
        return found

    def start_one(self, start: Callable[[str, str], Process]) -> str | None:
        """Start a worker for the next job that may have one by `start(job_id, device)`; the job's id, None: none may.

        The process is started within the transaction: either both the process and the row know of each other, or the
        row stays queued and the process, which asks `adopt` first, may still take it.
        """
        with opened(self.path) as db:
            if choice.next_worker(db) is None:
                return None
            with immediate(db):
                chosen = choice.next_worker(db)
                if chosen is None:
                    return None
                job_id, device = chosen
                try:
                    _join(db, job_id, device, start(job_id, device))
                except OSError as error:
                    if not _end(db, job_id, "failed", f"The worker could not be started: {error}", from_state=QUEUED):
                        sql = "UPDATE jobs SET workers = (SELECT count(*) FROM workers WHERE job = job_id)"
                        db.execute(f"{sql} WHERE job_id = ?", [job_id])  # it goes on with those that it has
                return job_id

    def adopt(self, job_id: str, process: Process) -> bool:
        """Called by a worker: whether the job is its own, claiming it if it is still queued and a device is free."""
        with opened(self.path) as db, immediate(db):
            own = "SELECT 1 FROM workers WHERE job = ? AND worker = ?"
            if db.execute(own, [job_id, process.name]).fetchone():
                return True
            device = choice.free_device(db, job_id)
            if device is None:
                return False
            _join(db, job_id, device, process)
            return True

    def running(self) -> list[tuple[Job, Process, float, float | None]]:
        """The workers of running jobs: job, process, last heartbeat and the time at which it was asked to stop."""
        with opened(self.path) as db:
            rows = db.execute(f"{_SELECT} WHERE state = 'running'").fetchall()
            found = {row["job_id"]: row for row in rows}
            at_work = db.execute("SELECT * FROM workers ORDER BY rowid").fetchall()
        return [
            (_job(job), _process(row), row["heartbeat_at"], job["cancel_at"])
            for row in at_work
            if (job := found.get(row["job"])) is not None
        ]

    def workers(self) -> list[Worker]:
        """Every worker there is, those of jobs that have ended since included; the oldest first."""
        with opened(self.path) as db:
            rows = db.execute(
                "SELECT w.*, j.cancel_at, (SELECT t.run FROM trials t WHERE t.job = w.job AND t.worker = w.worker"
                " AND t.state = 'running') AS run FROM workers w LEFT JOIN jobs j ON j.job_id = w.job ORDER BY w.rowid"
            ).fetchall()
        names = ("device", "stage", "heartbeat_at", "started_at", "cancel_at", "run")
        return [Worker(row["job"], _process(row), **{name: row[name] for name in names}) for row in rows]

    def bury(self, worker: Worker) -> None:
        """Take a worker that is gone from the list and give back its trial, which the next attempt begins again."""
        with opened(self.path) as db, immediate(db):
            trials.release(db, worker.job_id, worker.process.name, lost=worker.cancel_at is None)
            _gone(db, worker.job_id, worker.process)

    def release(self, job_id: str, worker: str, *, lost: bool = True) -> None:
        """Give back what a worker beyond this machine was at."""
        with opened(self.path) as db, immediate(db):
            trials.release(db, job_id, worker, lost=lost)

    def extend(self, job_id: str, worker: str) -> None:
        """A sign of life of a worker beyond this machine."""
        with opened(self.path) as db, immediate(db):
            trials.extend(db, job_id, worker)

    def unattended(self) -> list[tuple[Job, float | None, trials.Count]]:
        """Running jobs without a worker: job, the time at which it was asked to stop, and its trials."""
        sql = f"{_SELECT} WHERE state = 'running' AND NOT EXISTS (SELECT 1 FROM workers WHERE job = job_id)"
        with opened(self.path) as db:
            rows = db.execute(sql).fetchall()
            return [(_job(row), row["cancel_at"], trials.count(db, row["job_id"])) for row in rows]

    def end_unattended(self, job_id: str, state: str, error: str | None = None) -> bool:
        """End a running job that has no worker (any more); whether it was there to end."""
        with opened(self.path) as db, immediate(db):
            if db.execute("SELECT 1 FROM workers WHERE job = ?", [job_id]).fetchone():
                return False
            return _end(db, job_id, state, error, from_state=RUNNING)

    def beat(self, job_id: str, process: Process | None = None, **fields: Any) -> bool:
        """Write a sign of life and progress fields; returns whether the worker is asked to stop.

        Of several workers, the one that has been at it longest tells of the job as a whole.
        """
        now = time.time()
        with opened(self.path) as db, immediate(db):
            known = False
            if process is not None:
                sql = "UPDATE workers SET heartbeat_at = ?, stage = ? WHERE job = ? AND worker = ?"
                known = db.execute(sql, [now, fields.get("stage", ""), job_id, process.name]).rowcount == 1
                trials.extend(db, job_id, process.name)
            sql = "SELECT worker FROM workers WHERE job = ? ORDER BY rowid LIMIT 1"
            first = db.execute(sql, [job_id]).fetchone()
            if process is None or first is None or first["worker"] == process.name:
                names = ", ".join(f"{name} = ?" for name in ("heartbeat_at", *fields))
                values = [now, *fields.values(), job_id]
                db.execute(f"UPDATE jobs SET {names} WHERE job_id = ? AND state = 'running'", values)
            row = db.execute("SELECT cancel_at, state FROM jobs WHERE job_id = ?", [job_id]).fetchone()
            return row is None or row["cancel_at"] is not None or (known and row["state"] != RUNNING)

    def end(self, job_id: str, state: str, error: str | None = None, process: Process | None = None) -> bool:
        """End a running job (only if `process` works on it, where given); whether it was there to end."""
        with opened(self.path) as db, immediate(db):
            own = "SELECT 1 FROM workers WHERE job = ? AND worker = ?"
            if process is not None and not db.execute(own, [job_id, process.name]).fetchone():
                return False
            _gone(db, job_id, process)
            return _end(db, job_id, state, error, from_state=RUNNING)

    def leave(self, job_id: str, process: Process, state: str, error: str | None = None) -> None:
        """A worker has nothing more to do, or was stopped; the last one decides how the job ended.

        A job that failed by a fault of ours ends at once, whoever is at it: the others are told by their next `beat`.
        """
        with opened(self.path) as db, immediate(db):
            trials.release(db, job_id, process.name, lost=False)
            _gone(db, job_id, process)
            if state in ("done", "failed"):
                if trials.count(db, job_id).open and state == "done":
                    return  # others are at it, or whoever looks next starts one
                _end(db, job_id, state, error, from_state=RUNNING)
            elif state == "cancelled" and not db.execute("SELECT 1 FROM workers WHERE job = ?", [job_id]).fetchone():
                # its runs have to be closed before anybody sees it cancelled: see `dispatch.reconcile`
                sql = "UPDATE jobs SET cancel_at = coalesce(cancel_at, ?) WHERE job_id = ? AND state = 'running'"
                db.execute(sql, [time.time(), job_id])

    def give_way(self, job_id: str, process: Process) -> bool:
        """Between two trials: whether this worker's device is somebody else's now; it is off the list then.

        A device beyond a job's first goes to whoever waits; the last one to another user, once this job has had it for
        `choice.SLICE` seconds. The job waits for its next turn then, what it has done is kept.
        """
        with opened(self.path) as db, immediate(db):
            if not choice.must_leave(db, job_id, process.name):
                return False
            _gone(db, job_id, process)
            if not db.execute("SELECT 1 FROM workers WHERE job = ?", [job_id]).fetchone():
                user = db.execute("SELECT user FROM jobs WHERE job_id = ?", [job_id]).fetchone()["user"]
                db.execute(
                    "UPDATE jobs SET state = 'queued', turn = ?, pid = NULL, pid_started = NULL, stage = ''"
                    " WHERE job_id = ? AND state = 'running' AND cancel_at IS NULL",
                    [choice.turn(db, user), job_id],
                )
            return True

    def ask_to_stop(self, job_id: str) -> str:
        """Cancel a queued job for good, or flag a running one; returns the state it was in.

        Raises JobError for a job that does not exist.
        """
        with opened(self.path) as db, immediate(db):
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
        with opened(self.path) as db, immediate(db):
            row = db.execute("SELECT state, device FROM jobs WHERE job_id = ?", [job_id]).fetchone()
            if row is None:
                raise unknown(job_id)
            if row["state"] != QUEUED:
                raise JobError(Problem(f"job {job_id}", f"it is {row['state']}", "Only a waiting job can be moved."))
            sql = f"SELECT job_id, turn FROM jobs WHERE state = 'queued' AND device = ? ORDER BY {choice.ORDER}"
            waiting = db.execute(sql, [row["device"]]).fetchall()
            before = [each["job_id"] for each in waiting]
            after = moved(before, job_id, to)
            if after != before:
                # the turns stay, so that the order within other devices does not change, but none is anybody's equal
                turns = [each["turn"] for each in waiting]
                for index in range(1, len(turns)):
                    turns[index] = max(turns[index], turns[index - 1] + EPSILON)
                db.executemany("UPDATE jobs SET turn = ? WHERE job_id = ?", list(zip(turns, after, strict=True)))
            return after.index(job_id) + 1

    def requeue(self, job_id: str, seconds: float | None = None) -> None:
        """Put a failed, cancelled or lost job at the end of the queue. Raises JobError for any other."""
        with opened(self.path) as db, immediate(db):
            row = db.execute("SELECT state, user FROM jobs WHERE job_id = ?", [job_id]).fetchone()
            if row is None:
                raise unknown(job_id)
            if row["state"] not in RESUMABLE:
                raise JobError(Problem(f"job {job_id}", f"it is {row['state']}", "Only a stopped job can be resumed."))
            db.execute(
                "UPDATE jobs SET state = 'queued', place = (SELECT max(place) + 1 FROM jobs), turn = ?,"
                " started_at = NULL, finished_at = NULL, pid = NULL, pid_started = NULL, cancel_at = NULL,"
                " point = 0, stage = '', progress = 0, eta_seconds = ?, eta_at_half = NULL, eta_error = NULL,"
                " error = NULL, eta_low = NULL, eta_high = NULL, answers = NULL WHERE job_id = ?",
                [choice.turn(db, row["user"]), seconds, job_id],
            )
            trials.again(db, job_id)

    def rates(self, scope: str) -> dict[str, float]:
        """Seconds per unit of each stage, as earlier jobs of this scope (device and base model) showed."""
        with opened(self.path) as db:
            rows = db.execute("SELECT stage, seconds FROM rates WHERE scope = ?", [scope])
            return {row["stage"]: row["seconds"] for row in rows}

    def learn(self, scope: str, rates: Mapping[str, float]) -> None:
        known = self.rates(scope)
        self.set_rates(scope, {stage: blend(known.get(stage), seconds) for stage, seconds in rates.items()})

    def set_rates(self, scope: str, rates: Mapping[str, float]) -> None:
        rows = [(scope, stage, seconds) for stage, seconds in rates.items()]
        with opened(self.path) as db, immediate(db):
            db.executemany("INSERT OR REPLACE INTO rates VALUES (?, ?, ?)", rows)

    def eta_errors(self) -> list[float]:
        """Errors of the remaining time announced at half of each finished job, newest first."""
        with opened(self.path) as db:
            sql = "SELECT eta_error FROM jobs WHERE state = 'done' AND eta_error IS NOT NULL ORDER BY finished_at DESC"
            return [row["eta_error"] for row in db.execute(sql)]


def moved(order: Sequence[str], job_id: str, to: Move) -> list[str]:
    """`order` with `job_id` one place ``up`` or ``down``, or ``first``."""
    place = order.index(job_id)
    target = {"first": 0, "up": max(0, place - 1), "down": place + 1}[to]
    rest = [each for each in order if each != job_id]
    return [*rest[:target], job_id, *rest[target:]]


def unknown(job_id: str) -> JobError:
    return JobError(Problem(f"job {job_id}", "there is no such job", "The queue lists the jobs there are."))


_COLUMNS = (
    *("job_id", "kind", "name", "user", "state", "device", "run_ids", "points", "created_at", "started_at"),
    *("finished_at", "cancel_at", "point", "stage", "progress", "eta_seconds", "eta_error", "error"),
    *("priority", "workers", "devices", "eta_low", "eta_high", "answers"),
)
"""All that a `Job` says; what it is to do may be megabytes"""
_SELECT = f"""
SELECT {", ".join(_COLUMNS)}, CASE WHEN state = 'queued' THEN (
    SELECT count(*) FROM jobs q WHERE q.state = 'queued' AND q.device = jobs.device
    AND (q.turn, -q.priority, q.place) <= (jobs.turn, -jobs.priority, jobs.place)
) END AS queue_position FROM jobs
"""


def _join(db: sqlite3.Connection, job_id: str, device: str, process: Process) -> None:
    """Put a worker on the list; its job runs now, if it did not."""
    now = time.time()
    db.execute(
        "INSERT INTO workers (job, worker, device, place, host, pid, pid_started, heartbeat_at, started_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [job_id, process.name, device, place(device), process.host, process.pid, process.started, now, now],
    )
    db.execute(
        "UPDATE jobs SET state = 'running', started_at = ?, slice_at = ?, heartbeat_at = ?, host = ?, pid = ?,"
        " pid_started = ?, stage = 'Starting' WHERE job_id = ? AND state = 'queued'",
        [now, now, now, process.host, process.pid, process.started, job_id],
    )


def _gone(db: sqlite3.Connection, job_id: str, process: Process | None) -> None:
    """Take a worker, or all of a job's, from the list."""
    only = "" if process is None else " AND worker = ?"
    db.execute(f"DELETE FROM workers WHERE job = ?{only}", [job_id, *([process.name] if process else [])])


def _process(row: sqlite3.Row) -> Process:
    return Process(row["pid"], row["pid_started"], row["host"])


def _end(db: sqlite3.Connection, job_id: str, state: str, error: str | None, *, from_state: str) -> bool:
    sql = (
        "UPDATE jobs SET state = ?, error = ?, finished_at = ?, eta_seconds = NULL, eta_low = NULL, eta_high = NULL,"
        " answers = NULL WHERE job_id = ? AND state = ?"
    )
    ended = db.execute(sql, [state, error, time.time(), job_id, from_state]).rowcount == 1
    if ended:  # no run is kept from other jobs by one that has ended
        sql = "UPDATE trials SET state = 'waiting', lease_until = NULL WHERE job = ? AND state = 'running'"
        db.execute(sql, [job_id])
    return ended


def _job(row: sqlite3.Row) -> Job:
    waiting = row["state"] == QUEUED
    return Job(
        **{name: row[name] for name in ("job_id", "kind", "name", "user", "state", "created_at", "started_at")},
        **{name: row[name] for name in ("finished_at", "point", "points", "eta_seconds", "error", "queue_position")},
        run_ids=listed(row["run_ids"]),
        progress=1.0 if row["state"] == "done" else row["progress"],
        stage=f"Waiting, place {row['queue_position']} in the queue" if waiting else row["stage"],
        device=row["device"],
        eta_error=row["eta_error"],
        cancelling=row["state"] == RUNNING and row["cancel_at"] is not None,
        eta_between=None if row["eta_low"] is None else (row["eta_low"], row["eta_high"]),
        answers=listed(row["answers"], dict),
        priority=row["priority"],
        workers=row["workers"],
        devices=tuple(allowed(listed(row["devices"]), row["device"])),
    )
