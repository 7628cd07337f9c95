"""Who is next: by turns, so that nobody waits for all jobs of another, then by priority, then by the time of asking.

A job's turn is one after the last of its user's and no earlier than what has started: start-time fair queueing (Goyal,
Vin and Cheng 1996, doi 10.1109/90.649569) with jobs of equal weight. Everything here is within a transaction of
`jobs.queue`.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Iterable

from sstmerge_core.jobs import trials
from sstmerge_core.jobs.database import listed
from sstmerge_core.jobs.devices import allowed, is_shared, place

ORDER = "turn, priority DESC, place"
SLICE = 600.0
"""Seconds that a job keeps its last device while another user waits for it; loading a model again takes some ten"""
_WAITING = f"SELECT job_id, user, device, devices FROM jobs WHERE state = 'queued' ORDER BY {ORDER}"


def turn(db: sqlite3.Connection, user: str) -> float:
    """Of a job that `user` adds now."""
    started = db.execute("SELECT max(turn) AS last FROM jobs WHERE state != 'queued' AND started_at > 0").fetchone()[
        "last"
    ]
    sql = "SELECT max(turn) AS last FROM jobs WHERE user = ? AND state IN ('queued', 'running')"
    own = db.execute(sql, [user]).fetchone()["last"]
    return float(max(started or 0.0, own or 0.0)) + 1.0


def put_before_lesser(db: sqlite3.Connection, job_id: str, user: str) -> None:
    """Have a user's new job take the turn of their first that waits with a lower priority; those after it move up."""
    sql = f"SELECT job_id, turn, priority FROM jobs WHERE state = 'queued' AND user = ? ORDER BY {ORDER}"
    own = db.execute(sql, [user]).fetchall()
    new = next(row for row in own if row["job_id"] == job_id)
    order = [row for row in own if row["job_id"] != job_id]
    at = next((index for index, row in enumerate(order) if row["priority"] < new["priority"]), len(order))
    order.insert(at, new)
    turns = sorted(row["turn"] for row in own)
    rows = [(turn, row["job_id"]) for turn, row in zip(turns, order, strict=True)]
    db.executemany("UPDATE jobs SET turn = ? WHERE job_id = ?", rows)


def next_worker(db: sqlite3.Connection) -> tuple[str, str] | None:
    """The job that gets a worker now, and the device. What waits comes before what has a worker already."""
    taken, held = _taken(db), _held(db)
    waiting = db.execute(_WAITING).fetchall()
    for row in waiting:
        if (device := _free(_devices(row), taken, held)) is not None:
            return row["job_id"], device
    wanted = {place(device) for row in waiting for device in _devices(row)}
    sql = "SELECT * FROM jobs WHERE state = 'running' AND workers > 1 AND cancel_at IS NULL"
    for row in db.execute(f"{sql} ORDER BY {ORDER}").fetchall():
        if (device := _another(db, row, taken, held, wanted)) is not None:
            return row["job_id"], device
    return None


def free_device(db: sqlite3.Connection, job_id: str) -> str | None:
    """A device for a job that waits; None where all of its devices are taken, or it does not wait."""
    row = db.execute("SELECT * FROM jobs WHERE job_id = ? AND state = 'queued'", [job_id]).fetchone()
    return None if row is None else _free(_devices(row), _taken(db), _held(db))


def must_leave(db: sqlite3.Connection, job_id: str, worker: str) -> bool:
    """Whether a worker that is between two trials is to make room."""
    sql = "SELECT place, device FROM workers WHERE job = ? AND worker = ?"
    own = db.execute(sql, [job_id, worker]).fetchone()
    job = db.execute("SELECT * FROM jobs WHERE job_id = ?", [job_id]).fetchone()
    if own is None or job is None:
        return False
    if _is_over(db, job, own["place"]):
        return True
    others = db.execute("SELECT 1 FROM workers WHERE job = ? AND worker != ?", [job_id, worker]).fetchone()
    return others is not None and not is_shared(own["device"]) and bool(_waiting_for(db, own["place"]))


def _another(
    db: sqlite3.Connection, row: sqlite3.Row, taken: dict[str, Counter[str]], held: set[str], wanted: set[str]
) -> str | None:
    """A device for one more worker of a job that runs; None where it has as many as it may have, or has use for."""
    job, count = row["job_id"], trials.count(db, row["job_id"])
    have = sum(jobs[job] for jobs in taken.values())
    if not count.waiting or have >= min(row["workers"], count.open):
        return None
    for device in _devices(row):
        where = place(device)
        at_it = taken.get(where, Counter())
        if where in held or set(at_it) - {job}:
            continue
        if is_shared(device):
            if not _is_over(db, row, where):
                return device
        elif not at_it and where not in wanted:
            return device
    return None


def _is_over(db: sqlite3.Connection, job: sqlite3.Row, where: str) -> bool:
    """Whether a job has had its time at a place for which another user waits."""
    waiting = _waiting_for(db, where)
    had = time.time() - (job["slice_at"] or job["started_at"] or time.time())
    return bool(waiting) and waiting[0]["user"] != job["user"] and had >= SLICE


def _waiting_for(db: sqlite3.Connection, where: str) -> list[sqlite3.Row]:
    return [row for row in db.execute(_WAITING) if where in map(place, _devices(row))]


def _devices(row: sqlite3.Row) -> list[str]:
    return allowed(listed(row["devices"]), row["device"])


def _free(devices: Iterable[str], taken: dict[str, Counter[str]], held: set[str]) -> str | None:
    return next((one for one in devices if place(one) not in held and place(one) not in taken), None)


def _taken(db: sqlite3.Connection) -> dict[str, Counter[str]]:
    """How many workers of which jobs are at which place."""
    found: dict[str, Counter[str]] = {}
    for row in db.execute("SELECT place, job FROM workers"):
        found.setdefault(row["place"], Counter())[row["job"]] += 1
    return found


def _held(db: sqlite3.Connection) -> set[str]:
    """Places that somebody else than a worker has for himself."""
    return {row["place"] for row in db.execute("SELECT place, device FROM leases") if not is_shared(row["device"])}
