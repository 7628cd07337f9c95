"""A colleague's SQL over the published snapshot, in a process of its own that can do nothing but read it.

Limits within DuckDB do not hold (an interrupt took 48 s on one function, `repeat` ignored the memory limit): each
query gets a fresh child with operating-system limits and is killed when its time is up.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstmerge_core.errors import Problem, StoreError
from sstmerge_core.store import snapshot
from sstmerge_core.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

CHILD = Path(__file__).with_name("sandbox_child.py")
FIX = "Change the query; the tables and their columns are listed on the Query page."


@dataclass(frozen=True)
class QueryResult:
    columns: list[str]
    types: list[str]
    """DuckDB types, one a column."""
    rows: list[tuple[Any, ...]]
    truncated: bool
    """There are more rows than were asked for."""
    seconds: float

    def frame(self) -> pd.DataFrame:
        """The rows as a DataFrame (columns keep their names, even doubled ones)."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=self.columns)


def run_sql(workspace: Workspace, sql: str, *, limit: int = 1000, timeout: float = 10.0) -> QueryResult:
    """Run one SELECT (or DESCRIBE, SHOW, SUMMARIZE, FROM …, EXPLAIN) over the newest published snapshot.

    At most `limit` rows come back. Raises StoreError with the reason: no snapshot yet, not a SELECT, DuckDB's own
    message, more memory than allowed, or longer than `timeout` seconds (the child is then dead).
    """
    database = snapshot.newest(workspace.snapshots)
    if database is None:
        raise StoreError(Problem("query", "nothing has been published yet", "Open the dashboard, or finish a run."))
    if limit < 1:
        raise StoreError(Problem("query", f"a limit of {limit} rows is not usable", "Ask for at least one row."))
    request = {"database": str(database), "sql": sql, "limit": limit, "seconds": max(1, round(timeout))}
    start = time.monotonic()
    answer = _ask(request, timeout)
    if "error" in answer:
        raise StoreError(Problem("query", answer["error"], FIX))
    rows = [tuple(row) for row in answer["rows"]]
    rows = _with_times(rows, answer["types"])
    return QueryResult(answer["columns"], answer["types"], rows, answer["truncated"], time.monotonic() - start)


def _ask(request: dict[str, Any], timeout: float) -> dict[str, Any]:
    # -I: no PYTHON* variables, no user site, no current folder on the path. The environment holds nothing to steal.
    try:
        child = subprocess.run(
            [sys.executable, "-I", str(CHILD)],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=timeout,
            env={"LC_ALL": "C.UTF-8"},
            cwd="/",
        )
    except subprocess.TimeoutExpired:
        fault = f"the query took longer than {timeout:g} s and was stopped"
        raise StoreError(Problem("query", fault, "Select less, or aggregate more cleverly.")) from None
    with contextlib.suppress(ValueError):
        return json.loads(child.stdout)
    fault = f"the query's process ended without an answer (exit code {child.returncode})"
    raise StoreError(Problem("query", fault, "It most likely needed more memory or processor time than allowed."))


def _with_times(rows: list[tuple[Any, ...]], types: list[str]) -> list[tuple[Any, ...]]:
    """Texts of TIMESTAMP columns as datetimes again."""
    times = {index for index, kind in enumerate(types) if kind.startswith("TIMESTAMP")}
    if not times:
        return rows
    return [tuple(_time(cell) if index in times else cell for index, cell in enumerate(row)) for row in rows]


def _time(cell: Any) -> Any:
    with contextlib.suppress(ValueError, TypeError):
        return datetime.fromisoformat(cell)
    return cell
