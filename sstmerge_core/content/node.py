"""What a machine has fetched of the store: folders by fingerprint, each verified when it comes and when it is used.

    <cache>/adapter/<fingerprint>/…  <cache>/base/<fingerprint>/…     whole folders
    <cache>/coming/<fingerprint>/<SHA-256>                           files of a folder that is still coming

A file appears under its name once its hash is right, a folder once all its files are: a kill at any moment costs at
most the file that was just coming. Processes that want the same wait for each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from sstmerge_core import words
from sstmerge_core.adapters.archive import free_space
from sstmerge_core.adapters.fingerprint import adapter_fingerprint, base_fingerprint
from sstmerge_core.content.remote import ADAPTER, ContentStore, Manifest, configured
from sstmerge_core.errors import DataError, Problem
from sstmerge_core.workspace import Workspace, given_path, new_folder, sync

PLACE = "SSTMERGE_NODE_CACHE"
"""Environment: the folder of the cache, where the workspace lies on a disk that machines share"""
NAME = "content"
_SLACK = 64 << 20
"""Bytes that stay free on the disk of the cache"""

Fetching = Callable[[int, int], None]
"""(bytes done, bytes in all); may raise to stop"""


def folder(workspace: Workspace) -> Path:
    """Where the cache is: ``SSTMERGE_NODE_CACHE``, else within the workspace's cache."""
    given = os.environ.get(PLACE, "").strip()
    return given_path(given).resolve() if given else workspace.cache / NAME


def cached(kind: str, sha256: str, workspace: Workspace) -> Path | None:
    """The folder of this content in the cache, its hash compared now; one that was changed since is removed."""
    place = folder(workspace) / kind / sha256
    if not place.is_dir():
        return None
    if _fingerprint(kind, place, workspace) == sha256:
        os.utime(place)  # `sstmerge tidy` lets go first what was used longest ago
        return place
    with _alone(place):
        if place.is_dir() and _fingerprint(kind, place, workspace) != sha256:
            shutil.rmtree(place)
    return None


def has(kind: str, sha256: str, workspace: Workspace) -> bool:
    """Whether `fetch` would find this content. Raises DataError where the store cannot be used."""
    if cached(kind, sha256, workspace) is not None:
        return True
    store = configured()
    return store is not None and store.manifest(kind, sha256) is not None


def fetch(
    kind: str,
    sha256: str,
    workspace: Workspace,
    *,
    store: ContentStore | None = None,
    progress: Fetching = lambda done, total: None,
) -> Path | None:
    """The folder of this content, from the cache or from the store (default: the one configured).

    None where no store is configured or it does not have it. Raises DataError where what comes is not what its hash
    says, the store cannot be used, or the disk has no room.
    """
    if (here := cached(kind, sha256, workspace)) is not None:
        return here
    store = store or configured()
    if store is None or (manifest := store.manifest(kind, sha256)) is None:
        return None
    target = folder(workspace) / kind / sha256
    with _alone(target):
        if target.is_dir() and _fingerprint(kind, target, workspace) == sha256:
            return target  # another process has just fetched it
        _bring(target, manifest, store, folder(workspace) / "coming" / sha256, progress)
    return target


def put(kind: str, sha256: str, target: Path, workspace: Workspace) -> None:
    """Make the folder `target` of what `fetch` has brought, whole or not at all; it replaces what is there.

    An adapter is copied: who changes it changes no cache. The files of a base model are the same as the cache's where
    the disk allows it. Raises DataError where it is not in the cache any more.
    """
    if (source := cached(kind, sha256, workspace)) is None:
        raise DataError(Problem(f"{kind} {sha256[:12]}", "is not in the cache any more", "Fetch it again."))
    with new_folder(target) as new:
        for path in sorted(source.iterdir()):
            if kind == ADAPTER:
                shutil.copyfile(path, new / path.name)
            else:
                _link(path, new / path.name)


def _bring(target: Path, manifest: Manifest, store: ContentStore, coming: Path, progress: Fetching) -> None:
    """Fetch what is missing in `coming`, and make the folder `target` of it."""
    coming.mkdir(parents=True, exist_ok=True)
    missing = {digest: size for size, digest in manifest.files.values() if not (coming / digest).is_file()}
    if sum(missing.values()) + _SLACK > free_space(coming):
        fault = f"takes {words.size(sum(missing.values()))}, more than there is room for in {coming.parent.parent}"
        fix = f"Free some space (`sstmerge tidy`), or name another folder in {PLACE}."
        raise DataError(Problem(f"{manifest.kind} {manifest.name}", fault, fix))
    done = 0
    for name, (size, digest) in sorted(manifest.files.items()):
        _object(coming / digest, name, size, digest, store, _beyond(progress, done, manifest.bytes))
        done += size
        progress(done, manifest.bytes)
    with new_folder(target) as new:
        for name, (_, digest) in manifest.files.items():
            _link(coming / digest, new / name)
        found = _fingerprint(manifest.kind, new, None)
        if found != manifest.sha256:
            shutil.rmtree(coming)
            fault = f"its files come to the SHA-256 {found[:16]}…, not to {manifest.sha256[:16]}…"
            where = f"{manifest.kind} {manifest.name} in {store.address}"
            raise DataError(Problem(where, fault, "The store's manifest is wrong: push the original again."))
    shutil.rmtree(coming)


def _beyond(progress: Fetching, before: int, total: int) -> Callable[[int], None]:
    return lambda here: progress(before + here, total)


def _object(
    target: Path, name: str, size: int, digest: str, store: ContentStore, progress: Callable[[int], None]
) -> None:
    """One file of the store under its hash, there once its bytes are those of the hash."""
    if target.is_file() and _hash(target) == digest:  # of a fetch that was interrupted
        return
    handle, temporary = tempfile.mkstemp(prefix=f".{digest}.partial-", dir=target.parent)
    try:
        found, seen = hashlib.sha256(), 0
        with os.fdopen(handle, "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # `sstmerge tidy` leaves alone what is held
            for piece in store.read(digest):
                file.write(piece)
                found.update(piece)
                seen += len(piece)
                if seen > size:
                    break
                progress(seen)
            file.flush()
            os.fsync(file.fileno())
            if (seen, found.hexdigest()) != (size, digest):
                fault = f"{name} is not what its SHA-256 {digest[:16]}… says"
                fix = "Push the original again from where it is whole; `sstmerge store check` reads everything through."
                raise DataError(Problem(store.address, fault, fix))
            os.replace(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)
        sync(target)


def _fingerprint(kind: str, place: Path, workspace: Workspace | None) -> str:
    """The fingerprint of a folder; with a workspace as it is remembered while nothing of the files has changed."""
    try:
        return (adapter_fingerprint if kind == ADAPTER else base_fingerprint)(place, workspace)
    except (OSError, ValueError):
        return ""


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Hold the lock of one content on this machine; the kernel lets it go when the process dies."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.parent / f".{target.name}.lock", "wb") as file:
        with contextlib.suppress(OSError):  # a disk without locks: then two may fetch the same, and both are right
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
