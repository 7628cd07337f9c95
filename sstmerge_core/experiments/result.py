"""What an experiment found: tables whose rows lead to runs, sentences, and what was left out. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sstmerge_core import documents, methods
from sstmerge_core.errors import DataError, Problem
from sstmerge_core.experiments.settings import Settings
from sstmerge_core.workspace import Workspace, write_json

PARENTS = {"utility": "U alone", "safety": "S alone", "base": "Base model"}
"""Who is in every contest beside the merges, by side, and what they are called there"""
LEADING = (
    *("pair", "goal", "experts", "expert", "model", "method", "parameters", "run", "first", "second", "base"),
    *("alpha", "weight", "k", "layerwise", "seed", "seeds", "n", "mean", "std", "low", "high", "min", "max"),
    *("settings", "at_edge", "hypervolume", "score", "discrimination", "retention"),
    *("resistance", "over_refusal", "utility", "degenerate", "safety_tax", "reduction_percent"),
)
"""Columns in the order in which they are read; others come after them"""


@dataclass(frozen=True)
class Table:
    """Rows of one kind. `run_id` or `run_ids` in a row are the runs its figures come from."""

    name: str
    title: str
    about: str
    rows: list[dict[str, Any]]

    @property
    def columns(self) -> list[str]:
        """Names of the columns in which something is known, in the order in which they are read."""
        names = dict.fromkeys(name for row in self.rows for name, value in row.items() if value is not None)
        return sorted(names, key=lambda name: LEADING.index(name) if name in LEADING else len(LEADING))


@dataclass(frozen=True)
class Result:
    experiment: str
    question: str
    settings: dict[str, Any]
    judge: str
    base: str
    tables: list[Table]
    analysis: dict[str, Any]
    """Computed conclusions for programs; always with `best_method`: a name, or null where none is shown to be best"""
    findings: list[str]
    """The same in sentences"""
    left_out: list[str] = field(default_factory=list)
    seconds: float = 0.0
    """Of this call; runs known before cost nothing"""
    versions: dict[str, str] = field(default_factory=dict)

    def table(self, name: str) -> Table:
        return next(table for table in self.tables if table.name == name)

    @property
    def why_none(self) -> str:
        """Why no method is called best, in a sentence; empty where one is."""
        if self.analysis.get("best_method"):
            return ""
        return str(self.analysis.get("why") or "No winner: the differences are within noise.")

    @property
    def prompts(self) -> str:
        """``64 prompts a suite``: of the rows that say so, else as the settings have it."""
        names = ("resistance_n", "over_refusal_n", "utility_n")
        counts = [row[name] for table in self.tables for row in table.rows for name in names if row.get(name)]
        counts = [int(one) for one in counts] or [int(self.settings.get("n", 0))]
        least, most = min(counts), max(counts)
        return f"{least if least == most else f'{least} to {most}'} prompts a suite"

    @property
    def run_ids(self) -> list[str]:
        """Every run behind the tables, each once."""
        found: dict[str, None] = {}
        for table in self.tables:
            for row in table.rows:
                found |= dict.fromkeys(filter(None, [row.get("run_id"), *(row.get("run_ids") or ())]))
        return list(found)


def folder(workspace: Workspace) -> Path:
    return workspace.root / "experiments"


def key(experiment: str, settings: Settings) -> str:
    """Name of an experiment's result: the experiment and 12 hexadecimal digits of the settings' SHA-256."""
    text = json.dumps(settings.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return f"{experiment}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def save(workspace: Workspace, settings: Settings, result: Result) -> Path:
    """Write a result, in place of an older one of the same settings."""
    path = folder(workspace) / f"{key(result.experiment, settings)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(result))
    return path


def load(path: Path) -> Result:
    """Raises DataError for a file that is no result."""
    try:
        fields = _of_today(_checked(documents.read_json(path)))
        return Result(**fields | {"tables": [Table(**table) for table in fields["tables"]]})
    except (OSError, ValueError, TypeError, KeyError) as error:
        fix = "Run the experiment again: what it measured is kept."
        raise DataError(Problem(str(path), f"is not the result of an experiment: {error}", fix)) from error


def _checked(fields: Any) -> dict[str, Any]:
    """The fields of a result, each of its type. Raises ValueError that names the one that is not."""

    def check(name: str, value: Any, *kinds: type) -> Any:
        if not isinstance(value, kinds):
            raise ValueError(f"{name} is {type(value).__name__}")
        return value

    kinds: dict[str, type] = {"settings": dict, "tables": list, "analysis": dict, "findings": list}
    texts = dict.fromkeys(("experiment", "question", "judge", "base"), str)
    for name, kind in (kinds | texts).items():
        check(name, check("the file", fields, dict)[name], kind)
    check("left_out", fields.get("left_out", []), list)
    check("seconds", fields.get("seconds", 0), int, float)
    check("versions", fields.get("versions", {}), dict)
    check("settings.n", fields["settings"].get("n", 0), int)
    for text in (*fields["findings"], *fields.get("left_out", [])):
        check("a finding", text, str)
    for table in fields["tables"]:
        for name in ("name", "title", "about"):
            check(f"a table's {name}", check("a table", table, dict)[name], str)
        for row in check("a table's rows", table["rows"], list):
            check("a row", row, dict)
            for name in ("resistance_n", "over_refusal_n", "utility_n"):
                check(name, row.get(name) or 0, int, float)
            for run_id in (row.get("run_id") or "", *check("run_ids", row.get("run_ids") or [], list)):
                check("a run's id", run_id, str)
    return fields


def _of_today(fields: dict[str, Any]) -> dict[str, Any]:
    """A result written when ROUGE-L was the only utility: its columns by the name that they have now."""
    for table in fields["tables"]:
        table["rows"] = [
            {
                name.replace("rouge_l", "utility", 1) if name.startswith("rouge_l") else name: value
                for name, value in row.items()
            }
            for row in table["rows"]
        ]
    return fields


def results(workspace: Workspace, experiment: str) -> list[Path]:
    """Results of one experiment, the newest first."""
    found = folder(workspace).glob(f"{experiment}-*.json")
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def title(name: str) -> str:
    """What an entrant of a contest is called: a method by its title, a parent (`PARENTS`) by its name."""
    return name if name in PARENTS.values() else methods.get(name).title


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of those that were measured; None where none was."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def pick(row: Mapping[str, Any], *metrics: str) -> dict[str, Any]:
    """Value, interval and n of some metrics of an outcome."""
    found: dict[str, Any] = {}
    for metric in metrics:
        found[metric] = row.get(metric)
        low, high = row.get(f"{metric}_ci") or (None, None)
        found |= {f"{metric}_low": low, f"{metric}_high": high, f"{metric}_n": row.get(f"{metric}_n")}
    return found
