"""What a workspace can do without: listed first, with why; then moved into the trash, or deleted for good.

Never listed: what ships, whatever somebody tagged, noted or labelled and what that was made of or measured against,
what anything here refers to, and what an active job works on. What a workspace may hold is told by `limits`.
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

from sstmerge_core import access, content, words
from sstmerge_core.catalog import entries as adapters
from sstmerge_core.errors import SSTMergeError
from sstmerge_core.jobs import old_rows
from sstmerge_core.jobs.model import Job
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.recipe import record
from sstmerge_core.store import audit, snapshot, trash
from sstmerge_core.store.events import last_status
from sstmerge_core.upkeep import limits, shelve, shipped
from sstmerge_core.upkeep.limits import Limits
from sstmerge_core.upkeep.uses import DAY, prunable, uses
from sstmerge_core.workspace import Workspace

CACHED = ("gradients", "answers", "elected", "inputs", "fitted", "screened", "uploads")
"""Folders of the cache that hold one entry a file or folder; the demo's model and prepared prompts stay"""
FETCHED = (content.ADAPTER, content.BASE, "coming")
"""Folders of the same kind in the cache of the content store, wherever that is"""
LEFT_BEHIND = DAY
"""Seconds after which a temporary folder that no process holds is one that a killed process left"""
CACHE, LEFTOVER, LOG, WEIGHTS, RUN, JOBS, SHELVE = "cache", "leftover", "log", "weights", "run", "jobs", "move"
TO_TRASH = (WEIGHTS, RUN)
"""Kinds that can be brought back; the others are deleted for good, as they are made again or of no use, or moved"""


@dataclass(frozen=True)
class Item:
    """One thing that can go."""

    kind: str
    name: str
    """A run's id, or a path within the workspace"""
    bytes: int
    why: str


@dataclass(frozen=True)
class Held:
    """How much of one thing is here, and how much may be."""

    what: str
    now: str
    most: str
    over: bool


def held(workspace: Workspace) -> list[Held]:
    """What a workspace holds of everything that has a limit. Raises DataError for limits that cannot be read."""
    most = limits.read(workspace)
    cache = sum(size for _, _, size in _cache_entries(workspace))
    logs = sum(path.stat().st_size for path in _log_files(workspace))
    written = (trash.weights(workspace, folder.name) for folder in workspace.run_folders())
    adapters = sum(path.stat().st_size for path in written if path is not None)
    ended = len(old_rows.beyond(workspace, 0))
    with os.scandir(workspace.runs) as entries:
        runs = sum(1 for _ in entries)
    sizes = (("cache", cache), ("logs", logs), ("adapters", adapters))
    found = [Held(what, words.size(now), most.told(what), now > getattr(most, what)) for what, now in sizes]
    counts = (("jobs", ended), ("runs", runs))
    found += [Held(what, f"{now:,}", most.told(what), now > getattr(most, what)) for what, now in counts]
    kept = snapshot.published(workspace.snapshots)
    size = words.size(sum(path.stat().st_size for path in kept))
    return [*found, Held("snapshots", f"{len(kept)}, {size}", str(snapshot.KEPT), len(kept) > snapshot.KEPT)]


def plan(workspace: Workspace, *, older_than: float = 30 * DAY) -> list[Item]:
    """What can go of what is older than `older_than` seconds, and of what is beyond the limits the oldest.

    By kind, the largest first. Changes nothing. Raises DataError for limits that cannot be read.
    """
    most = limits.read(workspace)
    needed = protected(workspace)
    items = [
        *_leftovers(workspace),
        *_cached(workspace, older_than, most.cache),
        *_logs(workspace, older_than, most.logs),
        *_weights(workspace, older_than, most, needed),
        *_runs_without_result(workspace, older_than, needed),
        *_ended_jobs(workspace, most),
        *_to_shelve(workspace, most),
    ]
    order = (LEFTOVER, LOG, CACHE, WEIGHTS, RUN, JOBS, SHELVE)
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
            elif item.kind == JOBS:
                old_rows.forget(workspace, [job for job, _ in old_rows.beyond(workspace, limits.read(workspace).jobs)])
                freed += item.bytes
            elif item.kind == SHELVE:
                shelve.move(workspace, shelve.movable(workspace, limits.read(workspace).runs))
            else:
                _delete(workspace.root / item.name)  # of a cache elsewhere the name is a whole path
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
    for root, deep in ((workspace.runs, 0), (workspace.finished, 1)):
        with contextlib.suppress(ValueError, IndexError):
            return Path(path).relative_to(root).parts[deep] if path else ""
    return ""


