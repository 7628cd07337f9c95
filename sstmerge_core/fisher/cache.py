"""Gradients on disk under the hash of everything they depend on: one entry per part (harmful, utility, general)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from sstmerge_core import documents
from sstmerge_core.fisher.gradients import Gradients, plain_mean
from sstmerge_core.fisher.partial import FILE, SHAPES
from sstmerge_core.workspace import Workspace, is_whole, new_folder, seal, write_json


def key(**parts: Any) -> str:
    """Name of the cache entry: 32 hexadecimal digits over base, adapters, rows, template, length, dtype, version."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def folder(workspace: Workspace, entry: str) -> Path:
    return workspace.cache / "gradients" / entry


def load(workspace: Workspace, entry: str) -> Gradients | None:
    """The cached gradients, on the CPU, as a mapping of their file; None where there are none as they were written."""
    place = folder(workspace, entry)
    path = place / FILE
    if not is_whole(place):
        return None
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping of Python's
    shapes = {name: (p, q) for name, p, q in documents.read_json(place / SHAPES)["shapes"]}
    return Gradients(tensors["rows"], shapes, tensors["tokens"], plain_mean(len(tensors["tokens"])))


def save(workspace: Workspace, entry: str, gradients: Gradients, parts: dict[str, Any]) -> None:
    """Store `gradients` whole or not at all; `parts` is kept beside them for people.

    An entry is a plain mean over its samples: weights between parts are applied after loading, see `stack`.
    """
    from safetensors.torch import save_file

    with new_folder(folder(workspace, entry)) as temporary:
        save_file({"rows": gradients.rows.cpu().contiguous(), "tokens": gradients.tokens}, temporary / FILE)
        write_json(temporary / SHAPES, {"shapes": [[name, *shape] for name, shape in gradients.shapes.items()]})
        write_json(temporary / "parts.json", parts)
        seal(temporary)
