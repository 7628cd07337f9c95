"""Who computes on a device beside the workers: the Playground and commands in a terminal.

A GPU is one holder's: its memory cannot be shared out. The CPU is everybody's, so a lease of it says who is there and
keeps nobody away. A lease ends with the process that has it, however it ends.
"""

from __future__ import annotations

import os
import sqlite3
import time
from dataclasses import dataclass

from sstmerge_core.jobs.database import immediate, opened
from sstmerge_core.jobs.devices import canonical, is_shared, place
from sstmerge_core.jobs.process import Process
from sstmerge_core.workspace import Workspace


@dataclass(frozen=True)
class Lease:
    device: str
    holder: str
    """``Playground``, or what was typed: ``sstmerge evaluate``"""
    user: str
    process: Process
    since: float


def held(workspace: Workspace) -> list[Lease]:
    """Leases of processes that live, the oldest first."""
    with opened(workspace.queue) as db:
        rows = db.execute("SELECT * FROM leases ORDER BY since").fetchall()
    found = [(row, Process(row["pid"], row["pid_started"], row["host"])) for row in rows]
    return [
        Lease(row["device"], row["holder"], row["user"], process, row["since"])
        for row, process in found
        if not process.local or process.alive()
    ]


def forget_the_dead(workspace: Workspace) -> None:
    """Take away the leases of processes of this machine that have ended."""
    with opened(workspace.queue) as db:
        for row in db.execute("SELECT * FROM leases").fetchall():
            process = Process(row["pid"], row["pid_started"], row["host"])
            if process.local and not process.alive():
                sql = "DELETE FROM leases WHERE place = ? AND host = ? AND pid = ? AND pid_started = ?"
                db.execute(sql, [row["place"], row["host"], row["pid"], row["pid_started"]])


def take(workspace: Workspace, device: str, holder: str, user: str = "") -> str | None:
    """Have a device for this process; None, or in words who has it."""
    device, process = canonical(device), Process.of(os.getpid())
    where = place(device)
    workspace.create()
    if workspace.queue.exists():
        forget_the_dead(workspace)
    with opened(workspace.queue) as db, immediate(db):
        if not is_shared(device) and (by := _holder(db, where, process)) is not None:
            return by
        db.execute(
            "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [where, device, holder, user, process.host, process.pid, process.started, time.time()],
        )
    return None


def give_back(workspace: Workspace, device: str) -> None:
    """Let go of what `take` gave; harmless without."""
    process = Process.of(os.getpid())
    with opened(workspace.queue) as db:
        sql = "DELETE FROM leases WHERE place = ? AND host = ? AND pid = ?"
        db.execute(sql, [place(device), process.host, process.pid])


def _holder(db: sqlite3.Connection, where: str, process: Process) -> str | None:
    """Who has a place that is not this process."""
    sql = "SELECT j.name, j.user FROM workers w JOIN jobs j ON j.job_id = w.job WHERE w.place = ? LIMIT 1"
    if (row := db.execute(sql, [where]).fetchone()) is not None:
        return f"the job {row['name']}" + (f" of {row['user']}" if row["user"] else "")
    sql = "SELECT holder, user FROM leases WHERE place = ? AND NOT (host = ? AND pid = ?) LIMIT 1"
    if (row := db.execute(sql, [where, process.host, process.pid]).fetchone()) is not None:
        return str(row["holder"]) + (f" of {row['user']}" if row["user"] else "")
    return None
