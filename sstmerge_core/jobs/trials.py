"""A job's points as rows that workers claim: which is next, whose it is, and what became of it.

A trial is ``waiting``, ``running``, ``done`` or ``failed``. A run that others are compared with is a trial of its own
and comes first; what needs it waits for it. A trial goes back to ``waiting`` when its worker is gone, and its next
attempt has a higher number: what an older attempt still says is not taken.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sstmerge_core.jobs.database import immediate, opened
from sstmerge_core.jobs.plan import calibration_key
from sstmerge_core.recipe import Recipe
from sstmerge_core.workspace import Workspace

LEASE = 60.0
"""Seconds for which a worker holds its trial from its last sign of life on"""
MOST_LOST = 3
"""Workers that one trial may take with it before it counts as failed"""
TOOK_ITS_WORKER = "Its worker ended without a word {times} times: it was killed, or the memory was not enough."
REFERENCE, POINT = "a reference", "point"
"""Parts, in the order in which they are claimed"""


@dataclass(frozen=True)
class Trial:
    """One run that a worker has claimed."""

    job: str
    run: str
    number: int
    """Index of the point of the job; of a reference that of the first point that needs it"""
    part: str
    needs: str | None
    family: str
    """Points of one family share gradients"""
    attempt: int


@dataclass(frozen=True)
class Count:
    waiting: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0

    @property
    def open(self) -> int:
        return self.waiting + self.running


class Trials:
    """The trials of one job, as one worker sees them. Opened anew for every operation, as the queue is."""

    def __init__(self, workspace: Workspace, job: str, worker: str):
        self._path, self._job, self._worker = workspace.queue, job, worker

    def fill(self, recipes: Sequence[Recipe]) -> None:
        """Rows for recipes that have none yet."""
        with opened(self._path) as db, immediate(db):
            insert(db, self._job, recipes)

    def next(self, family: str | None = None) -> Trial | None:
        """Claim a trial, of `family` where one waits; None where none can be claimed now."""
        with opened(self._path) as db, immediate(db):
            return claim(db, self._job, self._worker, family)

    def ended(self, trial: Trial, state: str, error: str | None = None, *, then: bool = False) -> Trial | None:
        """Note what became of a trial, and with `then` claim the next in the same transaction.

        Nothing is noted for an attempt that somebody else has taken over since. What needs a run that failed fails
        with it.
        """
        with opened(self._path) as db, immediate(db):
            end(db, trial, self._worker, state, error)
            return claim(db, self._job, self._worker, trial.family) if then else None

    def count(self) -> Count:
        with opened(self._path) as db:
            return count(db, self._job)

    def faults(self) -> list[str]:
        """Of the trials that failed, each once, in the order of the points."""
        sql = "SELECT error FROM trials WHERE job = ? AND state = 'failed' AND error IS NOT NULL ORDER BY number, part"
        with opened(self._path) as db:
            return list(dict.fromkeys(row["error"] for row in db.execute(sql, [self._job])))

    def elsewhere(self) -> tuple[set[int], int]:
        """Points that other workers have done or are at, and how many workers there are."""
        sql = "SELECT number FROM trials WHERE job = ? AND part = 'point' AND state != 'waiting' AND worker IS NOT ?"
        with opened(self._path) as db:
            numbers = {row["number"] for row in db.execute(sql, [self._job, self._worker])}
            workers = db.execute("SELECT count(*) AS n FROM workers WHERE job = ?", [self._job]).fetchone()["n"]
        return numbers, max(1, workers)


def insert(db: sqlite3.Connection, job: str, recipes: Sequence[Recipe]) -> None:
    """Rows of a job's recipes, and of the runs that they are compared with."""
    db.executemany(
        "INSERT OR IGNORE INTO trials (job, run, number, part, needs, family) VALUES (?, ?, ?, ?, ?, ?)",
        _rows(job, recipes),
    )


def _rows(job: str, recipes: Sequence[Recipe]) -> Iterator[tuple[str, str, int, str, str | None, str]]:
    own = {recipe.run_id for recipe in recipes}
    references = [recipe.reference.run_id if recipe.reference else None for recipe in recipes]
    needed = set(references)
    keys: dict[str, str] = {}
    for number, (recipe, needs) in enumerate(zip(recipes, references, strict=True)):
        key = calibration_key(recipe) if recipe.calibration else ""
        family = keys.setdefault(key, str(len(keys)) if key else "")
        if needs is not None and needs not in own:
            yield job, needs, number, REFERENCE, None, ""
        yield job, recipe.run_id, number, REFERENCE if recipe.run_id in needed else POINT, needs, family


