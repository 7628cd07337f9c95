"""Stands in for the real work in tests: no torch, a few event lines, behaviour chosen by the recipe's parameters."""

from __future__ import annotations

import os
import signal
import time

from sstmerge_core.errors import Cancelled, DataError, Problem
from sstmerge_core.store.events import EventWriter, last_status


def opened(recipes, workspace):
    return None


def execute(recipes, workspace, *, report, tell, should_cancel, user, job_id, session, onlooker=None):
    for point, recipe in enumerate(recipes):
        if last_status(workspace.run(recipe.run_id)) != "finished":
            _one(point, recipe, workspace, report, should_cancel, user, job_id)


def inspect(sources, workspace, *, report, should_cancel, user, job_id):
    report(0, "inspect", 0, 1)
    with EventWriter(workspace.pairs / "pair") as events:
        events.write("pair_inspected", pair_id="pair", **{side: source.sha256 for side, source in sources.items()})
    report(0, "inspect", 1, 1)


def _one(point, recipe, workspace, report, should_cancel, user, job_id):
    parameters = recipe.parameters
    with EventWriter(workspace.run(recipe.run_id)) as events:
        events.write("run_started", run_id=recipe.run_id, pair=recipe.pair, user=user, job_id=job_id, pid=os.getpid())
        print("MALLOC", os.environ.get("MALLOC_MMAP_THRESHOLD_"), os.environ.get("MALLOC_TRIM_THRESHOLD_"), flush=True)
        if parameters.get("ends") == "data":
            raise DataError(Problem("prompts.csv", "it has no rows", "Choose another file."))
        if parameters.get("ends") == "bug":
            raise ZeroDivisionError("no\nluck")
        if parameters.get("ends") == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if parameters.get("stubborn"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        steps = parameters.get("steps", 3)
        for step in range(steps + 1):
            report(point, parameters.get("stage", "generate:harmful"), step, steps)
            if should_cancel() and not parameters.get("stubborn"):
                events.write("run_cancelled")
                raise Cancelled
            if step < steps:
                time.sleep(parameters.get("sleep", 0.01))
        events.write("run_finished", seconds=1.0)
