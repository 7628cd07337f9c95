"""SHA-256 of folders by content, remembered per file so that a 500 MB model is hashed once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

from sstmerge_core.adapters.json_file import read_object
from sstmerge_core.adapters.templates import settings_template
from sstmerge_core.errors import OF_SQLITE
from sstmerge_core.workspace import Workspace

_CACHE = "hashes.sqlite"
_TICK_SECONDS = 0.1
"""Longer than the steps in which file systems count time, 4 to 10 ms"""
_VOLATILE = ("transformers_version", "_name_or_path", "_model_name_or_path", "torch_dtype", "dtype", "use_cache")
"""Keys of config.json that do not change what the model computes here."""


def adapter_fingerprint(
    folder: Path, workspace: Workspace | None = None, *, known: Mapping[str, str] | None = None
) -> str:
    """SHA-256 of the weights and of the settings that enter ΔW (rank, scaling, targets).

    `known` gives hashes of files that were just computed, by file name.
    """
    config = read_object(folder / "adapter_config.json")
    relevant = ("peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out")
    settings = {key: config.get(key) for key in relevant}
    return _combine(settings, [folder / "adapter_model.safetensors"], workspace, known or {})


def base_fingerprint(folder: Path, workspace: Workspace | None = None) -> str:
    """SHA-256 of a base model: weights, tokenizer, chat template, and the configuration without volatile keys."""
    config = read_object(folder / "config.json")
    settings = {key: value for key, value in config.items() if key not in _VOLATILE}
    if not (folder / "chat_template.jinja").is_file() and (template := settings_template(folder)):
        settings["chat_template"] = template  # what the model reads depends on it, wherever it is kept
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "chat_template.jinja")
    files = sorted(folder.glob("*.safetensors")) + [folder / name for name in names if (folder / name).is_file()]
    return _combine(settings, files, workspace, {})


def _combine(settings: dict, files: list[Path], workspace: Workspace | None, known: Mapping[str, str]) -> str:
    parts = [[file.name, known.get(file.name) or file_sha256(file, workspace)] for file in files]
    return hashlib.sha256(json.dumps([settings, parts], sort_keys=True).encode()).hexdigest()


def file_sha256(path: Path, workspace: Workspace | None = None) -> str:
    """SHA-256 of one file; with a workspace, remembered until anything changes that the file system says of it.

    Of that a program can set the modification time, never the time of the change (ctime). What is remembered is a
    cache: where its file is damaged it is made again, and where it cannot be written the hash is just taken.
    """
    if workspace is None:
        return _hash(path)
    state = file_state(path)
    if known := _remembered(workspace, path, state):
        return known
    begun = time.time()
    digest = _hash(path)
    # else it was written meanwhile, or may be within one tick of the file system's clock, which shows no difference
    if file_state(path) == state and begun - path.stat().st_ctime >= _TICK_SECONDS:
        _remember(workspace, path, state, digest)
    return digest


def forget(path: Path, workspace: Workspace) -> None:
    """Have the file hashed when its hash is next wanted, whatever the file system says of it."""
    with contextlib.suppress(*OF_SQLITE, OSError), _hashes(workspace) as connection:
        connection.execute("DELETE FROM hashes WHERE path = ?", [str(path.resolve())])


def is_settled(path: Path) -> bool:
    """Whether a further change would show in `file_state`: within one tick of the file system's clock it might not."""
    return time.time() - path.stat().st_ctime >= _TICK_SECONDS


def file_state(path: Path) -> str:
    """Device, inode, size, and the times of modification and of change in nanoseconds."""
    status = path.stat()
    return f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _remembered(workspace: Workspace, path: Path, state: str) -> str | None:
    try:
        with _hashes(workspace) as connection:
            sql = "SELECT sha256, seal FROM hashes WHERE path = ? AND state = ?"
            row = connection.execute(sql, [str(path.resolve()), state]).fetchone()
            # SQLite does not notice a changed bit, and a wrong hash would be believed for as long as the file is there
            return row[0] if row and row[1] == _seal(path, state, row[0]) else None
    except sqlite3.OperationalError:  # held for long, protected, or the disk is full
        return None
    except OF_SQLITE:
        for ending in ("", "-journal", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                os.unlink(f"{workspace.cache / _CACHE}{ending}")
        return None
    except OSError:
        return None


def _remember(workspace: Workspace, path: Path, state: str, digest: str) -> None:
    with contextlib.suppress(*OF_SQLITE, OSError), _hashes(workspace) as connection:
        sql = "INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?)"
        connection.execute(sql, [str(path.resolve()), state, digest, _seal(path, state, digest)])


def _seal(path: Path, state: str, digest: str) -> str:
    return hashlib.sha256(f"{path.resolve()}\n{state}\n{digest}".encode()).hexdigest()


@contextlib.contextmanager
def _hashes(workspace: Workspace) -> Iterator[sqlite3.Connection]:
    workspace.cache.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(workspace.cache / _CACHE, timeout=30)) as connection, connection:
        known = {name for _, name, *_ in connection.execute("PRAGMA table_info(hashes)")}
        if known != set(_COLUMNS):
            # of an earlier version: with it nothing could be remembered, and every page would hash the base anew
            connection.execute("DROP TABLE IF EXISTS hashes")
            connection.execute(f"CREATE TABLE hashes({', '.join(f'{name} {kind}' for name, kind in _COLUMNS.items())})")
        yield connection


_COLUMNS = {"path": "TEXT PRIMARY KEY", "state": "TEXT", "sha256": "TEXT", "seal": "TEXT"}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        if hasattr(os, "posix_fadvise"):  # not on macOS
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return hashlib.file_digest(file, "sha256").hexdigest()
