"""Deleting runs, and the weights of their adapters, so that it can be undone until the trash is emptied. No DuckDB.

What is deleted moves into a folder of ``trash`` by one rename, and back by one: a kill at any moment leaves it in one
place or the other, whole. The database forgets a run whose folder is gone and reads it again when it is back; what
people said about it (`store.remarks`) lies elsewhere and waits.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from sstmerge_core import access, words
from sstmerge_core.errors import Problem, StoreError
from sstmerge_core.store import audit
from sstmerge_core.store.events import EventWriter, read_events, run_folder
from sstmerge_core.workspace import Workspace, sync

RUN, WEIGHTS = "run", "weights"
_ENTRY = re.compile(r"(?P<run_id>.+)\.(?P<kind>run|weights)\.(?P<nanoseconds>\d+)")


@dataclass(frozen=True)
class Entry:
    """One thing in the trash."""

    path: Path
    run_id: str
    kind: str
    """``run``: its whole folder; ``weights``: those of its adapter, which its recipe makes again"""
    deleted_at: float
    """UTC epoch seconds"""

    @property
    def bytes(self) -> int:
        return size(self.path)

    @property
    def label(self) -> str:
        """What the run is called; empty where only its weights are here."""
        return _label(self.path, self.path.parents[1] / "annotations" / self.run_id)


def entries(workspace: Workspace) -> list[Entry]:
    """What is in the trash, the last deleted first."""
    if not workspace.trash.is_dir():
        return []
    found = [
        Entry(path, match["run_id"], match["kind"], int(match["nanoseconds"]) / 1e9)
        for path in workspace.trash.iterdir()
        if (match := _ENTRY.fullmatch(path.name)) and any(path.iterdir())
    ]
    return sorted(found, key=lambda entry: (-entry.deleted_at, entry.path.name))


def delete_run(workspace: Workspace, run_id: str) -> Entry:
    """Move a run's folder into the trash. Raises StoreError where it is not here, or a job writes it just now."""
    folder = run_folder(workspace, run_id)
    with (
        audit.act(workspace, "delete", "deleted run", f"run {run_id}", about=_label(folder)),
        EventWriter(folder, wait=0.5),  # as a worker holds it
    ):
        entry = _entry(workspace, run_id, RUN)
        os.rename(folder, entry.path)
        _sync_parents(folder, entry.path)
    return entry


def delete_weights(workspace: Workspace, run_id: str) -> Entry:
    """Move the weights of a run's adapter into the trash; its card, settings and recipe stay.

    The recipe names the hash of each file, so that the adapter made again from it can be told to be the same. Raises
    StoreError where there are no weights, or a job writes the run just now.
    """
    folder = run_folder(workspace, run_id)
    with (
        audit.act(workspace, "delete", "deleted weights", f"run {run_id}", about=_label(folder)),
        EventWriter(folder, wait=0.5),  # as a worker holds it
    ):
        file = weights(workspace, run_id)
        if file is None:
            fault = "the weights of its adapter are not here"
            raise StoreError(Problem(f"run {run_id}", fault, "They were deleted before, or it never had any."))
        entry = _entry(workspace, run_id, WEIGHTS)
        entry.path.mkdir()
        os.rename(file, entry.path / file.name)
        _sync_parents(file, entry.path / file.name, entry.path)
    return entry


def restore(workspace: Workspace, entry: Entry) -> None:
    """Put back what was deleted, bit for bit.

    Raises StoreError where it is not in the trash any more, or its place is taken: the run was made again.
    """
    if not entry.path.is_dir():
        raise StoreError(Problem(f"run {entry.run_id}", "is not in the trash any more", "It was restored or emptied."))
    moves = [(entry.path, workspace.run(entry.run_id))]
    if entry.kind == WEIGHTS:
        folder = workspace.merged_adapter(entry.run_id)
        if not folder.is_dir():
            fix = "Restore the run first, or make the adapter again from its recipe."
            raise StoreError(Problem(f"run {entry.run_id}", "has no adapter folder to put the weights in", fix))
        moves = [(file, folder / file.name) for file in sorted(entry.path.iterdir())]
    if taken := [target for _, target in moves if target.exists()]:
        fix = "The same recipe gives the same bits; or delete that one first."
        raise StoreError(Problem(str(taken[0]), "is there already: it was made again since", fix))
    with audit.act(workspace, "restore", f"restored {entry.kind}", f"run {entry.run_id}"):
        for source, target in moves:
            os.rename(source, target)
            _sync_parents(source, target)
        if entry.kind == WEIGHTS:
            entry.path.rmdir()


def find(workspace: Workspace, run_id: str) -> Entry:
    """What was last deleted of a run, the run itself first. Raises StoreError where nothing of it is in the trash."""
    found = [entry for entry in entries(workspace) if entry.run_id == run_id]
    if not found:
        raise StoreError(Problem(f"run {run_id}", "is not in the trash", "`sstmerge runs trash` lists what is."))
    return min(found, key=lambda entry: entry.kind != RUN)


def empty(workspace: Workspace, *, older_than: float = 0.0) -> tuple[int, int]:
    """Delete for good what has been in the trash for more than `older_than` seconds; returns how many, how many bytes.

    What people said about a run goes with it, unless the run is here again.
    """
    access.require("empty")
    count = freed = 0
    for entry in entries(workspace):
        if time.time() - entry.deleted_at < older_than:
            continue
        freed += entry.bytes
        count += 1
        shutil.rmtree(entry.path)
        if entry.kind == RUN and not workspace.run(entry.run_id).exists():
            left = [other for other in entries(workspace) if other.run_id == entry.run_id and other.kind == RUN]
            if not left:
                shutil.rmtree(workspace.annotations / entry.run_id, ignore_errors=True)
    if count:
        audit.record(workspace, "emptied the trash", about=f"{words.count(count, 'deletion')}, {words.size(freed)}")
    return count, freed


def weights(workspace: Workspace, run_id: str) -> Path | None:
    """The file with the weights of a run's adapter, where it is here."""
    file = workspace.merged_adapter(run_id) / "adapter_model.safetensors"
    return file if file.is_file() else None


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _label(folder: Path, annotations: Path | None = None) -> str:
    """What the run of a folder is called, by people or by its recipe; empty where that is not said."""
    said = read_events(annotations) if annotations else ()
    names = [event.get("name") for event in said if event["event"] == "named"]
    if names and names[-1]:
        return str(names[-1])
    started = next((event for event in read_events(folder) if event["event"] == "run_started"), {})
    return str(started.get("label") or "")


def _entry(workspace: Workspace, run_id: str, kind: str) -> Entry:
    workspace.trash.mkdir(parents=True, exist_ok=True)
    now = time.time_ns()
    return Entry(workspace.trash / f"{run_id}.{kind}.{now}", run_id, kind, now / 1e9)


def _sync_parents(*paths: Path) -> None:
    for parent in dict.fromkeys(path.parent for path in paths):
        sync(parent)
