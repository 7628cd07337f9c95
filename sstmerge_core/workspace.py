"""Where everything of one team lives on disk, and the two ways to write there without half-written files."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sstmerge_core.errors import DataError, Problem, SSTMergeError

_PARTIAL = "partial-"
"""In the name of every temporary folder and file, by which `upkeep.tidy` knows what a killed process left"""
_REPLACED = "old."
"""In the name of every folder that holds what is being replaced"""
_LONGEST_NAME = 120
"""Bytes of an uploaded file's name; most disks take 255, and a temporary file beside it has a longer one"""
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
        return cls(given_path(os.environ.get("SSTMERGE_WORKSPACE") or "workspace").resolve())

    def create(self) -> Workspace:
        if self._for_duckdb != self.root:
            self._for_duckdb.mkdir(mode=0o700, parents=True, exist_ok=True)  # nobody else may look into it
        for folder in (self.runs, self.pairs, self.catalog, self.logs, self.snapshots, self.cache):
            folder.mkdir(parents=True, exist_ok=True)
        return self

    @property
    def _for_duckdb(self) -> Path:
        """Where what DuckDB keeps lies: here, or beside this user's caches where it cannot be here."""
        return _elsewhere(str(self.root)) or self.root

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
        return self._for_duckdb / "snapshots"

    @property
    def database(self) -> Path:
        """Made of the event files alone, and again wherever it is missing."""
        return self._for_duckdb / "sstmerge.duckdb"

    @property
    def queue(self) -> Path:
        return self.root / "queue.sqlite"

    @property
    def finished(self) -> Path:
        """Runs that ended long ago, in a folder for each beginning of their ids: ``finished/3f/3fa9…``."""
        return self.root / "finished"

    @property
    def screenings(self) -> Path:
        """Records of sweeps whose settings were screened, one file each."""
        return self.root / "screenings"

    def screening(self, screening_id: str) -> Path:
        """Which settings of a sweep were screened, by what, and which were generated."""
        return self.screenings / f"{Path(screening_id).name}.json"

    def run(self, run_id: str) -> Path:
        """The folder of a run, whether it is there or not: where it was written, or where `sstmerge tidy` put it."""
        flat = self.runs / run_id
        if _RUN_ID.fullmatch(run_id) and not os.path.isdir(flat):
            moved = self.shelf(run_id) / run_id
            if os.path.isdir(moved):
                return moved
        return flat

    def shelf(self, run_id: str) -> Path:
        """The folder within `finished` to which a run of this id belongs."""
        return self.finished / run_id[:2]

    def is_run(self, folder: Path) -> bool:
        """Whether a path is where a run's folder may be; one that leads elsewhere is none, whatever lies there."""
        return folder.parent == self.runs or (folder.parent.parent == self.finished and folder.parent.name != "..")

    def run_folders(self) -> Iterator[Path]:
        """What lies where runs do, in no order; most of it are folders of runs."""
        if self.runs.is_dir():
            yield from self.runs.iterdir()
        for shelf in self._shelves():
            yield from (self.root / shelf).iterdir()

    def _shelves(self) -> list[str]:
        """The folders of finished runs, as texts within the root."""
        try:
            names = os.listdir(self.finished)
        except OSError:
            return []
        return [f"{self.finished.name}/{name}" for name in names if _SHELF.fullmatch(name)]

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
        # after the others: a run that is just being moved is seen in both places rather than in none
        shelves = sorted(self._shelves())
        moved = [_on_shelf(root, shelf) for shelf in shelves]
        by_shelf = dict(zip(shelves, moved, strict=True))
        if self.annotations.is_dir():  # what was said of a deleted run counts again once the run is back
            here = {parent.partition("/")[2] for parent in parents}
            said = [name for name in os.listdir(self.annotations) if name in here or _is_shelved(name, by_shelf)]
            parents += [f"{self.annotations.name}/{name}" for name in said]
        runs = f"{self.runs.name}/"
        parents = [one for one in parents if not one.startswith(runs) or not _is_shelved(one[len(runs) :], by_shelf)]
        sizes = _sizes(root, [*parents, self.catalog.name, self.audit.name])
        for one in moved:
            sizes.update(one)
        return sizes


