"""Another judge on the stored answers of a run. Nothing is generated; torch loads only for a judge that is a model.

What is added is events of the run's own file, beside those of the judge it was measured with: the run and its id stay
as they are. Interrupted at any moment, the same call goes on where it stopped; called again, it adds nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sstmerge_core import access, metrics
from sstmerge_core.analysis.statistics import usable_clusters
from sstmerge_core.errors import JobError, Problem
from sstmerge_core.evaluate import metric_rows
from sstmerge_core.evaluate.agreement import Agreement, agreement
from sstmerge_core.evaluate.encoders import Scorer
from sstmerge_core.evaluate.judge import Judge, judge_samples
from sstmerge_core.evaluate.judges_endpoint import Usage
from sstmerge_core.metrics import reasoning
from sstmerge_core.recipe import record
from sstmerge_core.recipe.record import RunRecord, answered
from sstmerge_core.store.events import EventWriter, last_status
from sstmerge_core.workspace import Workspace

CHUNK = 64
"""Answers between two events: what a kill loses at most"""

Row = dict[str, Any]


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
    judge's. `progress` is told (answers done, of all to judge). Raises JobError as `record.answered` does, StoreError
    where another process writes the run.
    """
    past = answered(workspace, run_id)
    reference = None
    if past.reference and judge.can_tell_refusal and last_status(workspace.run(past.reference)) == "finished":
        _judge_stored(workspace, past.reference, judge)
        reference = answered(workspace, past.reference)
    return _judge_stored(workspace, run_id, judge, reference, progress)


def _judge_stored(
    workspace: Workspace,
    run_id: str,
    judge: Judge,
    reference: RunRecord | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Rescored:
    with EventWriter(workspace.run(run_id)) as events:  # held from reading to writing, so nobody judges meanwhile
        past = answered(workspace, run_id)
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
            cost = f": {usage.words}" if (usage := usage_of(judge)) and usage.requests else ""
            note = f"{judge.judge_id}{cost}"
            events.write("stage", stage="rescore", status="done", seconds=seconds, units=done, note=note)
        progress(total, total)
    return Rescored(run_id, done, rows)


def usage_of(judge: Judge) -> Usage | None:
    """What a judge behind an endpoint has asked and cost so far; None of any other."""
    found = getattr(getattr(judge, "complete", None), "usage", None)
    return found if isinstance(found, Usage) else None


def _chunks(past: RunRecord, judge_id: str) -> Iterator[tuple[str, list[Row]]]:
    for suite in past.samples:
        rows = past.not_judged(judge_id, suite)
        for start in range(0, len(rows), CHUNK):
            yield suite, rows[start : start + CHUNK]


def _metrics(past: RunRecord, judge: Judge, reference: RunRecord | None) -> list[Row]:
    """The metrics that rest on the judge's verdicts. ROUGE-L rests on none and stays as it was measured."""
    verdicts = past.verdicts_by(judge.judge_id)
    own: list[Row] = []
    for suite in past.suites:
        rows, by = past.samples[suite.name], verdicts[suite.name]
        own += metric_rows.suite_metrics(suite.name, suite.role, rows, by, judge, suite.metric)
    own = [row for row in own if row["judge"] == judge.judge_id]
    own += metric_rows.run_metrics(past.suites, past.samples, verdicts, judge)
    if reference is None:
        return own
    measured = [row for row in past.metrics.values() if row["judge"] in metrics.without_judge()]
    relative = metric_rows.relative_metrics(
        own + measured,
        list(reference.metrics.values()),
        metric_rows.outcomes(past.suites, past.samples, verdicts),
        metric_rows.outcomes(past.suites, reference.samples, reference.verdicts_by(judge.judge_id)),
        reference=past.reference,
        topics=metric_rows.prompt_topics(past.samples),
    )
    return own + [row for row in relative if row["judge"] == judge.judge_id]


def score(workspace: Workspace, run_id: str, *, missing_answers_are_fine: bool = False) -> list[Row]:
    """Compute the metrics that need no judge and that a finished run lacks, from its stored answers; the new rows.

    They are appended to the run's events; a call that finds nothing new writes nothing. Raises JobError as
    `record.answered` does, unless `missing_answers_are_fine`; StoreError where another process writes the run.
    """
    access.require("score")
    if missing_answers_are_fine and not record.read(workspace.run(run_id)).batches:
        return []
    answered(workspace, run_id)  # before the file is opened for writing, which would make it
    with EventWriter(workspace.run(run_id)) as events:
        past = answered(workspace, run_id)
        missing = metric_rows.lacking(past.suites, {(metric, suite) for metric, suite, _ in past.metrics})
        new = [
            row
            for suite in past.suites
            if any(name == suite.name for _, name in missing)
            for row in metric_rows.answer_metrics(suite.name, suite.role, past.samples[suite.name], suite.metric)
            if (row["metric"], row["suite"]) in missing
        ]
        if new:
            events.write("metrics", rows=new)
        return new


def score_by_encoder(
    workspace: Workspace, run_id: str, scorer: Scorer, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Row]:
    """Compute what an encoder says of a run's stored answers to its utility prompts; its rows, new or not.

    They are appended to the run's events where they are new. `progress` is told (answers done, of all). Raises JobError
    as `record.answered` does, and where the run has no answers with a reference.
    """
    access.require("score")
    answered(workspace, run_id)
    with EventWriter(workspace.run(run_id)) as events:
        past = answered(workspace, run_id)
        chosen = [suite.name for suite in past.suites if suite.role in scorer.metric.suites]
        asked = [(suite, row) for suite in chosen for row in past.samples.get(suite, ()) if row["reference"]]
        if not asked:
            fix = "Measure it on a task's prompts first."
            raise JobError(Problem(f"run {run_id}", "has no answers with a reference answer", fix))
        texts = [(row["reference"], reasoning.answer(row["response"])) for _, row in asked]
        found = scorer.scores(texts, progress)
        by_suite: dict[str, dict[str, float]] = {suite: {} for suite, _ in asked}
        for (suite, row), value in zip(asked, found, strict=True):
            by_suite[suite][row["prompt_id"]] = value
        rows = [
            metric_rows.encoded_metric(scorer.metric, suite, past.samples[suite], values, scorer.name)
            for suite, values in by_suite.items()
        ]
        new = [row for row in rows if past.metrics.get((row["metric"], row["suite"], row["judge"])) != row]
        if new:
            events.write("metrics", rows=new)
        return rows


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
    past = answered(workspace, run_id)
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
    found = agreement(one, two, usable_clusters(sample.get("topic") for _, sample in samples))
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
