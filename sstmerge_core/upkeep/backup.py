"""A workspace in one file, and back: a ZIP with a list of hashes, written and unpacked whole or not at all.

What is written in one go is copied as it is; files that grow are cut at their last whole line, and event files go
before what they tell of, so that a backup that is made while workers write is a workspace as it was at some moment.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sqlite3
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from sstmerge_core import __version__, documents, words
from sstmerge_core.errors import OF_SQLITE, DataError, Problem, disk_problem
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.store import audit
from sstmerge_core.store.events import FILE_NAME, decode, encode
from sstmerge_core.workspace import Workspace, new_folder, sync

MANIFEST = "sstmerge-backup.json"
FORMAT = 1
CACHES = {
    "cache": "made again when it is needed: gradients, prepared prompts, the demo's model",
    "snapshots": "copies of the database",
    "sstmerge.duckdb": "the database, made again from the event files",
}
SECRETS = {"secrets.toml": "holds secrets: keep it elsewhere", ".streamlit": "may hold secrets: keep it elsewhere"}
PACKED = (".safetensors", ".bin", ".gz", ".xz", ".zip", ".parquet")
"""Endings of what does not get smaller"""
CHUNK = 1 << 20
LARGEST_LIST = 256 << 20
"""Bytes of the list of hashes: some million files"""
_UNREADABLE: tuple[type[Exception], ...] = (*OF_SQLITE, PermissionError)
_TEMPORARY = re.compile(r"\.(snap\.|.+\.(partial-|old\.)|.+\.[a-z0-9_]{8}$)")
"""What is being written just now, or was when its process died"""
_QUEUE = "queue.sqlite"

Progress = Callable[[int, int], None]
"""Bytes done, bytes in all"""


@dataclass
class Made:
    """What a backup holds, and what it does not."""

    files: int = 0
    bytes: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    """Path within the workspace → why"""


@dataclass(frozen=True)
class Contents:
    """What the list of a backup says."""

    files: Mapping[str, tuple[int, str]]
    """Path → bytes and SHA-256"""
    root: str
    """Where the workspace lay"""
    made_at: float
    version: str

    @property
    def bytes(self) -> int:
        return sum(size for size, _ in self.files.values())


# --- making ----------------------------------------------------------------------------------------------------------


def make(
    workspace: Workspace, target: Path, *, trash: bool = False, progress: Progress = lambda done, total: None
) -> Made:
    """Write the workspace into the file `target`, replacing one that is there once the new one is whole.

    `trash`: with what was deleted and can be brought back. Raises DataError where it cannot be written.
    """
    target = Path(target).expanduser().resolve()
    if target.is_dir() or any(target.is_relative_to(one.resolve()) for one in (workspace.runs, workspace.finished)):
        raise DataError(Problem(str(target), "is no place for a backup", "Give the name of a file outside."))
    target.parent.mkdir(parents=True, exist_ok=True)
    made, listed = Made(), {}
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.partial-", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w", allowZip64=True) as archive:
            for path, source in _sources(workspace, made, {target, temporary}, trash=trash):
                if (entry := _add(archive, path, source, made, progress)) is not None:
                    listed[path] = entry
            told = {"format": FORMAT, "version": __version__, "made_at": time.time(), "files": listed}
            told |= {"root": str(workspace.root.resolve()), "left_out": made.left_out}
            archive.writestr(_info(MANIFEST), json.dumps(told, ensure_ascii=False, indent=0))
        sync(temporary)
        temporary.chmod(0o600)  # every answer and every name is in it
        os.replace(temporary, target)
    except OSError as error:
        raise DataError(disk_problem(error, str(target)) or Problem(str(target), str(error))) from error
    finally:
        temporary.unlink(missing_ok=True)
    made.files, made.bytes = len(listed), sum(size for size, _ in listed.values())
    return made


def _sources(
    workspace: Workspace, made: Made, own: set[Path], *, trash: bool
) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    """Path within the workspace and how to open it, event files first."""
    events = sorted(workspace.event_files())
    for path in events:
        yield path, lambda path=path: _whole_lines(workspace.root / path)  # type: ignore[misc]
    if workspace.queue.exists():
        yield _QUEUE, lambda: _queue(workspace)
    known = {*events, _QUEUE}
    left = CACHES | SECRETS | ({} if trash else {"trash": "was deleted; --trash takes it along"})
    for path, file in _walk(workspace.root, left, made):
        if path in known or file.resolve() in own or path.startswith((f"{_QUEUE}-", "sstmerge.duckdb.")):
            continue
        # a run that began meanwhile: its events come before its files here too
        lines = file.name == FILE_NAME
        yield path, lambda file=file, lines=lines: _whole_lines(file) if lines else open(file, "rb")  # type: ignore[misc]  # noqa: SIM115


def _walk(root: Path, left: Mapping[str, str], made: Made) -> Iterator[tuple[str, Path]]:
    """The regular files below `root`; what is left out is noted in `made`."""
    for folder, names, files in os.walk(root):
        here = Path(folder).relative_to(root)
        for name in [*names, *files]:
            path = (here / name).as_posix()
            full = root / path
            why = left.get(path) or ("is a link: what it leads to stays where it is" if full.is_symlink() else "")
            if not why and name in files and not full.is_file():
                why = "is no file: a socket or a pipe"
            if why:
                made.left_out[path] = why
        names[:] = sorted(
            name for name in names if (here / name).as_posix() not in made.left_out and not _TEMPORARY.match(name)
        )
        for name in sorted(files):
            path = (here / name).as_posix()
            if path not in made.left_out and not _TEMPORARY.match(name):
                yield path, root / path


def _add(
    archive: zipfile.ZipFile, path: str, source: Callable[[], IO[bytes]], made: Made, progress: Progress
) -> tuple[int, str] | None:
    """Put one file into the archive; its size and hash, None where it is gone or cannot be read as a whole."""
    digest, size = hashlib.sha256(), 0
    try:
        opened = source()
    except FileNotFoundError:
        return None
    except _UNREADABLE as error:
        made.left_out[path] = f"cannot be read ({error})"
        return None
    with opened, archive.open(_info(path), "w", force_zip64=True) as packed:
        while chunk := opened.read(CHUNK):
            packed.write(chunk)
            digest.update(chunk)
            size += len(chunk)
            made.bytes += len(chunk)
            progress(made.bytes, 0)
    return size, digest.hexdigest()


def _info(path: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(path, time.gmtime()[:6])
    info.compress_type = zipfile.ZIP_STORED if path.endswith(PACKED) else zipfile.ZIP_DEFLATED
    info.external_attr = 0o600 << 16
    return info


def _whole_lines(path: Path) -> IO[bytes]:
    """A file of lines without the one that is just being written."""
    copy = tempfile.TemporaryFile()  # noqa: SIM115
    with open(path, "rb") as file:
        shutil.copyfileobj(file, copy, CHUNK)
    end = copy.tell()
    while end > 0:
        start = max(0, end - CHUNK)
        copy.seek(start)
        newline = copy.read(end - start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    copy.truncate(end)
    copy.seek(0)
    return copy


def _queue(workspace: Workspace) -> IO[bytes]:
    """The queue as it is at this moment. Its jobs stand still: in a copy of the workspace nobody works on them."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / _QUEUE
        with (
            contextlib.closing(sqlite3.connect(f"{workspace.queue.as_uri()}?mode=ro", uri=True, timeout=30)) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
        Queue.at(copy).stand_still("It ran or waited when the backup was made. Resume it to go on.")
        return open(copy, "rb")


# --- reading ---------------------------------------------------------------------------------------------------------


def check(file: Path, *, progress: Progress = lambda done, total: None) -> Contents:
    """Read a backup through and compare every hash. Raises DataError that names the fault."""
    with _opened(file) as (archive, contents):
        done = 0
        for path in contents.files:
            for chunk in _chunks(archive, path, contents, file):
                done += len(chunk)
                progress(done, contents.bytes)
        return contents


def restore(file: Path, target: Path, *, progress: Progress = lambda done, total: None) -> Contents:
    """Make the folder `target` of a backup. There is none, or one without files, before; all of it or nothing after.

    Raises DataError that names what is damaged, or that the folder has something in it.
    """
    target = Path(target).expanduser().resolve()
    with _opened(file) as (archive, contents):
        _check_free(target, contents)
        try:
            with new_folder(target) as temporary:
                done = 0
                for path in contents.files:
                    place = temporary / path
                    place.parent.mkdir(parents=True, exist_ok=True)
                    with open(place, "xb") as out:
                        for chunk in _chunks(archive, path, contents, file):
                            out.write(chunk)
                            done += len(chunk)
                            progress(done, contents.bytes)
                _moved_here(temporary, contents.root, target)
                _check_empty(target)
        except OSError as error:
            raise DataError(disk_problem(error, str(target)) or Problem(str(target), str(error))) from error
    restored = Workspace(target).create()
    audit.record(restored, "restored a backup", str(file), about=f"{words.count(len(contents.files), 'file')}")
    return contents


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[tuple[zipfile.ZipFile, Contents]]:
    """The archive and its list. Raises DataError for what is no whole backup."""
    file = Path(file).expanduser()
    try:
        if file.exists() and not file.is_file():  # the end of a device or a pipe is never found
            raise DataError(Problem(str(file), "is not a file", "Give the file that `sstmerge backup` made."))
        archive = zipfile.ZipFile(file)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(Problem(str(file), "is not there", "Give the file that `sstmerge backup` made.")) from None
    except OSError as error:
        raise DataError(disk_problem(error, str(file)) or Problem(str(file), str(error))) from error
    except Exception as error:  # bytes of any kind
        raise DataError(_damage(file, "its end is missing or damaged", error)) from error
    with archive:
        yield archive, _contents(archive, file)


def _contents(archive: zipfile.ZipFile, file: Path) -> Contents:
    try:
        info = archive.getinfo(MANIFEST)
        if info.file_size > LARGEST_LIST:
            raise ValueError("its list of files is too long")
        told: Any = documents.from_json(archive.read(info))
        found = Contents(
            {str(path): (int(size), str(digest)) for path, (size, digest) in told["files"].items()},
            str(told["root"]),
            float(told["made_at"]),
            str(told["version"]),
        )
        format_ = int(told["format"])
    except KeyError:
        fix = "Give the file that `sstmerge backup` made."
        raise DataError(Problem(str(file), "is no backup of a workspace", fix)) from None
    except Exception as error:  # bytes of any kind
        raise DataError(_damage(file, "its list of files cannot be read", error)) from error
    if format_ > FORMAT:
        fault = f"was made by version {found.version}, whose format {format_} this one does not read"
        raise DataError(Problem(str(file), fault, "Update sstmerge."))
    names = [name for name in archive.namelist() if name != MANIFEST]
    if len(names) != len(set(names)) or set(names) != set(found.files):
        odd = sorted(set(names) ^ set(found.files)) or ["one twice"]
        raise DataError(_damage(file, f"it does not hold the files of its list ({odd[0]})"))
    if wrong := next((path for path in found.files if not _usable(path)), None):
        raise DataError(_damage(file, f"a file of it would lie outside of the workspace ({wrong!r})"))
    return found


def _usable(path: str) -> bool:
    parts = path.split("/")
    plain = all(part not in ("", ".", "..") for part in parts) and not PurePosixPath(path).is_absolute()
    return plain and not re.search(r"[\\\x00-\x1f]", path) and not path.startswith((*SECRETS, "sstmerge.duckdb"))


def _chunks(archive: zipfile.ZipFile, path: str, contents: Contents, file: Path) -> Iterator[bytes]:
    """The bytes of one file. Raises DataError before the last of them where they are not those of the list."""
    size, wanted = contents.files[path]
    digest, done = hashlib.sha256(), 0
    try:
        with archive.open(path) as packed:
            while chunk := packed.read(CHUNK):
                done += len(chunk)
                if done > size:
                    break
                digest.update(chunk)
                yield chunk
    except OSError as error:
        if disk_problem(error) is not None:
            raise
        raise DataError(_damage(file, f"{path} in it is damaged", error)) from error
    except (DataError, GeneratorExit):
        raise
    except Exception as error:  # zipfile and zlib raise a dozen kinds
        raise DataError(_damage(file, f"{path} in it is damaged", error)) from error
    if done != size or digest.hexdigest() != wanted:
        raise DataError(_damage(file, f"{path} in it is damaged: it has another hash than when it was backed up"))


def _damage(file: Path, fault: str, error: Exception | None = None) -> Problem:
    why = f" ({error})" if error is not None and str(error) else ""
    return Problem(str(file), fault + why, "Nothing was restored; take another copy of the backup.")


def _check_free(target: Path, contents: Contents) -> None:
    _check_empty(target)
    here = next(parent for parent in target.parents if parent.exists())
    if (free := shutil.disk_usage(here).free) < contents.bytes:
        fault = f"has {words.size(free)} free, and the backup takes {words.size(contents.bytes)}"
        raise DataError(Problem(str(here), fault, "Free some space, or name another folder by --into."))


def _check_empty(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(path.is_file() for path in target.rglob("*"))):
        fix = "Name another folder by --into; `sstmerge import` brings its runs into this one."
        raise DataError(Problem(str(target), "has something in it, which a backup would replace", fix))


def _moved_here(folder: Path, before: str, after: Path) -> None:
    """Registered adapters that lay in the workspace lie where it is now."""
    path = folder / Workspace(folder).catalog.name / FILE_NAME
    if before == str(after) or not path.is_file():
        return

    def moved(value: Any) -> Any:
        inside = isinstance(value, str) and value.startswith(f"{before}/")
        return f"{after}{value[len(before) :]}" if inside else value

    lines = []
    for line in path.read_bytes().splitlines(keepends=True):
        event = decode(line)
        if event is not None and any(moved(value) != value for value in event.values()):
            line = encode({name: moved(value) for name, value in event.items()})
        lines.append(line)
    path.write_bytes(b"".join(lines))
