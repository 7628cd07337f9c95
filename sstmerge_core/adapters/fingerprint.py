"""SHA-256 of folders by content, remembered per file so that a 500 MB model is hashed once."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from sstmerge_core import documents
from sstmerge_core.workspace import Workspace

_VOLATILE = ("transformers_version", "_name_or_path", "_model_name_or_path", "torch_dtype", "dtype", "use_cache")
"""Keys of config.json that do not change what the model computes here."""


def adapter_fingerprint(
    folder: Path, workspace: Workspace | None = None, *, known: Mapping[str, str] | None = None
) -> str:
    """SHA-256 of the weights and of the settings that enter ΔW (rank, scaling, targets).

    `known` gives hashes of files that were just computed, by file name.
    """
    config = documents.read_json(folder / "adapter_config.json")
    relevant = ("peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out")
    settings = {key: config.get(key) for key in relevant}
    return _combine(settings, [folder / "adapter_model.safetensors"], workspace, known or {})


def base_fingerprint(folder: Path, workspace: Workspace | None = None) -> str:
    """SHA-256 of a base model: weights, tokenizer, chat template, and the configuration without volatile keys."""
    config = documents.read_json(folder / "config.json")
    settings = {key: value for key, value in config.items() if key not in _VOLATILE}
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "chat_template.jinja")
    files = sorted(folder.glob("*.safetensors")) + [folder / name for name in names if (folder / name).is_file()]
    return _combine(settings, files, workspace, {})


def _combine(settings: dict, files: list[Path], workspace: Workspace | None, known: Mapping[str, str]) -> str:
    parts = [[file.name, known.get(file.name) or file_sha256(file, workspace)] for file in files]
    return hashlib.sha256(json.dumps([settings, parts], sort_keys=True).encode()).hexdigest()


def file_sha256(path: Path, workspace: Workspace | None = None) -> str:
    """SHA-256 of one file; with a workspace, remembered by inode, size and modification time."""
    if workspace is None:
        return _hash(path)
    status = path.stat()
    key = (str(path.resolve()), status.st_ino, status.st_size, status.st_mtime_ns)
    workspace.cache.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(workspace.cache / "hashes.sqlite", timeout=30)) as connection, connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS hashes(path TEXT PRIMARY KEY, inode INT, size INT, mtime INT, sha256 TEXT)"
        )
        row = connection.execute(
            "SELECT sha256 FROM hashes WHERE path=? AND inode=? AND size=? AND mtime=?", key
        ).fetchone()
        if row:
            return row[0]
        digest = _hash(path)
        connection.execute("INSERT OR REPLACE INTO hashes VALUES (?,?,?,?,?)", (*key, digest))
        return digest


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return hashlib.file_digest(file, "sha256").hexdigest()
