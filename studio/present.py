"""How runs stand at this moment: what the queue and the event files tell and the database cannot know."""

from __future__ import annotations

import pandas as pd

from sstmerge_core import jobs
from sstmerge_core.store import events, queries
from studio import remarks, start


def recent(store: start.Store, limit: int) -> pd.DataFrame:
    """The runs started last, with their tags; ``interrupted`` are those whose process died without a word."""
    runs = store.query(queries.recent_runs, limit)
    return remarks.tagged(store, runs.assign(status=list(map(status_of, runs["run_id"], runs["status"]))))


def status_of(run_id: str, status: str) -> str:
    """A run's status as it is just now."""
    workspace = start.workspace()
    if status != "running" or not events.interrupted(workspace.run(run_id)):
        return status
    # a worker of another machine may hold its file without that being seen here; the queue hears from it
    return status if any(run_id in job.run_ids for job in jobs.active(workspace)) else "interrupted"
