"""A colleague's SQL over the published snapshot, in a process of its own that can do nothing but read it.

Limits within DuckDB do not hold (an interrupt took 48 s on one function, `repeat` ignored the memory limit): each
query gets a fresh child with operating-system limits and is killed when its time is up.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import threading
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

CONTEXT = 60
"""Characters shown on each side of an error's place"""
INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
AT_ONCE = 4
"""Queries of one server at work at the same time; each may take a core and its memory"""
PATIENCE = 2.0
"""Seconds that a further one waits for a place"""
_PLACES = threading.BoundedSemaphore(AT_ONCE)
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
        """The rows as a DataFrame; a whole number stays one beside NULL (``Int64``)."""
        import pandas as pd

        frame = pd.DataFrame(self.rows, columns=self.columns)
        whole = [name for name, kind in zip(self.columns, self.types, strict=True) if kind in INTEGERS]
        return frame.astype(dict.fromkeys(whole, "Int64"))

    def parquet(self) -> bytes:
        """The rows as a Parquet file; structs, maps and whole numbers beyond 64 bits become text."""
        import pyarrow as pa
        from pyarrow import parquet

        frame, file = self.frame(), io.BytesIO()
        columns = [_arrow(pa, frame[name]) for name in self.columns]
        parquet.write_table(pa.Table.from_arrays(columns, names=self.columns), file)
        return file.getvalue()


class QueryError(StoreError):
    """A query that was refused, with its place in the SQL where DuckDB names one."""

    def __init__(self, fault: str, sql: str, line: int | None = None, column: int | None = None):
        self.line, self.column = line, column
        """Both count from 1."""
        self.excerpt = "" if line is None or column is None else _excerpt(sql, line, column)
        """The line of the SQL with a mark below the place; empty where there is none."""
        where = "query" if line is None else f"query, line {line}, column {column}"
        super().__init__(Problem(where, fault, FIX))


def _excerpt(sql: str, line: int, column: int) -> str:
    text = sql.split("\n")[line - 1]
    start, end = max(0, column - 1 - CONTEXT), column - 1 + CONTEXT
    before, after = "…" if start else "", "…" if end < len(text) else ""
    return f"{before}{text[start:end]}{after}\n{' ' * (len(before) + column - 1 - start)}^"


def run_sql(workspace: Workspace, sql: str, *, limit: int = 1000, timeout: float = 10.0) -> QueryResult:
    """Run one SELECT (or DESCRIBE, SHOW, SUMMARIZE, FROM …, EXPLAIN) over the newest published snapshot.

    At most `limit` rows come back. Raises QueryError (a StoreError) with the reason and, where DuckDB names it, the
    place: not a SELECT, DuckDB's own message, more memory than allowed; and StoreError where nothing is published yet
    or it took longer than `timeout` seconds (the child is then dead), or `AT_ONCE` others are being answered.
    """
    database = snapshot.newest(workspace.snapshots)
    if database is None:
        raise StoreError(Problem("query", "nothing has been published yet", "Open the dashboard, or finish a run."))
    if limit < 1:
        raise StoreError(Problem("query", f"a limit of {limit} rows is not usable", "Ask for at least one row."))
    request = {"database": str(database), "sql": sql, "limit": limit, "seconds": max(1, round(timeout))}
    start = time.monotonic()
    if not _PLACES.acquire(timeout=PATIENCE):
        fault = f"{AT_ONCE} queries are being answered already"
        raise StoreError(Problem("query", fault, "Ask again in a few seconds."))
    try:
        answer = _ask(request, timeout)
    finally:
        _PLACES.release()
    if "error" in answer:
        raise QueryError(answer["error"], sql, answer.get("line"), answer.get("column"))
    rows = [tuple(row) for row in answer["rows"]]
    rows = _with_times(rows, answer["types"])
    return QueryResult(answer["columns"], answer["types"], rows, answer["truncated"], time.monotonic() - start)


def _arrow(pa: Any, column: pd.Series) -> Any:
    def text(cell: Any) -> str | None:
        return None if cell is None else json.dumps(cell, ensure_ascii=False) if _nested(cell) else str(cell)

    if column.dtype == object and any(_nested(cell) for cell in column):
        return pa.array([text(cell) for cell in column])
    try:
        return pa.array(column, from_pandas=True)
    except (pa.ArrowException, OverflowError):
        return pa.array([text(cell) for cell in column])


def _nested(cell: Any) -> bool:
    return isinstance(cell, dict) or (isinstance(cell, list) and any(_nested(item) for item in cell))


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
