"""``sstmerge jobs|query|db``: what runs and what was measured."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from sstmerge_core import words
from sstmerge_core.cli.printing import connected, table
from sstmerge_core.errors import JobError, Problem
from sstmerge_core.workspace import Workspace

_MOVES = ("first", "up", "down")


def register(command: Any) -> None:
    """Add the commands; `command` makes a parser from name, function and description."""
    queue = command("jobs", _jobs, "List, watch, move, cancel and resume queued jobs, and retry their failed points.")
    actions = ["list", "log", *_MOVES, "cancel", "resume", "retry"]
    queue.add_argument(
        "action", nargs="?", choices=actions, default="list", help="first, up and down move a waiting one"
    )
    queue.add_argument("job", nargs="?")

    query = command("query", _query, "Run one SELECT over the accumulated database.")
    query.add_argument("sql")
    query.add_argument("--format", choices=["table", "csv", "json"], default="table")
    query.add_argument("--limit", type=int, default=1000)

    db = command("db", _db, "Maintain the database.")
    db.add_argument("action", choices=["rebuild", "ingest"])


def _jobs(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core import jobs

    if options.action == "list":
        listed = jobs.jobs(workspace)
        at_work: dict[str, list[str]] = {job.job_id: [] for job in listed}
        for one in jobs.workers(workspace):
            at_work.setdefault(one.job_id, []).append(one.device)
        rows = [
            (
                job.job_id,
                job.user or "–",
                ", ".join(at_work[job.job_id]) or job.device,
                f"{job.state} {job.queue_position}" if job.queue_position else job.state,
                f"{job.progress:.0%}",
                job.left.removesuffix(" left") or words.duration(None),
                job.name,
                job.error or "",
            )
            for job in listed
        ]
        table(("job", "who", "device", "state", "done", "left", "name", "error"), rows)
        return
    if not options.job:
        raise JobError(Problem("job", "no id was given", "`sstmerge jobs` lists them."))
    if jobs.job(workspace, options.job) is None:
        raise JobError(Problem(f"job {options.job}", "there is no such job", "`sstmerge jobs` lists them."))
    if options.action == "log":
        print(jobs.log_tail(workspace, options.job, 400))
    elif options.action in _MOVES:
        print(f"number {jobs.move(workspace, options.job, options.action)} in the queue")
    elif options.action == "retry":
        print(jobs.retry(workspace, options.job))
    else:
        {"cancel": jobs.cancel, "resume": jobs.resume}[options.action](workspace, options.job)


def _query(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core import store

    ingest(workspace)
    result = store.run_sql(workspace, options.sql, limit=options.limit)
    if options.format == "json":
        for row in result.rows:
            print(json.dumps(dict(zip(result.columns, row, strict=True)), default=str, ensure_ascii=False))
    elif options.format == "csv":
        import csv

        writer = csv.writer(sys.stdout)
        writer.writerow(result.columns)
        writer.writerows(result.rows)
    else:
        table(result.columns, [["" if value is None else str(value) for value in row] for row in result.rows])
    if result.truncated:
        print(f"Only the first {options.limit:,} rows are shown; --limit gives more.", file=sys.stderr)


def _db(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core import store

    if options.action == "rebuild":
        store.rebuild(workspace)
    ingest(workspace)


def ingest(workspace: Workspace) -> None:
    """Take new events into DuckDB and publish them; where a server owns the database it does that itself."""

    connection = connected(workspace)
    try:
        connection.ingest()
        connection.publish()
    finally:
        connection.close()
