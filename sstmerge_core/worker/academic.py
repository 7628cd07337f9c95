"""Academic benchmarks of a run, an adapter or the base: the model is put together once, every task measures it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sstmerge_core.builder import recipe_file
from sstmerge_core.builder.preflight import is_finished
from sstmerge_core.errors import JobError, Problem
from sstmerge_core.evaluate import academic
from sstmerge_core.recipe import Recipe, record, validated
from sstmerge_core.runs import execute
from sstmerge_core.runs.session import Session, chosen_device, put_on
from sstmerge_core.store.events import EventWriter, last_status
from sstmerge_core.suites.declared import Harness
from sstmerge_core.workspace import Workspace


@dataclass(frozen=True)
class Settings:
    """How the harness asks; None is the task's own."""

    limit: int | None = None
    few_shot: int | None = None
    batch_size: int = 8
    include: Path | None = None
    samples: int = 1
    chat: bool = False
    execute_code: bool = False


def recipe_of(run_id: str, workspace: Workspace) -> Recipe:
    """A finished run's recipe with the places of its inputs here. Raises JobError for a run that has not
    finished, RecipeError for a recipe that cannot be read."""
    status = last_status(workspace.run(run_id)) if "/" not in run_id else None
    if status != "finished":
        fault = f"is {status}, not finished" if status else "is not known here"
        raise JobError(Problem(f"run {run_id}", fault, '`sstmerge query "SELECT run_id, label FROM runs"` lists them.'))
    started = record.started(workspace.run(run_id)) or {}
    return recipe_file.locate(validated(started["recipe"], f"run {run_id}"), workspace)


def measure(
    recipe: Recipe,
    workspace: Workspace,
    tasks: Sequence[Harness],
    settings: Settings,
    *,
    dtype: str = "float32",
    device: str = "auto",
    progress: Callable[[str], None] = lambda task: None,
) -> list[dict[str, Any]]:
    """Measure the tasks on a recipe's model; the metric rows, which are recorded with its run as each task ends.

    A recipe that has not run yet, such as that of an adapter alone, is carried out first. The model has the dtype of
    the run's own evaluation, else `dtype`. Raises RecipeError before any work where a task cannot be measured.
    """
    academic.check(tasks, settings.execute_code)
    session = Session(workspace, chosen_device(device, [recipe]))
    if not is_finished(workspace, recipe):
        execute.run(recipe, session)
    dtype = recipe.evaluation.dtype if recipe.evaluation else dtype
    resident = session.model(recipe.base, dtype, kept=session.kept(recipe))
    put_on(recipe, resident, execute.merge_now(recipe, session))
    asked = {name: value for name, value in vars(settings).items() if name != "execute_code"}
    found = []
    for task in tasks:
        progress(task.task)
        begun = time.monotonic()
        rows = academic.run(resident, task, **asked)
        with EventWriter(workspace.run(recipe.run_id)) as events:
            note = f"{rows[0]['judge'] if rows else ''} few_shot={task.few_shot} {asked} dtype={dtype}"
            events.write("metrics", rows=rows)
            seconds, units = time.monotonic() - begun, max((row["n"] for row in rows), default=0)
            events.write("stage", stage=f"academic:{task.task}", status="done", seconds=seconds, units=units, note=note)
        found += rows
    return found
