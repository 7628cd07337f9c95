"""Jobs: submit, watch, cancel, resume. Importing this needs neither torch nor DuckDB."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from sstmerge_core import access
from sstmerge_core.analysis.screening import Screening
from sstmerge_core.errors import JobError, Problem
from sstmerge_core.jobs import history, leases, logs
from sstmerge_core.jobs.backends import LOCAL, NAMES, RAY, SLURM, missing, unreachable
from sstmerge_core.jobs.devices import canonical, default_device, is_shared, spread
from sstmerge_core.jobs.dispatch import holding, reconcile, settle, stop
from sstmerge_core.jobs.leases import Lease
from sstmerge_core.jobs.model import INSPECTION, Job, Worker, expected_starts
from sstmerge_core.jobs.queue import Move, Queue, unknown
from sstmerge_core.jobs.trials import Count, Trials
from sstmerge_core.recipe import Recipe, Source, validated
from sstmerge_core.store import audit
from sstmerge_core.store.events import EventWriter, last_status
from sstmerge_core.workspace import Workspace

__all__ = [
    "Count",
    "Job",
    "Lease",
    "Worker",
    "active",
    "cancel",
    "default_device",
    "enqueue",
    "eta_error",
    "expected_starts",
    "holders",
    "holding",
    "job",
    "jobs",
    "log_tail",
    "move",
    "needing",
    "reconcile",
    "resume",
    "retry",
    "submit",
    "trial_count",
    "wait",
    "workers",
    "working_on",
]


def submit(
    workspace: Workspace,
    recipes: Sequence[Recipe],
    *,
    name: str,
    user: str = "",
    kind: str = "merge",
    device: str | None = None,
    sources: Mapping[str, Source] | None = None,
    experiment: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    seconds: float | None = None,
    screening: Screening | None = None,
    workers: int | None = None,
    priority: int = 0,
    backend: str = LOCAL,
    address: str = "",
) -> str:
    """Put a job into the queue and start it if its device is free; returns its id.

    `kind` is ``merge``, ``sweep`` (also recorded in the table of sweeps), ``inspect``, which takes `sources` (base,
    utility, safety) and no recipes, ``experiment``, which takes `experiment` (its name and settings), or ``train``,
    which takes `training` (a `jobs.training.Training` as a mapping). `seconds` is how long a job without recipes should
    take, where that is known; that of recipes is predicted here. With `screening` the recipes are screened first and
    only the best carried out, by one worker here. Up to `workers` share the recipes; None: one for each GPU where no
    `device` is named, on the CPU as many as ``SSTMERGE_WORKERS`` says, else one. Among jobs whose turn is the same the
    one of the higher `priority` is first. `backend` is ``local``, ``ray`` (a cluster at `address`, or one that is
    started here) or ``slurm`` (`address` ``local``: as processes of this machine). Raises JobError when there is
    nothing to do or nobody to do it, and where the backend is not installed or its cluster does not answer.
    """
    if kind == "inspect":
        if set(sources or {}) != {"base", "utility", "safety"}:
            raise JobError(Problem(name, "an inspection needs base, utility and safety", "Pass them as `sources`."))
    elif kind == "experiment":
        if set(experiment or {}) != {"name", "settings"}:
            raise JobError(Problem(name, "an experiment needs its name and settings", "Pass them as `experiment`."))
    elif kind == "train":
        if not training:
            raise JobError(Problem(name, "a training needs its base, rows and settings", "Pass them as `training`."))
    elif not recipes:
        raise JobError(Problem(name, "there is nothing to merge", "Choose at least one method and one α."))
    if workers is not None and workers < 1:
        raise JobError(Problem(f"workers {workers}", "nobody would work", "Give 1 or more, or none for the default."))
    access.require("launch")
    read = [(training or {}).get(name) for name in ("files", "suite")]
    for text in _texts([experiment or {}, *read]):
        access.named(text)
    user = user or _visitor()
    job_id = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
    run_ids = [recipe.run_id for recipe in recipes]
    spec: dict[str, Any] = {"recipes": [recipe.model_dump(mode="json") for recipe in recipes]}
    spec |= {"experiment": dict(experiment)} if experiment else {}
    spec |= {"screening": asdict(screening)} if screening else {}
    spec |= {"training": dict(training), "base": training["base"]} if training else {}
    spec |= {side: source.model_dump(mode="json") for side, source in (sources or {}).items()}
    named = recipes[0].device if recipes else ""
    where = canonical(device or (INSPECTION if kind == "inspect" else named or default_device()))
    shared = recipes and screening is None
    devices, count = spread(where, workers) if shared else ([where], 1)
    if (device or named) and not is_shared(where):
        devices, count = [where], 1  # that GPU and no other
    count = min(count, max(1, len(recipes)))
    if backend != LOCAL and screening is None:
        if backend not in NAMES:
            raise JobError(Problem(f"backend {backend}", "is not known", f"Use {', '.join(NAMES)}."))
        if (how := missing(backend)) is not None:
            raise JobError(Problem(f"backend {backend}", "is not installed", f"`{how}`"))
        if backend == RAY and (fault := unreachable(address)) is not None:
            fix = "`ray start --head` starts a cluster and says its address; without one Ray starts here."
            raise JobError(Problem(f"address {address}", fault, fix))
        spec["backend"] = {"name": backend, "address": address, "workers": max(workers or 1, 1)}
        spec["backend"] |= {"cluster": address} if backend == SLURM else {}
        # this machine collects, whatever computes; what is started on it has its device, a cluster is one of its own
        where = where if backend == RAY and not address else backend
        devices, count = [where], 1
    workspace.create()
    if kind == "sweep":
        with EventWriter(workspace.catalog) as events:
            fields = {"sweep_id": job_id, "name": name, "user": user, "recipe_count": len(recipes), "run_ids": run_ids}
            events.write("sweep_submitted", **fields)
    if recipes:
        seconds = history.predict(workspace, recipes, where, screening)
    with audit.act(workspace, "launch", "launched", f"job {job_id}", about=name):
        Queue(workspace).add(
            job_id,
            kind=kind,
            name=name,
            user=user,
            device=where,
            spec=spec,
            run_ids=run_ids,
            seconds=seconds / count if seconds is not None else None,
            recipes=recipes if screening is None else (),
            devices=devices,
            workers=count,
            priority=priority,
        )
    settle(workspace)
    return job_id


def enqueue(workspace: Workspace, kind: str, name: str, spec: Mapping[str, Any], *, device: str, user: str = "") -> str:
    """Put a job without recipes into the queue of `device` and start it if that is free; returns its id."""
    job_id = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
    workspace.create()
    with audit.act(workspace, "launch", "launched", f"job {job_id}", about=name):
        queue, user = Queue(workspace), user or _visitor()
        where = canonical(device)
        queue.add(job_id, kind=kind, name=name, user=user, device=where, spec=dict(spec), run_ids=[])
    settle(workspace)
    return job_id


def working_on(workspace: Workspace, run_ids: Sequence[str]) -> Job | None:
    """The job, running or waiting, that has all of these runs already: asking for them again would do nothing new."""
    wanted = set(run_ids)
    return next((job for job in active(workspace) if wanted and wanted <= set(job.run_ids)), None)


def retry(workspace: Workspace, job_id: str, run_ids: Sequence[str] | None = None, *, user: str = "") -> str:
    """A new job of those points of a job alone, None: of all that failed; returns its id.

    The job itself may be running on. Raises JobError for an unknown job and where there is no such point.
    """
    queue = Queue(workspace)
    asked = queue.job(job_id) if workspace.queue.exists() else None
    if asked is None:
        raise unknown(job_id)
    recipes = [validated(recipe, f"job {job_id}") for recipe in queue.spec(job_id).get("recipes", [])]
    if run_ids is None:
        run_ids = [run_id for run_id in asked.run_ids if last_status(workspace.run(run_id)) == "failed"]
    again = [recipe for recipe in recipes if recipe.run_id in set(run_ids)]
    name = again[0].label if len(again) == 1 else f"{len(again)} points"
    called = f"Retry {name} of {asked.name}"
    return submit(workspace, again, name=called, user=user, device=asked.device, workers=asked.workers)


def jobs(workspace: Workspace, limit: int = 50) -> list[Job]:
    """The newest jobs first, with the queue brought in line with reality."""
    if not workspace.queue.exists():
        return []
    settle(workspace)
    return Queue(workspace).jobs(limit)


def active(workspace: Workspace) -> list[Job]:
    """Every job that runs or waits: the running ones first, then in the order of the queue."""
    if not workspace.queue.exists():
        return []
    settle(workspace)
    return Queue(workspace).active()


def workers(workspace: Workspace) -> list[Worker]:
    """Who is at work on which device, the oldest first."""
    return Queue(workspace).workers() if workspace.queue.exists() else []


def holders(workspace: Workspace) -> list[Lease]:
    """Who else computes on a device: the Playground, and commands in a terminal."""
    return leases.held(workspace) if workspace.queue.exists() else []


def trial_count(workspace: Workspace, job_id: str) -> Count:
    """How many of a job's runs wait, run, are done and have failed; those they are compared with included."""
    return Trials(workspace, job_id, "").count() if workspace.queue.exists() else Count()