def _leftovers(workspace: Workspace) -> Iterator[Item]:
    """Temporary files and folders of processes that were killed; within a run's folder nobody looks, of many runs."""
    folders = [workspace.root, *(path for path in workspace.root.iterdir() if path.is_dir())]
    many = (workspace.runs, workspace.finished, workspace.annotations)
    folders += [path for first in folders[1:] if first not in many for path in first.iterdir() if path.is_dir()]
    folders += [path for path in workspace.root.glob("experiments/prompts/*") if path.is_dir()]
    fetched = content.folder(workspace)
    folders += [fetched / kind for kind in (content.ADAPTER, content.BASE) if (fetched / kind).is_dir()]
    for folder in folders:
        for path in folder.iterdir():
            marks = (".partial-", ".old.")
            if not path.name.startswith(".") or not any(mark in path.name for mark in marks) or path.is_symlink():
                continue
            if ".old." in path.name and not all((folder / old.name).exists() for old in path.iterdir()):
                continue  # the only copy of what was about to be replaced; `workspace.new_folder` puts it back
            if time.time() - path.stat().st_mtime >= LEFT_BEHIND and not _held(path):
                inside = path.is_relative_to(workspace.root)
                name = path.relative_to(workspace.root).as_posix() if inside else str(path)
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


def _weights(workspace: Workspace, older_than: float, most: Limits, needed: set[str]) -> Iterator[Item]:
    """Weights that are old, and of the others the oldest beyond the limit."""
    found = prunable(workspace, keep=needed.__contains__)
    over = sum(one.bytes for one in found) - most.adapters
    for one in found:  # the oldest first
        age = words.ago(one.written_at)
        if time.time() - one.written_at >= older_than:
            yield Item(WEIGHTS, one.run_id, one.bytes, f"written {age}; its recipe makes the same bits again")
        elif over > 0:
            why = f"written {age}, beyond the {most.told('adapters')} for adapters; its recipe makes it again"
            yield Item(WEIGHTS, one.run_id, one.bytes, why)
        over -= one.bytes


def _cache_entries(workspace: Workspace) -> Iterator[tuple[Path, float, int]]:
    """What lies in the caches: path, when it was last read or written, bytes."""
    fetched = content.folder(workspace)
    for folder in (*(workspace.cache / kind for kind in CACHED), *(fetched / kind for kind in FETCHED)):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if not path.is_symlink() and not path.name.startswith("."):
                files = list(_within(path))
                told = [one.stat() for one in (*files, path)]
                used = max(max(one.st_mtime, one.st_atime) for one in told[: len(files)] or told)
                if folder.parent == fetched:
                    used = max(used, told[-1].st_mtime)  # renewed at every use; see `content.cached`
                yield path, used, sum(one.st_size for one in told[: len(files)])


def _cached(workspace: Workspace, older_than: float, most: int) -> Iterator[Item]:
    if _active(workspace):  # a job may be about to read any of it
        return
    found = sorted(_cache_entries(workspace), key=lambda one: one[1])
    over = sum(size for _, _, size in found) - most
    for path, used, size in found:
        inside = path.is_relative_to(workspace.root)
        name = path.relative_to(workspace.root).as_posix() if inside else str(path)
        if time.time() - used >= older_than:
            yield Item(CACHE, name, size, f"last read {words.ago(used)}; made again when it is needed")
        elif over > 0:
            why = f"last read {words.ago(used)}, beyond the {words.size(most)} for caches; made again when it is needed"
            yield Item(CACHE, name, size, why)
        over -= size


def _log_files(workspace: Workspace) -> list[Path]:
    return sorted(workspace.logs.glob("*.log")) if workspace.logs.is_dir() else []


def _logs(workspace: Workspace, older_than: float, most: int) -> Iterator[Item]:
    active = {job.job_id for job in _active(workspace)}
    told = sorted(((path.stat(), path) for path in _log_files(workspace)), key=lambda one: one[0].st_mtime)
    over = sum(one.st_size for one, _ in told) - most
    for one, path in told:
        if path.stem not in active and path.stem != "playground":
            name, ended = path.relative_to(workspace.root).as_posix(), words.ago(one.st_mtime)
            if time.time() - one.st_mtime >= older_than:
                yield Item(LOG, name, one.st_size, f"of a job that ended {ended}")
            elif over > 0:
                why = f"of a job that ended {ended}, beyond the {words.size(most)} for logs"
                yield Item(LOG, name, one.st_size, why)
        over -= one.st_size


def _ended_jobs(workspace: Workspace, most: Limits) -> Iterator[Item]:
    if beyond := old_rows.beyond(workspace, most.jobs):
        why = f"ended before the newest {most.told('jobs')}; their runs stay"
        yield Item(JOBS, words.count(len(beyond), "job"), sum(size for _, size in beyond), why)


def _to_shelve(workspace: Workspace, most: Limits) -> Iterator[Item]:
    if not _active(workspace) and (found := shelve.movable(workspace, most.runs)):
        why = f"beyond the newest {most.told('runs')} in one folder; the finished of them move, and nothing goes"
        yield Item(SHELVE, words.count(len(found), "run"), 0, why)


def _runs_without_result(workspace: Workspace, older_than: float, needed: set[str]) -> Iterator[Item]:
    """Failed and cancelled runs that nothing refers to."""
    for folder in sorted(workspace.run_folders()):
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
