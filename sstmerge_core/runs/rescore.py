"""Another judge on the stored answers of a run. Nothing is generated; torch loads only for a judge that is a model.

What is added is events of the run's own file, beside those of the judge it was measured with: the run and its id stay
as they are. Interrupted at any moment, the same call goes on where it stopped; called again, it adds nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sstmerge_core.errors import JobError, Problem
from sstmerge_core.evaluate import metrics
from sstmerge_core.evaluate.agreement import Agreement, agreement
from sstmerge_core.evaluate.judges import Judge, judge_samples
from sstmerge_core.recipe import Suite
from sstmerge_core.store.events import EventWriter, last_status, read_events
from sstmerge_core.workspace import Workspace

CHUNK = 64
"""Answers between two events: what a kill loses at most"""

Row = dict[str, Any]


@dataclass
class Stored:
    """What a finished run's event file holds of its evaluation."""

    suites: list[Suite] = field(default_factory=list)
    samples: dict[str, list[Row]] = field(default_factory=dict)
    """By suite"""
    verdicts: dict[str, dict[str, dict[str, Row]]] = field(default_factory=dict)
    """By judge, suite and prompt"""
    metrics: dict[tuple[str, str, str], Row] = field(default_factory=dict)
    """By metric, suite and judge"""

    def verdicts_by(self, judge_id: str) -> dict[str, list[Row]]:
        """One judge's verdicts by suite, as rows of the ``verdicts`` event."""
        return {suite: list(rows.values()) for suite, rows in self.verdicts.get(judge_id, {}).items()}

    def not_judged(self, judge_id: str, suite: str) -> list[Row]:
        known = self.verdicts.get(judge_id, {}).get(suite, {})
        return [sample for sample in self.samples[suite] if sample["prompt_id"] not in known]

    @property
    def reference(self) -> str:
        """The id of the run that its Safety Tax is measured against; empty where there is none."""
        return next((row["reference"] for row in self.metrics.values() if row.get("reference")), "")

    def add(self, event: Row) -> None:
        name = event["event"]
        if name == "run_started":
            evaluation = (event.get("recipe") or {}).get("evaluation") or {}
            self.suites = [Suite.model_validate(suite) for suite in evaluation.get("suites", [])]
        elif name == "samples":
            self.samples.setdefault(event["suite"], []).extend(event["rows"])
        elif name == "verdicts":
            known = self.verdicts.setdefault(event["judge"], {}).setdefault(event["suite"], {})
            known |= {row["prompt_id"]: row for row in event["rows"]}
        elif name == "metrics":
            self.metrics |= {(row["metric"], row["suite"], row["judge"]): row for row in event["rows"]}


def stored(workspace: Workspace, run_id: str) -> Stored:
    """Raises JobError where there is no such run, it has not finished, or it was never measured."""
    folder = workspace.run(run_id)
    status = last_status(folder)
    if status is None:
        known = '`sstmerge query "SELECT run_id, label FROM leaderboard"` lists the runs.'
        raise JobError(Problem(f"run {run_id}", "there is no such run in this workspace", known))
    if status != "finished":
        raise JobError(Problem(f"run {run_id}", f"has not finished: {status}", "Launch it again, then re-score it."))
    found = Stored()
    for event in read_events(folder):
        found.add(event)
    if not found.samples:
        raise JobError(Problem(f"run {run_id}", "has no stored answers", "Measure it first."))
    return found


@dataclass(frozen=True)
class Rescored:
    run_id: str
    judged: int
    """Answers that this judge had not judged before, the reference run's not counted"""
    metrics: list[Row]
    """All metrics of the run under this judge, rows as in the ``metrics`` event"""


def rescore(
    workspace: Workspace, run_id: str, judge: Judge, progress: Callable[[int, int], None] = lambda done, total: None
) -> Rescored:
    """Judge a run's stored answers and append ``verdicts`` and ``metrics`` where they are new.

    The run that its Safety Tax is measured against is re-scored first if it is here, so that both sides are one
    judge's. `progress` is told (answers done, of all to judge). Raises JobError as `stored` does, StoreError where
    another process writes the run.
    """
    past = stored(workspace, run_id)
    reference = None
    if past.reference and judge.can_tell_refusal and last_status(workspace.run(past.reference)) == "finished":
        _judge_stored(workspace, past.reference, judge)
        reference = stored(workspace, past.reference)
    return _judge_stored(workspace, run_id, judge, reference, progress)


