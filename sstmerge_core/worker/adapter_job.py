"""The adapter of a run whose weights are not here, as a job of the queue: fetched from the content store where that has
it, otherwise merged again; nothing is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from sstmerge_core.builder import recipe_command, recipe_file
from sstmerge_core.errors import JobError, Problem
from sstmerge_core.jobs import default_device, enqueue
from sstmerge_core.jobs.model import Job
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.recipe import Recipe, record
from sstmerge_core.runs import located
from sstmerge_core.workspace import Workspace

KIND = "adapter"


def submit(workspace: Workspace, run_id: str, *, label: str = "", user: str = "") -> str:
    """Queue the merge of a run's recipe; returns the job's id.

    Raises JobError where the run is not here or is no merge, and what `recipe_file.locate` raises where one of its
    inputs is missing.
    """
    if not located.merged_in_store(workspace, run_id):
        _located(workspace, run_id, fetch=False)
    spec = {"adapter": {"run_id": run_id}}
    return enqueue(workspace, KIND, f"Adapter of {label or run_id}", spec, device=default_device(), user=user)


def run(
    workspace: Workspace,
    spec: Mapping[str, str],
    *,
    report: Callable[[int, str, float, float], None],
    should_cancel: Callable[[], bool],
) -> None:
    """Do it, in the worker. Raises what `submit` and the merge raise."""
    from sstmerge_core.runs.execute import FETCH, remake

    if sha256 := located.merged_in_store(workspace, spec["run_id"]):
        located.bring_back(workspace, spec["run_id"], sha256, partial(report, 0, FETCH))
        print(f"{sha256} of the content store", flush=True)
        return
    recipe = _located(workspace, spec["run_id"])
    written = remake(recipe, workspace, device=default_device(), report=report, should_cancel=should_cancel)
    print(f"{written.sha256} in {workspace.merged_adapter(recipe.run_id)}", flush=True)


def last(workspace: Workspace, run_id: str) -> Job | None:
    """The newest such job of a run among the latest jobs."""
    if not workspace.queue.exists():
        return None
    queue = Queue(workspace)
    found = (job for job in queue.jobs(50) if job.kind == KIND)
    return next((job for job in found if queue.spec(job.job_id)["adapter"]["run_id"] == run_id), None)


def _located(workspace: Workspace, run_id: str, *, fetch: bool = True) -> Recipe:
    recipe = recipe_command.stored(record.read(workspace.run(run_id)).recipe)
    if recipe is None or recipe.method in ("adapter", "base"):
        fault = "is no merge" if recipe else "there is no such run in this workspace"
        raise JobError(Problem(f"run {run_id}", fault, "Choose a run that was merged here."))
    return recipe_file.locate(recipe, workspace, fetch=fetch)
