"""Rows of jobs that ended long ago: a queue that is used for years would hold the recipes of every one of them."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

from sstmerge_core.errors import OF_SQLITE, JobError, Problem
from sstmerge_core.workspace import Workspace

_BEYOND = """
SELECT job_id, length(spec) + length(run_ids) AS bytes FROM jobs WHERE state NOT IN ('queued', 'running')
ORDER BY coalesce(finished_at, created_at) DESC LIMIT -1 OFFSET ?
"""
_TABLES = {"jobs": "job_id", "trials": "job", "workers": "job"}
"""Tables with rows of a job, where a queue has them, and the column that names it"""


def beyond(workspace: Workspace, most: int) -> list[tuple[str, int]]:
    """The jobs that have ended beyond the newest `most`, each with the bytes of its row. Raises JobError."""
    if not workspace.queue.exists():
        return []
    with _opened(workspace) as db:
        return [(str(row[0]), int(row[1])) for row in db.execute(_BEYOND, [most])]


def forget(workspace: Workspace, job_ids: list[str]) -> None:
    """Delete the rows of jobs that have ended; what they learned and made stays. Raises JobError."""
    with _opened(workspace) as db, db:
        here = {str(row[0]) for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        ended = "SELECT job_id FROM jobs WHERE job_id = ? AND state NOT IN ('queued', 'running')"
        for job_id in job_ids:
            if db.execute(ended, [job_id]).fetchone() is None:  # resumed since
                continue
            for table, column in _TABLES.items():
                if table in here:
                    db.execute(f"DELETE FROM {table} WHERE {column} = ?", [job_id])


@contextlib.contextmanager
def _opened(workspace: Workspace) -> Iterator[sqlite3.Connection]:
    try:
        with contextlib.closing(sqlite3.connect(workspace.queue, timeout=30)) as db:
            yield db
    except OF_SQLITE as error:
        raise JobError(Problem(str(workspace.queue), f"cannot be written ({error})", "Try again later.")) from error