def _judge_stored(
    workspace: Workspace,
    run_id: str,
    judge: Judge,
    reference: Stored | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Rescored:
    with EventWriter(workspace.run(run_id)) as events:  # held from reading to writing, so nobody judges meanwhile
        past = stored(workspace, run_id)
        total = sum(len(past.not_judged(judge.judge_id, suite)) for suite in past.samples)
        begun, done = time.monotonic(), 0
        for suite, chunk in _chunks(past, judge.judge_id):
            progress(done, total)
            verdicts = {"judge": judge.judge_id, "suite": suite, "rows": judge_samples(judge, chunk)}
            events.write("verdicts", **verdicts)
            past.add({"event": "verdicts", **verdicts})
            done += len(chunk)
        rows = _metrics(past, judge, reference)
        new = [row for row in rows if past.metrics.get((row["metric"], row["suite"], row["judge"])) != row]
        if new:
            events.write("metrics", rows=new)
        if done:
            seconds = time.monotonic() - begun
            events.write("stage", stage="rescore", status="done", seconds=seconds, units=done, note=judge.judge_id)
        progress(total, total)
    return Rescored(run_id, done, rows)


def _chunks(past: Stored, judge_id: str) -> Iterator[tuple[str, list[Row]]]:
    for suite in past.samples:
        rows = past.not_judged(judge_id, suite)
        for start in range(0, len(rows), CHUNK):
            yield suite, rows[start : start + CHUNK]


def _metrics(past: Stored, judge: Judge, reference: Stored | None) -> list[Row]:
    """The metrics that rest on the judge's verdicts. ROUGE-L rests on none and stays as it was measured."""
    verdicts = past.verdicts_by(judge.judge_id)
    own: list[Row] = []
    for suite in past.suites:
        rows, by = past.samples[suite.name], verdicts[suite.name]
        own += metrics.suite_metrics(suite.name, suite.role, rows, by, judge, suite.metric)
    own = [row for row in own if row["judge"] == judge.judge_id] + metrics.overall_metrics(verdicts, judge)
    if reference is None:
        return own
    measured = [row for row in past.metrics.values() if row["judge"] in metrics.WITHOUT_JUDGE]
    relative = metrics.relative_metrics(
        own + measured,
        list(reference.metrics.values()),
        metrics.outcomes(past.suites, past.samples, verdicts),
        metrics.outcomes(past.suites, reference.samples, reference.verdicts_by(judge.judge_id)),
        reference=past.reference,
    )
    return own + [row for row in relative if row["judge"] == judge.judge_id]


@dataclass(frozen=True)
class Compared:
    """Two judges on one run."""

    run_id: str
    first: str
    second: str
    found: Agreement
    disagreements: list[Row]
    """suite, prompt_id, prompt, response, and each judge's label as ``first`` and ``second``"""


def compare(workspace: Workspace, run_id: str, first: str, second: str) -> Compared:
    """Two judges' stored verdicts (by judge id) on the answers of one run.

    Raises JobError where a judge has not judged all of them, RecipeError where the two tell different things.
    """
    past = stored(workspace, run_id)
    problems = []
    for judge_id in (first, second):
        lacking = sum(len(past.not_judged(judge_id, suite)) for suite in past.samples)
        if lacking:
            fault = f"{lacking} of its answers have no verdict by {judge_id}"
            fix = f"`sstmerge judge rescore {run_id} --judge {judge_id.partition('@')[0]}` gives them."
            problems.append(Problem(f"run {run_id}", fault, fix))
    if problems:
        raise JobError(problems)
    samples = [(suite, sample) for suite, rows in past.samples.items() for sample in rows]
    one, two = (_labels(past.verdicts[judge_id], samples) for judge_id in (first, second))
    found = agreement(one, two)
    differing = [
        {
            "suite": samples[place][0],
            "prompt_id": samples[place][1]["prompt_id"],
            "prompt": samples[place][1]["prompt"],
            "response": samples[place][1]["response"],
            "first": one[place],
            "second": two[place],
        }
        for place in found.disagreements
    ]
    return Compared(run_id, first, second, found, differing)


def _labels(verdicts: Mapping[str, Mapping[str, Row]], samples: Sequence[tuple[str, Row]]) -> list[str]:
    return [verdicts[suite][sample["prompt_id"]]["label"] for suite, sample in samples]
