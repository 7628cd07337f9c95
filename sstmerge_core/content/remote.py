"""The store of adapters and base models that several machines share: files by SHA-256, behind an fsspec address.

    <address>/objects/ab/<SHA-256 of the file>       every file once, whatever it is called and whoever has it
    <address>/adapter/<fingerprint>.json             which files make an adapter up, and what it is called
    <address>/base/<fingerprint>.json                the same of a base model

A manifest is written after the last of its objects is there, and each object under its final name only once it is
whole: a process that is killed leaves objects that nothing names, never a manifest that promises too much. Nothing is
believed: who reads compares every hash (`node`). What nothing names is taken away by `tidy`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

from sstmerge_core import documents
from sstmerge_core.adapters.archive import FILES as ADAPTER_FILES
from sstmerge_core.adapters.fingerprint import adapter_fingerprint, base_fingerprint
from sstmerge_core.errors import DataError, Problem, disk_problem
from sstmerge_core.workspace import given_path

ADDRESS = "SSTMERGE_STORE"
"""Environment: the address of the store, ``s3://bucket/prefix``, ``file:///folder`` or any other of fsspec's"""
ADAPTER, BASE = "adapter", "base"
KINDS = (ADAPTER, BASE)
FORMAT = 1
_BESIDE = ("README.md", "recipe.yaml")
"""Of an adapter's folder what is taken along beside what makes it up: its card and its recipe"""
_OF_A_BASE = (".safetensors", ".json", ".txt", ".model", ".jinja")
"""Endings of a base model's files; nothing that could run is shared"""
_CHUNK = 4 << 20
RENEWED = 1800.0
"""Seconds after which a push of what is there already dates its manifest anew, so that `tidy` counts it as young"""
_TRIES = 3
"""How often a push sends again what `tidy` took away in the middle of it"""
_HASH = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[\w.+@-]{1,200}")

Progress = Callable[[int, int], None]
"""(bytes done, bytes in all)"""


@dataclass(frozen=True)
class Manifest:
    """One adapter or base model of the store."""

    kind: str
    sha256: str
    """Its fingerprint, by which recipes name it"""
    name: str
    files: Mapping[str, tuple[int, str]]
    """Name → bytes and SHA-256"""
    run_id: str = ""
    """Of the run that made it; empty for what no merge made"""
    stored_at: float = 0.0
    """UTC epoch seconds"""

    @property
    def bytes(self) -> int:
        return sum(size for size, _ in self.files.values())


@dataclass
class Pushed:
    """What a push did."""

    manifest: Manifest
    sent: int = 0
    """Bytes that were not in the store before"""


def configured(address: str = "") -> ContentStore | None:
    """The store at `address`, else the one that ``SSTMERGE_STORE`` names; None where neither does."""
    found = address.strip() or os.environ.get(ADDRESS, "").strip()
    return ContentStore(found) if found else None


def named(address: str = "") -> ContentStore:
    """As `configured`. Raises DataError where no store is named."""
    if (found := configured(address)) is None:
        fix = f"Set {ADDRESS} to its address, for example s3://bucket/sstmerge or file:///srv/models, or give --store."
        raise DataError(Problem("store", "none is named", fix))
    return found


