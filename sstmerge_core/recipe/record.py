"""A run as its event file tells it: the one reader of what a run recorded. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sstmerge_core.errors import JobError, Problem
from sstmerge_core.recipe import Suite
from sstmerge_core.store.events import last_status, read_events
from sstmerge_core.workspace import Workspace

Row = dict[str, Any]


@dataclass
class RunRecord:
    """What the events so far hold. A run that was resumed says some things twice: the last one counts."""

    started: Row | None = None
    """The last ``run_started`` event: recipe, pair, method, label, device, versions …"""
    finished: Row | None = None
    """The ``run_finished`` event: seconds, peak_memory_bytes"""
    artifact: Row | None = field(default=None, compare=False)
    """The last ``artifact`` event: the SHA-256 of the adapter that was written, and whether it is to stay"""
    suites: list[Suite] = field(default_factory=list)
    """Of the recipe's evaluation, in its order"""
    plans: dict[str, list[Any]] = field(default_factory=dict)
    """suite → its batch plan, as recorded first: it is replayed on resume"""
    batches: dict[str, dict[int, list[Row]]] = field(default_factory=dict)
    """suite → number of the batch → answers"""
    generating_seconds: float = 0.0
    verdicts: dict[str, dict[str, dict[str, Row]]] = field(default_factory=dict)
    """judge → suite → prompt id → verdict"""
    metrics: dict[tuple[str, str, str], Row] = field(default_factory=dict)
    """(metric, suite, judge) → row"""
    probes: dict[float, tuple[float, float | None]] = field(default_factory=dict)
    """α → utility on the selection prompts, in points of 100, and over-refusal where it has a limit: the strengths that
    were tried for a budget"""

    def add(self, event: Row) -> None:
        """Take in one more event; those that say nothing of these are passed over."""
        name = event["event"]
        if name == "run_started":
            self.started, self.finished = event, None
            self.suites = [Suite.model_validate(suite) for suite in _evaluation(event).get("suites") or []]
        elif name == "run_finished":
            self.finished = event
        elif name == "artifact":
            self.artifact = event
        elif name == "plan":
            self.plans.setdefault(event["suite"], event["batches"])
        elif name == "samples":
            batches = self.batches.setdefault(event["suite"], {})
            batches[event.get("batch", len(batches))] = event["rows"]
            self.generating_seconds += event.get("seconds") or 0.0
        elif name == "verdicts":
            known = self.verdicts.setdefault(event["judge"], {}).setdefault(event["suite"], {})
            known |= {row["prompt_id"]: row for row in event["rows"]}
        elif name == "metrics":
            self.metrics |= {(row["metric"], row["suite"], row.get("judge") or ""): row for row in event["rows"]}
        elif name == "budget_probe":
            # before other metrics than ROUGE-L could measure a budget, the field was called so
            score = event["score"] if "score" in event else event["rouge_l"]
            self.probes[event["alpha"]] = (score, event.get("over_refusal"))

    @property
    def recipe(self) -> Row:
        """The recipe as recorded; empty for a run that never started."""
        return (self.started or {}).get("recipe") or {}

    @property
    def samples(self) -> dict[str, list[Row]]:
        """suite → answers, in the order in which they were recorded."""
        return {suite: [row for rows in batches.values() for row in rows] for suite, batches in self.batches.items()}

    @property
    def reference(self) -> str:
        """The id of the run that its Safety Tax is measured against; empty where there is none."""
        return next((row["reference"] for row in self.metrics.values() if row.get("reference")), "")

    def verdicts_by(self, judge_id: str) -> dict[str, list[Row]]:
        """One judge's verdicts by suite, as rows of the ``verdicts`` event."""
        return {suite: list(rows.values()) for suite, rows in self.verdicts.get(judge_id, {}).items()}

    def not_judged(self, judge_id: str, suite: str) -> list[Row]:
        """The answers of a suite that a judge has not judged."""
        known = self.verdicts.get(judge_id, {}).get(suite, {})
        return [sample for sample in self.samples[suite] if sample["prompt_id"] not in known]


def of_events(events: Iterable[Row]) -> RunRecord:
    found = RunRecord()
    for event in events:
        found.add(event)
    return found


def read(folder: Path) -> RunRecord:
    """What the event file in `folder` holds; nothing where there is none."""
    return of_events(read_events(folder))


def started(folder: Path) -> Row | None:
    """The first ``run_started`` event alone, without reading the answers behind it; None where there is none."""
    return next((event for event in read_events(folder) if event["event"] == "run_started"), None)


def answered(workspace: Workspace, run_id: str) -> RunRecord:
    """A finished run with stored answers.

    Raises JobError where there is no such run, it has not finished, or it was never measured.
    """
    folder = workspace.run(run_id)
    # a name that leads out of the folder of runs is no run, whatever lies there
    status = last_status(folder) if run_id and workspace.is_run(folder) else None
    if status is None:
        known = '`sstmerge query "SELECT run_id, label FROM leaderboard"` lists the runs.'
        raise JobError(Problem(f"run {run_id}", "there is no such run in this workspace", known))
    if status != "finished":
        raise JobError(Problem(f"run {run_id}", f"has not finished: {status}", "Launch it again, then re-score it."))
    found = read(folder)
    if not found.batches:
        raise JobError(Problem(f"run {run_id}", "has no stored answers", "Measure it first."))
    return found


def _evaluation(event: Row) -> Row:
    return (event.get("recipe") or {}).get("evaluation") or {}