def needing(workspace: Workspace, sha256: str) -> list[Job]:
    """The active jobs that read the adapter or base model of this content."""
    if not workspace.queue.exists():
        return []
    queue = Queue(workspace)
    return [job for job in active(workspace) if sha256 in json.dumps(queue.spec(job.job_id))]


def job(workspace: Workspace, job_id: str) -> Job | None:
    if not workspace.queue.exists():
        return None
    settle(workspace)
    return Queue(workspace).job(job_id)


def cancel(workspace: Workspace, job_id: str) -> None:
    """Stop a job: at once when it waits; by SIGTERM to each of its workers, and SIGKILL 5 s later, when it runs.

    Returns immediately. A job that has ended is left alone. Raises JobError for an unknown one.
    """
    queue = Queue(workspace)
    asked = _known(workspace, job_id)
    whose = f"job {job_id}", f"{asked.name} of {asked.user}" if asked.user else asked.name
    if not asked.active:
        return
    with audit.act(workspace, access.whose("cancel", asked.user), "cancelled", whose[0], about=whose[1]):
        if queue.ask_to_stop(job_id) == "running":
            for running, process, _, _ in queue.running():
                if running.job_id == job_id and process.local:
                    stop(workspace, process)
    settle(workspace)


def move(workspace: Workspace, job_id: str, to: Move) -> int:
    """Move a waiting job ``first``, ``up`` or ``down`` in the queue of its device; its new position, 1 is next.

    Raises JobError for a job that does not wait.
    """
    asked = _known(workspace, job_id)
    with audit.act(workspace, access.whose("move", asked.user), f"moved {to}", f"job {job_id}", about=asked.name):
        return Queue(workspace).move(job_id, to)