_RUN_ID = re.compile(r"[0-9a-f]{16}")
_SHELF = re.compile(r"[0-9a-f]{2}")
_SETTLED_NS = 200_000_000
"""Longer than the steps in which file systems count time: a change within one of them would not show"""
_TRUSTED_NS = 600_000_000_000
"""After this long every file is looked at again, whatever its folder's time says"""
_SHELVES: dict[str, tuple[int, int, dict[str, int]]] = {}
"""When each folder of finished runs was looked through, its time of modification then, and what was in it. Who appends
to a run in it renews that time (`touch_shelf`), so that files that nobody writes need not be looked at one by one"""


def _sizes(root: str, parents: list[str]) -> dict[str, int]:
    sizes = {}
    for parent in sorted(parents):
        try:
            sizes[f"{parent}/events.jsonl"] = os.stat(f"{root}/{parent}/events.jsonl").st_size
        except OSError:  # not a run, or a run that is being deleted; `suppress` would cost half as much as the stat
            continue
    return sizes


def _is_shelved(run_id: str, shelves: dict[str, dict[str, int]]) -> bool:
    shelf = f"finished/{run_id[:2]}"
    return shelf in shelves and f"{shelf}/{run_id}/events.jsonl" in shelves[shelf]


def _on_shelf(root: str, shelf: str) -> dict[str, int]:
    """The event files of a folder of finished runs, by path within the root, and their sizes."""
    place = f"{root}/{shelf}"
    try:
        now, changed = time.time_ns(), os.stat(place).st_mtime_ns
        known = _SHELVES.get(place)
        if known is not None and known[1] == changed and abs(now - known[0]) < _TRUSTED_NS:
            return known[2]
        found = _sizes(place, os.listdir(place))
    except OSError:
        return {}
    runs = {f"{shelf}/{path}": size for path, size in found.items()}
    if abs(now - changed) > _SETTLED_NS:
        _SHELVES[place] = now, changed, runs
    else:
        _SHELVES.pop(place, None)
    return runs


def touch_shelf(run: Path) -> None:
    """Have the files in the folder of a run looked at again, where it is one of the finished ones."""
    if _SHELF.fullmatch(run.parent.name) and run.parent.parent.name == "finished":
        with contextlib.suppress(OSError):
            os.utime(run.parent)


@lru_cache(maxsize=64)
def _elsewhere(root: str) -> Path | None:
    r"""The place of a workspace's database and snapshots, None where that is the workspace's own folder.

    DuckDB resolves links and then reads what follows a ``?`` as settings and a ``\`` as the end of a folder's name, so
    that in a folder with one of them in its path it can keep nothing.
    """
    if not _MISREAD & set(os.path.realpath(root)):
        return None
    caches = [os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), tempfile.gettempdir()]
    usable = next((place for place in map(os.path.realpath, caches) if not _MISREAD & set(place)), "/tmp")
    return Path(usable, "sstmerge", hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:24])


