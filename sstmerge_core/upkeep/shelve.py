"""Finished runs out of the one folder in which all are written, into a folder for each beginning of their ids.

Looking for news costs a `stat` a run in the one and one a folder in the others. A run moves by one rename, while nobody
writes it; its id, its database rows and everything that names it by id stay as they are.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from sstmerge_core import catalog
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.store.events import FILE_NAME, last_status
from sstmerge_core.workspace import Workspace, sync

QUIET = 86_400.0
"""Seconds without news after which a run may move"""


def movable(workspace: Workspace, most: int) -> list[Path]:
    """The runs beyond the newest `most` of the common folder that have been quiet for a day, the oldest first.

    By what the file system says alone: whether one is finished is looked at when it moves. Not those that an active job
    works on, or whose adapter is registered by its path.
    """
    found: list[tuple[float, str]] = []
    with os.scandir(workspace.runs) as entries:
        for entry in entries:
            if workspace.run(entry.name) == workspace.runs / entry.name and _is_id(entry.name):
                try:
                    found.append((os.stat(f"{entry.path}/{FILE_NAME}").st_mtime, entry.name))
                except OSError:
                    continue
    if len(found) <= most:
        return []
    busy: set[str] = set()
    if workspace.queue.exists():
        busy = {run_id for job in Queue(workspace).active() for run_id in job.run_ids}
    runs = workspace.runs.resolve()
    for one in catalog.entries(workspace):
        path = Path(one.path).resolve()
        busy |= {path.relative_to(runs).parts[0]} if path.is_relative_to(runs) and path != runs else set()
    oldest = sorted(found)[: len(found) - most]
    quiet = time.time() - QUIET
    return [workspace.runs / name for changed, name in oldest if changed < quiet and name not in busy]


def move(workspace: Workspace, folders: list[Path]) -> int:
    """Move those of the runs that are finished and that nobody writes just now; how many."""
    moved = 0
    for folder in folders:
        if last_status(folder) != "finished":
            continue
        target = workspace.shelf(folder.name)
        target.mkdir(parents=True, exist_ok=True)
        try:
            with open(folder / FILE_NAME, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as a worker holds it
                os.rename(folder, target / folder.name)
        except OSError:
            continue
        moved += 1
    for shelf in {workspace.shelf(folder.name) for folder in folders}:
        if shelf.is_dir():
            sync(shelf)
    sync(workspace.runs)
    return moved


def _is_id(name: str) -> bool:
    return len(name) == 16 and set(name) <= set("0123456789abcdef")