def resume(workspace: Workspace, job_id: str) -> None:
    """Queue a failed, cancelled or lost job again; its finished runs are skipped. Raises JobError for any other."""
    reconcile(workspace)
    queue = Queue(workspace)
    stopped = queue.job(job_id)
    seconds = None
    if stopped is not None and stopped.run_ids:
        spec = queue.spec(job_id)
        recipes = [validated(recipe, f"job {job_id}") for recipe in spec["recipes"]]
        screening = Screening(**spec["screening"]) if spec.get("screening") else None
        seconds = history.predict(workspace, recipes, stopped.device, screening)
    with audit.act(workspace, "launch", "resumed", f"job {job_id}", about=stopped.name if stopped else ""):
        queue.requeue(job_id, seconds)
    settle(workspace)


def _known(workspace: Workspace, job_id: str) -> Job:
    """The job. Raises JobError where there is none."""
    found = Queue(workspace).job(job_id) if workspace.queue.exists() else None
    if found is None:
        raise unknown(job_id)
    return found


def _texts(value: Any) -> Iterator[str]:
    """Every text within lists and mappings: of an experiment's settings any may be the path of a base or of prompts."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts(list(value.values()))
    elif isinstance(value, Sequence):
        for one in value:
            yield from _texts(one)


def _visitor() -> str:
    """The name under which who sits at the dashboard launches; empty at the command line."""
    who = access.actor()
    return who.name if who.origin == "dashboard" else ""


def wait(workspace: Workspace, job_id: str, *, timeout: float | None = None, poll: float = 0.2) -> Job:
    """The job once it has ended. Raises JobError for an unknown job or after `timeout` seconds."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        current = job(workspace, job_id)
        if current is None:
            raise unknown(job_id)
        if not current.active:
            return current
        if deadline is not None and time.monotonic() >= deadline:
            raise JobError(Problem(f"job {job_id}", f"it is still {current.state}", "Wait longer, or cancel it."))
        time.sleep(poll)


def log_tail(workspace: Workspace, job_id: str, lines: int = 40) -> str:
    """The last lines of what the job's worker printed; '' when it has not started."""
    return logs.tail(workspace.logs / f"{Path(job_id).name}.log", lines)


def eta_error(workspace: Workspace) -> float | None:
    """Median relative error of the remaining time announced at half of each finished job; None before the first."""
    errors = Queue(workspace).eta_errors() if workspace.queue.exists() else []
    return median(errors) if errors else None