def claim(db: sqlite3.Connection, job: str, worker: str, family: str | None) -> Trial | None:
    """The next trial for `worker`, within a transaction: what others wait for, then what shares its gradients, then
    of what fewest work on, in the order of the points. One run is never claimed twice at a time, by whatever job."""
    row = _waiting(db, job, "part = ?", [REFERENCE], "number")
    if row is None and family is not None:
        row = _waiting(db, job, "family = ?", [family], "number")
    if row is None:
        row = _of_another_family(db, job)
    if row is None:
        return None
    now = time.time()
    db.execute(
        "UPDATE trials SET state = 'running', worker = ?, attempt = attempt + 1, lease_until = ?, started_at = ?,"
        " finished_at = NULL, error = NULL WHERE job = ? AND run = ?",
        [worker, now + LEASE, now, job, row["run"]],
    )
    names = ("job", "run", "number", "part", "needs", "family")
    return Trial(**{name: row[name] for name in names}, attempt=row["attempt"] + 1)


CLAIMABLE = """
SELECT * FROM trials t WHERE t.job = ? AND t.state = 'waiting' AND t.{where}
AND NOT EXISTS (SELECT 1 FROM trials n WHERE n.job = t.job AND n.run = t.needs AND n.state IN ('waiting', 'running'))
AND NOT EXISTS (SELECT 1 FROM trials o WHERE o.run = t.run AND o.state = 'running')
ORDER BY t.{order} LIMIT 1
"""


def _waiting(db: sqlite3.Connection, job: str, where: str, values: list[str], order: str) -> sqlite3.Row | None:
    found: sqlite3.Row | None = db.execute(CLAIMABLE.format(where=where, order=order), [job, *values]).fetchone()
    return found


def _of_another_family(db: sqlite3.Connection, job: str) -> sqlite3.Row | None:
    sql = "SELECT family, min(number) AS first FROM trials WHERE job = ? AND state = 'waiting' GROUP BY family"
    waiting = {row["family"]: row["first"] for row in db.execute(sql, [job])}
    sql = "SELECT family, count(*) AS n FROM trials WHERE job = ? AND state = 'running' GROUP BY family"
    busy = {row["family"]: row["n"] for row in db.execute(sql, [job])}
    for family in sorted(waiting, key=lambda family: (busy.get(family, 0), waiting[family])):
        if (row := _waiting(db, job, "family = ?", [family], "number")) is not None:
            return row
    return None


def end(db: sqlite3.Connection, trial: Trial, worker: str, state: str, error: str | None) -> bool:
    """Note what became of a trial; whether it was still this worker's attempt."""
    noted = db.execute(
        "UPDATE trials SET state = ?, error = ?, finished_at = ?, lease_until = NULL"
        " WHERE job = ? AND run = ? AND state = 'running' AND worker = ? AND attempt = ?",
        [state, error, time.time(), trial.job, trial.run, worker, trial.attempt],
    ).rowcount
    if noted and state == "failed":
        fail_dependents(db, trial.job, trial.run, error)
    return bool(noted)


def fail_dependents(db: sqlite3.Connection, job: str, run: str, error: str | None) -> None:
    """What is compared with a run that could not be measured cannot be measured either."""
    db.execute(
        "UPDATE trials SET state = 'failed', error = ?, finished_at = ? WHERE job = ? AND needs = ?"
        " AND state = 'waiting'",
        [error, time.time(), job, run],
    )


def release(db: sqlite3.Connection, job: str, worker: str, *, lost: bool) -> None:
    """Give back what a worker held; `lost`: it is gone without a word, and what took too many with it has failed."""
    held = db.execute("SELECT run, lost FROM trials WHERE job = ? AND worker = ? AND state = 'running'", [job, worker])
    for row in held.fetchall():
        times = row["lost"] + lost
        error = TOOK_ITS_WORKER.format(times=times) if times >= MOST_LOST else None
        db.execute(
            "UPDATE trials SET state = ?, lost = ?, error = ?, lease_until = NULL WHERE job = ? AND run = ?",
            ["failed" if error else "waiting", times, error, job, row["run"]],
        )
        if error:
            fail_dependents(db, job, row["run"], error)


def extend(db: sqlite3.Connection, job: str, worker: str) -> None:
    """A sign of life: what the worker holds stays its own for another `LEASE` seconds."""
    sql = "UPDATE trials SET lease_until = ? WHERE job = ? AND state = 'running' AND worker = ?"
    db.execute(sql, [time.time() + LEASE, job, worker])


def again(db: sqlite3.Connection, job: str) -> None:
    """Have every trial of a job that is resumed looked at anew; those whose run is finished take no time."""
    db.execute(
        "UPDATE trials SET state = 'waiting', worker = NULL, lost = 0, lease_until = NULL, error = NULL WHERE job = ?",
        [job],
    )


def count(db: sqlite3.Connection, job: str) -> Count:
    rows = db.execute("SELECT state, count(*) AS n FROM trials WHERE job = ? GROUP BY state", [job])
    return Count(**{row["state"]: row["n"] for row in rows})
