"""Where everything of one team lives on disk, and the two ways to write there without half-written files."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PARTIAL = "partial-"
"""In the name of every temporary folder"""
_YOUNG_SECONDS = 2.0
"""Between the making of a temporary folder and its lock lie microseconds; one that young is left alone."""


@dataclass(frozen=True)
class Workspace:
    """A folder with runs, queue, database, caches and registered adapters.

    Nothing but this class knows the folder's layout.
    """

    root: Path

    @classmethod
    def default(cls) -> Workspace:
        """The folder named by ``SSTMERGE_WORKSPACE``, else ``workspace`` in the current folder."""
        return cls(Path(os.environ.get("SSTMERGE_WORKSPACE") or "workspace").expanduser().resolve())

    def create(self) -> Workspace:
        for folder in (self.runs, self.pairs, self.catalog, self.logs, self.snapshots, self.cache):
            folder.mkdir(parents=True, exist_ok=True)
        return self

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def pairs(self) -> Path:
        """Statistics of adapter pairs, one folder with an event file each."""
        return self.root / "pairs"

    @property
    def annotations(self) -> Path:
        """What people say about runs, one folder with an event file for each run of which something was said."""
        return self.root / "annotations"

    @property
    def audit(self) -> Path:
        """The event file of who launched, cancelled, added, removed and deleted what."""
        return self.root / "audit"

    @property
    def trash(self) -> Path:
        """Deleted runs and weights until somebody empties it."""
        return self.root / "trash"

    @property
    def catalog(self) -> Path:
        """The event file of registered adapters."""
        return self.root / "catalog"

    @property
    def adapters(self) -> Path:
        """Adapters that were uploaded or trained here."""
        return self.root / "adapters"

    @property
    def uploads(self) -> Path:
        """Training rows from a browser, one folder by content."""
        return self.root / "uploads"

    @property
    def queries(self) -> Path:
        """Saved queries and the history of queries."""
        return self.root / "queries"

    @property
    def playground(self) -> Path:
        """Conversations of the Playground and, while it runs, the socket of its model process."""
        return self.root / "playground"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def cache(self) -> Path:
        """Content-addressed and safe to delete: gradients, converted models, file hashes."""
        return self.root / "cache"

    @property
    def snapshots(self) -> Path:
        return self.root / "snapshots"

    @property
    def database(self) -> Path:
        return self.root / "sstmerge.duckdb"

    @property
    def queue(self) -> Path:
        return self.root / "queue.sqlite"

    def run(self, run_id: str) -> Path:
        return self.runs / run_id

    def merged_adapter(self, run_id: str) -> Path:
        """The PEFT folder that a run wrote."""
        return self.run(run_id) / "artifacts" / "adapter"

    def event_files(self) -> dict[str, int]:
        """Every event file's path within the root, in a stable order, and its size in bytes.

        Together they are the truth the database is built from.
        """
        # Texts, not paths, and one `stat` each: with 10,000 runs paths took half a second, and this is asked often.
        root = str(self.root)
        folders = [folder.name for folder in (self.runs, self.pairs) if folder.is_dir()]
        parents = [f"{folder}/{name}" for folder in folders for name in os.listdir(f"{root}/{folder}")]
        if self.annotations.is_dir():  # what was said of a deleted run counts again once the run is back
            here = set(parents)
            said = [name for name in os.listdir(self.annotations) if f"{self.runs.name}/{name}" in here]
            parents += [f"{self.annotations.name}/{name}" for name in said]
        sizes = {}
        for parent in sorted([*parents, self.catalog.name, self.audit.name]):
            try:
                sizes[f"{parent}/events.jsonl"] = os.stat(f"{root}/{parent}/events.jsonl").st_size
            except OSError:  # not a run, or a run that is being deleted; `suppress` would cost half as much as the stat
                continue
        return sizes


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `target` only when the block ends without an error.

    A kill at any moment leaves either the old `target` or the new one, plus at most a hidden temporary folder, which
    the next call for the same `target` removes.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.{_PARTIAL}", dir=target.parent))
    try:
        with _locked(temporary):
            yield temporary
            for path in temporary.rglob("*"):
                if path.is_file():
                    path.chmod(0o644)
                    sync(path)
            sync(temporary)
            temporary.chmod(0o755)
            if target.exists():
                previous = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
                os.rename(target, previous / target.name)
                os.rename(temporary, target)
                shutil.rmtree(previous, ignore_errors=True)
            else:
                os.rename(temporary, target)
            sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a lock on `folder` that the kernel lets go when this process dies, however it dies."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network disks lock no folders
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove_abandoned(target: Path) -> None:
    """Remove what killed processes left half-written beside `target`: temporary folders that nobody holds locked."""
    for name in glob.glob(f".{glob.escape(target.name)}.{_PARTIAL}*", root_dir=target.parent, include_hidden=True):
        with contextlib.suppress(OSError):
            descriptor = os.open(target.parent / name, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - os.fstat(descriptor).st_mtime > _YOUNG_SECONDS:
                    shutil.rmtree(target.parent / name)
            finally:
                os.close(descriptor)


def write_file(target: Path, data: bytes | str) -> None:
    """Write `target` whole or not at all."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(target: Path, value: Any) -> None:
    """Write `value` as readable JSON, whole or not at all."""
    write_file(target, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n")


def sync(path: Path) -> None:
    """Have a file, or what a folder lists, on the disk and not only on its way there."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
