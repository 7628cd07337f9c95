"""Gradients on disk under the hash of everything they depend on: one entry per part (harmful, utility, general)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from sstmerge_core.fisher.gradients import Gradients
from sstmerge_core.workspace import Workspace, is_whole, new_folder, seal, write_json


def key(**parts: Any) -> str:
    """Name of the cache entry: 32 hexadecimal digits over base, adapters, rows, template, length, dtype, version."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def folder(workspace: Workspace, entry: str) -> Path:
    return workspace.cache / "gradients" / entry


def load(workspace: Workspace, entry: str) -> Gradients | None:
    """The cached gradients, on the CPU; None where there are none, or not as they were written."""
    path = folder(workspace, entry) / "gradients.safetensors"
    if not is_whole(path.parent):
        return None
    from safetensors.torch import load_file

    tensors = load_file(path)
    tokens = tensors.pop("tokens")
    return Gradients.of({name: tensors[name] for name in sorted(tensors)}, tokens)


def save(workspace: Workspace, entry: str, gradients: Gradients, parts: dict[str, Any]) -> None:
    """Store `gradients` whole or not at all; `parts` is kept beside them for people.

    An entry is a plain mean over its samples: weights between parts are applied after loading, see `stack`.
    """
    from safetensors.torch import save_file

    modules = {name: gradient.contiguous().cpu() for name, gradient in gradients.modules.items()}
    with new_folder(folder(workspace, entry)) as temporary:
        save_file(modules | {"tokens": gradients.tokens}, temporary / "gradients.safetensors")
        write_json(temporary / "parts.json", parts)
        seal(temporary)