_MISREAD = {"?", "\\"}


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `target` only when the block ends without an error.

    A kill at any moment leaves either the old `target` or the new one, plus at most a hidden temporary folder, which
    the next call for the same `target` removes. Only on a disk where two folders cannot change places in one step, a
    kill may leave the old one hidden, and the next call brings it back.
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
            if not target.exists():
                os.rename(temporary, target)
            elif not _exchange(temporary, target):
                previous = Path(tempfile.mkdtemp(prefix=f".{target.name}.{_REPLACED}", dir=target.parent))
                os.rename(target, previous / target.name)
                os.rename(temporary, target)  # a kill before this leaves no target: the next call brings it back
                shutil.rmtree(previous, ignore_errors=True)
            sync(target.parent)
    finally:
        if temporary.is_symlink():  # the old target was one
            temporary.unlink()
        shutil.rmtree(temporary, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths change places in one step. False where the system or the disk has no such step."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    with contextlib.suppress(AttributeError):  # no such function on another system
        if sys.platform == "darwin":
            return libc.renamex_np(*names, _SWAP) == 0
        return libc.renameat2(_HERE, names[0], _HERE, names[1], _SWAP) == 0
    return False


_SWAP = 2
"""RENAME_EXCHANGE of Linux and RENAME_SWAP of macOS"""
_HERE = -100
"""AT_FDCWD of Linux"""


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


_LOCKING: set[Path] = set()
"""Folders whose disk has locked a file for this process"""


def lock_refusal(folder: Path) -> OSError | None:
    """What the disk of a folder answers when it is asked to lock a file; None where it does, or cannot be asked.

    Asked once in a process: SQLite would wait for half a minute, DuckDB take the refusal for another process's lock.
    """
    if folder in _LOCKING:
        return None
    try:
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
    except OSError:  # full or protected: what is done next tells
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(file, fcntl.LOCK_UN)
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error
    _LOCKING.add(folder)
    return None


def _remove_abandoned(target: Path) -> None:
    """Remove what killed processes left half-written beside `target`: temporary folders that nobody holds locked.

    A target that was about to be replaced is put back.
    """
    for name in glob.glob(f".{glob.escape(target.name)}.{_REPLACED}*", root_dir=target.parent, include_hidden=True):
        with contextlib.suppress(OSError):
            previous = target.parent / name
            if time.time() - previous.stat().st_mtime > _YOUNG_SECONDS:
                if not target.exists():
                    os.rename(previous / target.name, target)
                shutil.rmtree(previous)
    for name in glob.glob(f".{glob.escape(target.name)}.{_PARTIAL}*", root_dir=target.parent, include_hidden=True):
        with contextlib.suppress(OSError):
            descriptor = os.open(target.parent / name, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - os.fstat(descriptor).st_mtime > _YOUNG_SECONDS:
                    shutil.rmtree(target.parent / name)
            finally:
                os.close(descriptor)


SEAL = "sha256.json"


def seal(folder: Path) -> None:
    """Write the SHA-256 of every file of `folder` beside them; see `is_whole`."""
    found = {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.is_file() and path.name != SEAL}
    write_json(folder / SEAL, found)


def is_whole(folder: Path) -> bool:
    """Whether the files of a folder are those that were sealed. One without a seal is not: nobody can tell."""
    try:
        sealed = json.loads((folder / SEAL).read_bytes())
        return bool(sealed) and all(_sha256(folder / name) == digest for name, digest in sealed.items())
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def given_path(name: str | Path, error: type[SSTMergeError] = DataError) -> Path:
    """The path that a person wrote, ``~`` being home, whether anything is there or not.

    Raises `error` for what no path can be: longer than the disk takes, with a NUL or half a character, of a home that
    is nobody's.
    """
    try:
        path = Path(name).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass
    except (OSError, RuntimeError, ValueError) as reason:
        if isinstance(reason, OSError) and reason.errno == errno.ELOOP:  # a link to itself: what is there says more
            return path
        said = "has half a character in it" if isinstance(reason, UnicodeError) else ""
        fault = said or getattr(reason, "strerror", None) or str(reason)
        raise error(Problem(f"path {str(name)[:200]}", f"cannot be opened: {fault}", "Correct the path.")) from None
    return path


def is_file(path: Path) -> bool:
    """Whether there is such a file; no error for a name that no file can have: of any length, with half a character."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def file_name(name: str, otherwise: str) -> str:
    """A name that an uploaded file may have on this disk, of the last part of the one it came under.

    Letters of any script, digits and ``. + - _`` stay, the rest becomes ``_``; at most 120 bytes, the ending kept.
    `otherwise` where nothing is left.
    """
    plain = re.sub(r"[^\w.+-]", "_", re.split(r"[/\\]", name)[-1]).lstrip(".-")
    stem, dot, ending = plain.rpartition(".")
    if len(plain.encode()) > _LONGEST_NAME:
        ending = ending if dot and len(ending.encode()) <= 16 else ""
        kept = (stem if ending else plain).encode()[: _LONGEST_NAME - len(ending.encode()) - 1].decode(errors="ignore")
        plain = f"{kept}.{ending}" if ending else kept
    return plain if plain.strip("._") else otherwise


def write_file(target: Path, data: bytes | str) -> None:
    """Write `target` whole or not at all; half a character (a lone surrogate), which is no text, becomes ``?``."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.{_PARTIAL}", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode("utf-8", "replace") if isinstance(data, str) else data)
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
