"""What a workspace can do without: listed first, with why; then moved into the trash, or deleted for good.

Never listed: what ships, whatever somebody tagged, noted or labelled and what that was made of or measured against,
what anything here refers to, and what an active job works on.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sstmerge_core import access, words
from sstmerge_core.catalog import entries as adapters
from sstmerge_core.errors import SSTMergeError
from sstmerge_core.jobs.model import Job
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.recipe import record
from sstmerge_core.store import audit, trash
from sstmerge_core.store.events import last_status
from sstmerge_core.upkeep import shipped
from sstmerge_core.upkeep.uses import DAY, prunable, uses
from sstmerge_core.workspace import Workspace

CACHED = ("gradients", "answers", "elected", "inputs", "fitted", "screened", "uploads")
"""Folders of the cache that hold one entry a file or folder; the demo's model and prepared prompts stay"""
LEFT_BEHIND = DAY
"""Seconds after which a temporary folder that no process holds is one that a killed process left"""
CACHE, LEFTOVER, LOG, WEIGHTS, RUN = "cache", "leftover", "log", "weights", "run"
TO_TRASH = (WEIGHTS, RUN)
"""Kinds that can be brought back; the others are deleted for good, as they are made again or of no use"""


@dataclass(frozen=True)
class Item:
    """One thing that can go."""

    kind: str
    name: str
    """A run's id, or a path within the workspace"""
    bytes: int
    why: str


def plan(workspace: Workspace, *, older_than: float = 30 * DAY) -> list[Item]:
    """What can go of what is older than `older_than` seconds, by kind, the largest first. Changes nothing."""
    needed = protected(workspace)
    items = [*_leftovers(workspace), *_cached(workspace, older_than), *_logs(workspace, older_than)]
    for one in prunable(workspace, older_than=older_than, keep=needed.__contains__):
        age = words.ago(one.written_at)
        items.append(Item(WEIGHTS, one.run_id, one.bytes, f"written {age}; its recipe makes the same bits again"))
    items += _runs_without_result(workspace, older_than, needed)
    order = (LEFTOVER, LOG, CACHE, WEIGHTS, RUN)
    return sorted(items, key=lambda item: (order.index(item.kind), -item.bytes, item.name))


def protected(workspace: Workspace) -> set[str]:
    """Runs that stay whole: shipped, said something of, and what those were made of or measured against."""
    said = workspace.annotations.iterdir() if workspace.annotations.is_dir() else ()
    wanted = [folder.name for folder in said if any(folder.iterdir())]
    found = {*_shipped(), *wanted}  # of what ships all that it needs ships too
    homes = {one.sha256: one.origin.removeprefix("run:") for one in adapters(workspace) if one.origin[:4] == "run:"}
    while wanted:
        told = record.read(workspace.run(wanted.pop()))
        needs = {told.reference} if told.reference else set()
        for source in told.recipe.get("adapters") or []:
            inside = _run_of(workspace, str(source.get("path") or ""))
            needs |= {home for home in (homes.get(source.get("sha256")), inside) if home}
        wanted += [run_id for run_id in needs - found if workspace.run(run_id).is_dir()]
        found |= needs
    return found


def carry_out(workspace: Workspace, items: list[Item]) -> tuple[list[Item], list[str]]:
    """Do what was planned; what went, and a sentence for each that did not: it is in use by now.

    Weights and runs move into the trash. Raises AccessError for who may not.
    """
    access.require("delete")
    access.require("empty")
    gone, kept = [], []
    freed = 0
    needed = protected(workspace)  # somebody may have tagged a run since
    for item in items:
        try:
            if item.kind in TO_TRASH and item.name in needed:
                kept.append(f"{item.name}: it is needed now.")
                continue
            if item.kind == WEIGHTS:
                trash.delete_weights(workspace, item.name)
            elif item.kind == RUN:
                trash.delete_run(workspace, item.name)
            else:
                _delete(workspace.root / item.name)
                freed += item.bytes
        except (SSTMergeError, OSError) as error:
            kept.append(f"{item.name}: {error}")
        else:
            gone.append(item)
    if gone:
        about = f"{words.count(len(gone), 'thing')}, {words.size(freed)} freed"
        audit.record(workspace, "tidied up", about=about)
    return gone, kept


@cache
def _shipped() -> frozenset[str]:
    return frozenset(run_id for run_id, _ in shipped.runs())


def _run_of(workspace: Workspace, path: str) -> str:
    """The run that a path lies in; empty where it lies in none."""
    with contextlib.suppress(ValueError):
        return Path(path).relative_to(workspace.runs).parts[0] if path else ""
    return ""


def _leftovers(workspace: Workspace) -> Iterator[Item]:
    """Temporary folders of processes that were killed, below the workspace and its folders."""
    folders = [workspace.root, *(path for path in workspace.root.iterdir() if path.is_dir())]
    for folder in folders:
        for path in folder.iterdir():
            marks = (".partial-", ".old.")
            if not path.name.startswith(".") or not any(mark in path.name for mark in marks) or path.is_symlink():
                continue
            if time.time() - path.stat().st_mtime >= LEFT_BEHIND and not _held(path):
                name = path.relative_to(workspace.root).as_posix()
                yield Item(LEFTOVER, name, trash.size(path), "a process was killed while it wrote this")


def _held(path: Path) -> bool:
    """Whether a process holds the lock that it takes on its temporary folder."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _cached(workspace: Workspace, older_than: float) -> Iterator[Item]:
    if _active(workspace):  # a job may be about to read any of it
        return
    for kind in CACHED:
        folder = workspace.cache / kind
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            used = max((max(one.stat().st_mtime, one.stat().st_atime) for one in _within(path)), default=0.0)
            if time.time() - used >= older_than and not path.is_symlink():
                name = path.relative_to(workspace.root).as_posix()
                yield Item(CACHE, name, trash.size(path), f"last read {words.ago(used)}; made again when it is needed")


def _logs(workspace: Workspace, older_than: float) -> Iterator[Item]:
    active = {job.job_id for job in _active(workspace)}
    for path in sorted(workspace.logs.glob("*.log")) if workspace.logs.is_dir() else ():
        told = path.stat()
        if path.stem not in active and path.stem != "playground" and time.time() - told.st_mtime >= older_than:
            name = path.relative_to(workspace.root).as_posix()
            yield Item(LOG, name, told.st_size, f"of a job that ended {words.ago(told.st_mtime)}")


def _runs_without_result(workspace: Workspace, older_than: float, needed: set[str]) -> Iterator[Item]:
    """Failed and cancelled runs that nothing refers to."""
    for folder in sorted(workspace.runs.iterdir()):
        events = folder / "events.jsonl"
        if folder.name in needed or not events.is_file() or time.time() - events.stat().st_mtime < older_than:
            continue
        status = last_status(folder)
        if status in ("failed", "cancelled") and not uses(workspace, folder.name):
            ended = words.ago(events.stat().st_mtime)
            yield Item(RUN, folder.name, trash.size(folder), f"{status} {ended}, and nothing refers to it")


def _active(workspace: Workspace) -> list[Job]:
    return Queue(workspace).active() if workspace.queue.exists() else []


def _within(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    else:
        yield from (one for one in path.rglob("*") if one.is_file())


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
