"""Who needs a run: what is told before it is deleted, and what keeps its weights from being pruned. No torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from sstmerge_core import catalog
from sstmerge_core.errors import DataError
from sstmerge_core.experiments import result
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.store import trash
from sstmerge_core.store.events import last_status
from sstmerge_core.words import count
from sstmerge_core.workspace import Workspace

DAY = 86_400.0


def uses(workspace: Workspace, run_id: str, *, compared: Iterable[str] = (), sweeps: Iterable[str] = ()) -> list[str]:
    """Who refers to a run, a sentence each; empty where nobody does.

    `compared` are the runs measured against it, `sweeps` the names of those that it is a point of.
    """
    found = []
    if workspace.queue.exists():
        jobs = [job for job in Queue(workspace).jobs(1000) if job.active and run_id in job.run_ids]
        found += [f"The job “{job.name}” is {job.state} and works on it." for job in jobs]
    if others := list(compared):
        found.append(f"{count(len(others), 'run')} took it as the reference of the Safety Tax: {_few(others)}.")
    if points := list(sweeps):
        found.append(f"It is a point of {count(len(points), 'sweep')}: {_few(points)}.")
    if named := [path.stem for path in _results(workspace) if run_id in _run_ids(path)]:
        found.append(f"It stands behind the tables of {count(len(named), 'experiment')}: {_few(named)}.")
    if registered := [entry.name for entry in catalog.entries(workspace) if _within(entry.path, workspace, run_id)]:
        found.append(f"Its adapter is registered as {_few(registered)}: merges with it would find no weights.")
    return found


@dataclass(frozen=True)
class Prunable:
    """An adapter whose weights can go, because its recipe makes them again."""

    run_id: str
    bytes: int
    written_at: float


def prunable(
    workspace: Workspace, *, older_than: float = 0.0, keep: Callable[[str], bool] = lambda run_id: False
) -> list[Prunable]:
    """Weights of finished runs, written more than `older_than` seconds ago, that nothing needs; the oldest first.

    Needed is an adapter that is registered, one that an active job works on, and one that `keep` says so of.
    """
    registered = [Path(entry.path).resolve() for entry in catalog.entries(workspace)]
    active: set[str] = set()
    if workspace.queue.exists():
        active = {run_id for job in Queue(workspace).jobs(1000) if job.active for run_id in job.run_ids}
    found = []
    for folder in workspace.run_folders():
        run_id, file = folder.name, trash.weights(workspace, folder.name)
        if file is None or run_id in active or keep(run_id) or last_status(folder) != "finished":
            continue
        if any(path.is_relative_to(folder.resolve()) for path in registered):
            continue
        told = file.stat()
        if time.time() - told.st_mtime >= older_than:
            found.append(Prunable(run_id, told.st_size, told.st_mtime))
    return sorted(found, key=lambda one: (one.written_at, one.run_id))


def _within(path: Path, workspace: Workspace, run_id: str) -> bool:
    return Path(path).resolve().is_relative_to(workspace.run(run_id).resolve())


def _results(workspace: Workspace) -> list[Path]:
    return sorted(result.folder(workspace).glob("*.json"))


def _run_ids(path: Path) -> list[str]:
    try:
        return result.load(path).run_ids
    except DataError:
        return []


def _few(names: Iterable[str], most: int = 3) -> str:
    shown = list(names)
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")
