"""Events → rows of the tables. Pure: no DuckDB, no files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sstmerge_core.metrics import default_utility
from sstmerge_core.metrics.comparable import evaluation_key, setting_key
from sstmerge_core.store import audit, remarks

Row = dict[str, Any]

KEYS: dict[str, tuple[str, ...]] = {
    "adapters": ("sha256",),
    "runs": ("run_id",),
    "metrics": ("run_id", "metric", "suite", "judge"),
    "samples": ("run_id", "suite", "prompt_id"),
    "verdicts": ("run_id", "suite", "prompt_id", "judge"),
    "spectra": ("run_id", "module", "idx"),
    "module_stats": ("subject", "module", "stat"),
    "pair_inspections": ("pair_id",),
    "sweeps": ("sweep_id",),
    "annotations": ("run_id", "kind", "key"),
    "events": ("run_id", "seq"),
    "audit": ("seq",),
}
FIRST_WINS = frozenset({"samples", "sweeps", "events", "audit"})
"""Tables whose rows never change once written; in the others the latest event wins."""

PARTIAL = frozenset({"runs", "adapters", "annotations"})
"""Tables with events that say nothing about some columns: those keep what an earlier event said"""

DESCRIPTION = (
    "source", "pair", "base", "utility", "safety", "method", "label", "alpha", "k", "layerwise", "mode", "seed",
    "parameters", "recipe", "device", "dtype", "versions", "user", "job_id",
)  # fmt: skip
_STATUS = {"run_finished": "finished", "run_failed": "failed", "run_cancelled": "cancelled"}
_TRACED = frozenset({"run_started", "stage", "plan", "artifact", *_STATUS, "pair_inspected"})


@dataclass
class Batch:
    """Rows to write in one transaction, one per key, in the order in which they came."""

    tables: dict[str, dict[tuple[Any, ...], Row]] = field(default_factory=lambda: {name: {} for name in KEYS})
    events: int = 0
    size: int = 0
    """Bytes of event lines behind the rows."""

    def add_line(self, owner: str, offset: int, event: Row | None, size: int) -> None:
        """Fold one line of the file of `owner` (run_id, pair_id or ``catalog``) that starts at byte `offset`.

        `event` is None for a line that is not an event: it is kept in sight as an ``unreadable_line`` event, and so is
        one whose fields are not what its name says. One such line stops nothing.
        """
        self.events += 1
        self.size += size
        unreadable = {"event": "unreadable_line", "t": 0.0, "bytes": size}
        try:
            rows = list(_rows(owner, offset, event or unreadable))
        except Exception:  # JSON of any shape may lie in a file that was damaged, or comes from elsewhere
            rows = list(_rows(owner, offset, unreadable))
        for table, row in rows:
            self._put(table, row)

    def _put(self, table: str, row: Row) -> None:
        key = tuple(row.get(column) for column in KEYS[table])
        if any(part is None or isinstance(part, (list, dict)) for part in key):
            return
        rows = self.tables[table]
        if table in FIRST_WINS:
            rows.setdefault(key, row)
        else:
            rows[key] = _later(rows[key], row) if table in PARTIAL and key in rows else row


def utc(t: float | None) -> str | None:
    """Epoch seconds as an ISO text in UTC without a zone, which is what a DuckDB TIMESTAMP holds."""
    return None if t is None else datetime.fromtimestamp(t, UTC).replace(tzinfo=None).isoformat(timespec="microseconds")


def _later(old: Row, new: Row) -> Row:
    """`new` over `old`: what a later event does not say stays; of two starts the first gives `created_at`."""
    merged = old | {key: value for key, value in new.items() if value is not None}
    if "status" in new:
        merged |= {key: new.get(key) for key in ("status", "finished_at", "seconds", "peak_memory_bytes", "error")}
    if old.get("created_at"):
        merged["created_at"] = old["created_at"]
    return merged


def _rows(owner: str, offset: int, event: Row) -> Iterator[tuple[str, Row]]:
    name, time = event["event"], utc(event["t"])
    if name in _TRACED or name == "unreadable_line":
        data = {key: value for key, value in event.items() if key not in ("event", "t")}
        yield "events", {"run_id": owner, "seq": offset, "t": time, "event": name, "data": data}
    if name == "run_started":
        yield "runs", _started(owner, time, event)
    elif name in _STATUS:
        yield "runs", _ended(owner, time, event)
    elif name in ("samples", "verdicts", "metrics"):
        yield from ((name, row) for row in _outcomes(owner, event))
    elif name == "spectrum":
        for index, value in enumerate(event.get("eigenvalues") or []):
            yield "spectra", {"run_id": owner, "module": event.get("module") or "", "idx": index, "eigenvalue": value}
    elif name == "module_stats":
        for row in event.get("rows") or []:
            yield "module_stats", row | {"subject": owner, "module": row.get("module") or ""}
    elif name == "pair_inspected":
        yield "pair_inspections", event | {"pair_id": owner, "inspected_at": time}
    elif name == "sweep_submitted":
        yield "sweeps", event | {"created_at": time}
    elif name == audit.EVENT and owner == audit.OWNER:
        yield "audit", audit.row(offset, time, event)
    elif name == "adapter_added":
        yield "adapters", event | {"added_at": time, "removed": False}
    elif name == "adapter_removed":
        yield "adapters", {"sha256": event.get("sha256"), "removed": True}
    else:
        yield from remarks.rows(owner, time, event)


def _started(run_id: str, time: str | None, event: Row) -> Row:
    row = {column: event.get(column) for column in DESCRIPTION}
    row |= {side: _name(row[side]) for side in ("base", "utility", "safety")}
    row["source"] = row["source"] or "measured"
    status = {"status": "running", "finished_at": None, "seconds": None, "peak_memory_bytes": None, "error": None}
    return row | status | {"run_id": run_id, "created_at": time} | _measured_on(event.get("recipe"))


def _ended(run_id: str, time: str | None, event: Row) -> Row:
    return {
        "run_id": run_id,
        "status": _STATUS[event["event"]],
        "finished_at": time,
        "seconds": event.get("seconds"),
        "peak_memory_bytes": event.get("peak_memory_bytes"),
        "error": event.get("error"),
    }


def _outcomes(run_id: str, event: Row) -> Iterator[Row]:
    """Rows of samples, verdicts and metrics; what the event says of all its rows is filled in."""
    for row in event.get("rows") or []:
        suite = row.get("suite") or event.get("suite") or ""
        judge = row.get("judge") or event.get("judge") or ""
        yield row | {"run_id": run_id, "suite": suite, "judge": judge}


def _name(source: Any) -> Any:
    return source.get("name") if isinstance(source, dict) else source


def _measured_on(recipe: Any) -> Row:
    evaluation = (recipe or {}).get("evaluation") or {}
    suites = evaluation.get("suites") or []
    roles = ("harmful", "benign", "utility")
    own: Row = {role: next((suite for suite in suites if suite.get("role") == role), {}) for role in roles}
    return {
        "comparable": evaluation_key(recipe, "*", (own["utility"] or {}).get("name") or "") or None,
        "setting": setting_key(recipe) or None,
        "backend": evaluation.get("backend", "transformers") if suites else None,
        **{f"{role}_suite": first.get("name") for role, first in own.items()},
        "utility_metric": default_utility(own["utility"].get("metric")) if own["utility"] else None,
        "split": next((suite.get("split") for suite in suites), None),
    }