@dataclass
class ContentStore:
    """A store at an address of fsspec; a path without ``://`` is a folder of this machine.

    Credentials and endpoints are those that the protocol's own library finds (for ``s3://`` the AWS variables and
    files); none is kept here. What the far side refuses is a DataError in its words.
    """

    address: str
    _opened: tuple[Any, str] | None = field(default=None, repr=False)

    def manifest(self, kind: str, sha256: str) -> Manifest | None:
        """What the store has of this content; None where it has nothing. Raises DataError for a damaged manifest."""
        path = self._path(kind, f"{sha256}.json")
        with self._told(path):
            filesystem, _ = self._open()
            try:
                text = filesystem.cat_file(path)
            except FileNotFoundError:
                return None
        found = _read(text, path)
        if (found.kind, found.sha256) != (kind, sha256):
            raise DataError(Problem(path, "is the manifest of something else", "Push the original again."))
        return found

    def manifests(self) -> Iterator[Manifest]:
        """Everything in the store, by kind and fingerprint; a manifest that cannot be read is passed over."""
        for kind in KINDS:
            with self._told(self.address):
                filesystem, root = self._open()
                filesystem.invalidate_cache()
                try:
                    paths = sorted(filesystem.ls(f"{root}/{kind}", detail=False))
                except FileNotFoundError:
                    continue
            for path in paths:
                stem = path.rpartition("/")[2].removesuffix(".json")
                if _HASH.fullmatch(stem):
                    with contextlib.suppress(DataError):
                        if (found := self.manifest(kind, stem)) is not None:
                            yield found

    def manifest_at(self, path: str) -> Manifest | None:
        """The manifest at a path below the address, whichever; None where none is. Raises DataError as `manifest`."""
        where = self._path(path)
        with self._told(where):
            try:
                text = self._open()[0].cat_file(where)
            except FileNotFoundError:
                return None
        return _read(text, where)

    def must_exist(self) -> None:
        """Raises DataError where nothing at all is at the address: it may be misspelt, or its disk not mounted."""
        with self.spoken() as (filesystem, root):
            filesystem.invalidate_cache()
            here = filesystem.exists(root)
        if not here:
            fix = "Check its spelling, and that its disk is mounted; `sstmerge store push` makes a new store."
            raise DataError(Problem(self.address, "there is no store here", fix))

    def find(self, wanted: str) -> Manifest:
        """The one item called `wanted`, or whose fingerprint or run begins so. Raises DataError for none or several."""
        for kind in KINDS if _HASH.fullmatch(wanted) else ():
            if (known := self.manifest(kind, wanted)) is not None:
                return known
        found = [one for one in self.manifests() if wanted == one.name]
        if not found and len(wanted) >= 6:
            found = [one for one in self.manifests() if wanted in (one.sha256[: len(wanted)], one.run_id)]
        if len(found) != 1:
            fault = f"names {len(found)} things in {self.address}" if found else f"is not in {self.address}"
            raise DataError(Problem(wanted, fault, "`sstmerge store list` shows names and hashes; give the hash."))
        return found[0]

    def push(
        self,
        kind: str,
        folder: Path,
        name: str,
        *,
        run_id: str = "",
        progress: Progress = lambda done, total: None,
    ) -> Pushed:
        """Put the adapter or base model in `folder` into the store; files that it has already are not sent again.

        Raises DataError where a file of the folder changes while it is sent, or the store refuses it.

        An object that was there may be taken away by `tidy` until the manifest names it: when that is written, all are
        looked for once more. `tidy` reads the manifests once more after it has put something aside, so that one of the
        two sees the other.
        """
        folder = Path(folder)
        fingerprint = _fingerprint(kind, folder)
        paths = [folder / one for one in _files(kind, folder)]
        total, done, sent = sum(path.stat().st_size for path in paths), 0, 0
        files: dict[str, tuple[int, str]] = {}
        for path in paths:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                size = file.tell()
                files[path.name] = size, digest
                if not self._has(digest, size):
                    file.seek(0)
                    self._put(file, digest, path, partial(_told_beyond, progress, done, total))
                    sent += size
            done += size
            progress(done, total)
        if _fingerprint(kind, folder) != fingerprint:
            raise DataError(Problem(str(folder), "changed while it was sent", "Push it again."))
        manifest = Manifest(kind, fingerprint, name, files, run_id, time.time())
        for _ in range(_TRIES):
            known = self.manifest(kind, fingerprint)
            if (
                known is None
                or dict(known.files) != files
                or (run_id and not known.run_id)
                or known.stored_at < manifest.stored_at - RENEWED
            ):
                self._write(self._path(kind, f"{fingerprint}.json"), _written(manifest))
            gone = [path for path in paths if not self._has(files[path.name][1], files[path.name][0])]
            if not gone:
                return Pushed(manifest, sent)
            for path in gone:
                with path.open("rb") as file:
                    self._put(file, files[path.name][1], path, lambda done: None)
                sent += files[path.name][0]
        fix = "Push it again when nothing else is at work there."
        raise DataError(Problem(self.address, f"{len(gone)} files of {name} are taken away again and again", fix))

    def read(self, sha256: str) -> Iterator[bytes]:
        """The bytes of an object, piece by piece, unchecked. Raises DataError where it cannot be read."""
        path = self._object(sha256)
        with self._told(path):
            filesystem, _ = self._open()
            file = filesystem.open(path, "rb")
        with contextlib.closing(file):
            while True:
                with self._told(path):
                    piece = file.read(_CHUNK)
                if not piece:
                    return
                yield piece

    def damaged(self, manifest: Manifest, *, progress: Progress = lambda done, total: None) -> list[str]:
        """The files of an item whose object is missing or has another hash, after reading every byte of it."""
        bad, done = [], 0
        for name, (size, digest) in manifest.files.items():
            seen, found = 0, hashlib.sha256()
            try:
                for piece in self.read(digest):
                    found.update(piece)
                    seen += len(piece)
                    progress(done + seen, manifest.bytes)
            except DataError:
                bad.append(name)
            else:
                if (seen, found.hexdigest()) != (size, digest):
                    bad.append(name)
            done += size
        return bad

    # --- how it is spoken to -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def spoken(self, path: str = "") -> Iterator[tuple[Any, str]]:
        """The file system and the store's root within it; what the far side refuses is a DataError about `path`."""
        with self._told("/".join(filter(None, [self.address.rstrip("/"), path]))):
            yield self._open()

    def _open(self) -> tuple[Any, str]:
        """The file system, and the store's root within it without a slash at the end."""
        if self._opened is None:
            import fsspec

            address = self.address if "://" in self.address else given_path(self.address).resolve().as_uri()
            # what another machine has put there since is to be seen, and credentials that came after an earlier store
            options = {"skip_instance_cache": True}
            options |= {"use_listings_cache": False} if address.startswith(("s3:", "s3a:")) else {}
            filesystem, root = fsspec.url_to_fs(address, **options)
            self._opened = filesystem, root.rstrip("/")
        return self._opened

    def _path(self, *parts: str) -> str:
        with self._told(self.address):
            return "/".join([self._open()[1], *parts])

    def _object(self, sha256: str) -> str:
        return self._path("objects", sha256[:2], sha256)

    def _has(self, sha256: str, size: int) -> bool:
        """Whether an object is there with all of its bytes; one of another length was cut off by somebody's hand."""
        path = self._object(sha256)
        with self._told(path):
            try:
                return bool(self._open()[0].size(path) == size)
            except FileNotFoundError:
                return False

    def _put(self, file: IO[bytes], sha256: str, source: Path, progress: Callable[[int], None]) -> None:
        target = self._object(sha256)
        digest, done = hashlib.sha256(), 0
        with self._told(target), self._whole(target) as out:
            while piece := file.read(_CHUNK):
                digest.update(piece)
                out.write(piece)
                done += len(piece)
                progress(done)
            if digest.hexdigest() != sha256:
                raise DataError(Problem(str(source), "changed while it was sent", "Push it again."))

    def _write(self, path: str, data: bytes) -> None:
        with self._told(path), self._whole(path) as out:
            out.write(data)

    @contextlib.contextmanager
    def _whole(self, path: str) -> Iterator[Any]:
        """A file to write that is at `path` once the block has ended well, and not before.

        An object store shows a file when its upload is complete. A file system shows it as it grows: there it is
        written beside its place and renamed.
        """
        filesystem, _ = self._open()
        if "file" not in filesystem.protocol and "local" not in filesystem.protocol:
            file = filesystem.open(path, "wb")
            try:
                yield file
            except BaseException:
                with contextlib.suppress(Exception):
                    file.discard()  # what was sent of it is no file
                raise
            file.close()
            return
        filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
        temporary = f"{path}.partial-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)

    @contextlib.contextmanager
    def _told(self, where: str) -> Iterator[None]:
        """What the far side says as a DataError of this program."""
        try:
            yield
        except FileNotFoundError as error:
            raise DataError(Problem(where, "is not in the store", "`sstmerge store list` shows what is.")) from error
        except ImportError as error:
            fix = 'Install the extra: pip install "sstmerge[store]".'
            raise DataError(Problem(self.address, f"needs a package that is not here ({error.name})", fix)) from None
        except PermissionError as error:
            fix = "Check the credentials that its library finds (for s3 the AWS variables), and what they may do."
            raise DataError(Problem(where, f"the store refuses this ({error})", fix)) from error
        except Exception as error:
            module = type(error).__module__.partition(".")[0]
            if not isinstance(error, (OSError, ValueError, TimeoutError)) and module not in _LIBRARIES:
                raise  # a fault of ours
            said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            fix = f"Check the address in {ADDRESS} or --store, the network, and the credentials of its library."
            known = disk_problem(error, where) if isinstance(error, OSError) else None
            raise DataError(known or Problem(where, f"the store cannot be used ({said})", fix)) from error


