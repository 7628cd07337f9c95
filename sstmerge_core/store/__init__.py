"""Events, the DuckDB file made from them, snapshots and sandboxed queries. Importing this needs no DuckDB."""

from sstmerge_core.store.events import EventWriter, read_events
from sstmerge_core.store.owner import DamagedError, HeldError, Owner, Snapshot, connect, file_errors, rebuild
from sstmerge_core.store.sandbox import QueryError, QueryResult, run_sql

__all__ = [
    "DamagedError",
    "EventWriter",
    "HeldError",
    "Owner",
    "QueryError",
    "QueryResult",
    "Snapshot",
    "connect",
    "file_errors",
    "read_events",
    "rebuild",
    "run_sql",
]