_LIBRARIES = frozenset({"aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "paramiko", "s3fs"})
"""Packages whose errors are of the store and not of this program"""


def _told_beyond(progress: Progress, before: int, total: int, here: int) -> None:
    progress(before + here, total)


def _fingerprint(kind: str, folder: Path) -> str:
    try:
        return adapter_fingerprint(folder) if kind == ADAPTER else base_fingerprint(folder)
    except (OSError, ValueError) as error:
        what = "adapter" if kind == ADAPTER else "base model"
        fault = f"is no {what} that can be read ({error})"
        raise DataError(Problem(str(folder), fault, f"Give the folder of a {what}.")) from error


def _files(kind: str, folder: Path) -> list[str]:
    """The names of the files that are shared of a folder, in a stable order."""
    here = sorted(path.name for path in folder.iterdir() if path.is_file() and _NAME.fullmatch(path.name))
    if kind == ADAPTER:
        return [name for name in here if name in (*ADAPTER_FILES, *_BESIDE)]
    return [name for name in here if name.endswith(_OF_A_BASE) and not name.startswith(".")]


def _written(manifest: Manifest) -> bytes:
    files = {name: {"bytes": size, "sha256": digest} for name, (size, digest) in manifest.files.items()}
    told = {"format": FORMAT, "kind": manifest.kind, "sha256": manifest.sha256, "name": manifest.name, "files": files}
    told |= {"run_id": manifest.run_id, "stored_at": manifest.stored_at}
    return (json.dumps(told, ensure_ascii=False, indent=2, sort_keys=True) + "\n").encode()


def _read(text: bytes, where: str) -> Manifest:
    """A manifest; whoever may write into the store may have written anything there."""
    try:
        told = documents.from_json(text)
        files = {name: (int(one["bytes"]), str(one["sha256"])) for name, one in told["files"].items()}
        found = Manifest(
            told["kind"], told["sha256"], told["name"], files, told.get("run_id", ""), float(told.get("stored_at", 0))
        )
        texts = (found.kind, found.sha256, found.name, found.run_id)
        usable = all(isinstance(one, str) for one in texts) and bool(files) and told["format"] == FORMAT
        usable = usable and all(
            _NAME.fullmatch(name) and name.strip(".") and _HASH.fullmatch(digest) and size >= 0
            for name, (size, digest) in files.items()
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        usable = False
    if not usable:
        raise DataError(Problem(where, "is no manifest of this program", "Push the original again."))
    return found
