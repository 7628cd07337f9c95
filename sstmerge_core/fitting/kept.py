"""Fits on disk under the hash of everything they depend on, and where one stands that has not ended.

An entry is the folder ``cache/fitted/KEY``; until it is there, ``cache/fitted/KEY.safetensors`` holds the last step, so
that a kill at any moment costs one step. What is kept there is read back bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstmerge_core.fitting.fit import Fit
from sstmerge_core.workspace import Workspace, is_whole, new_folder, seal, write_json

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Checkpoint:
    """One file, replaced whole or not at all; without a path nothing is kept."""

    path: Path | None = None

    def load(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """The tensors and what was said of them; None where there is nothing, or not what was written."""
        from safetensors import SafetensorError, safe_open

        if self.path is None:
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                told = file.metadata() or {}
                # copies: memory of torch's own alignment, as in a fit that was never interrupted
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
                return (
                    (tensors, json.loads(told["about"])) if told["sha256"] == _digest(tensors, told["about"]) else None
                )
        except (OSError, SafetensorError, KeyError, ValueError):
            return None

    def save(self, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> None:
        from safetensors.torch import save_file

        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f"{self.path.name}.{os.getpid()}.partial")
        kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        said = json.dumps(dict(about))
        save_file(kept, partial, metadata={"about": said, "sha256": _digest(kept, said)})
        descriptor = os.open(partial, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(partial, self.path)

    def remove(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _digest(tensors: Mapping[str, torch.Tensor], about: str) -> str:
    """SHA-256 of the tensors' names, shapes and bytes, and of what is said of them."""
    import torch

    found = hashlib.sha256(about.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def folder(workspace: Workspace, entry: str) -> Path:
    return workspace.cache / "fitted" / entry


def checkpoint(workspace: Workspace, entry: str) -> Checkpoint:
    """Where the fit `entry` stands; the name of everything that it depends on, see `fisher.cache.key`."""
    return Checkpoint(folder(workspace, entry).with_suffix(".safetensors"))


def load(workspace: Workspace, entry: str) -> Fit | None:
    """The fit that has ended, on the CPU; None where there is none, or not as it was written."""
    path = folder(workspace, entry) / "cores.safetensors"
    if not is_whole(path.parent):
        return None
    from safetensors.torch import load_file

    statistics = json.loads((path.parent / "statistics.json").read_text())["rows"]
    tensors = load_file(path)
    return Fit({name: tensors[name].clone() for name in sorted(tensors)}, statistics)


def save(workspace: Workspace, entry: str, fit: Fit, parts: Mapping[str, Any]) -> None:
    """Store `fit` whole or not at all; `parts` is kept beside it for people."""
    from safetensors.torch import save_file

    with new_folder(folder(workspace, entry)) as temporary:
        cores = {name: core.detach().cpu().contiguous() for name, core in fit.cores.items()}
        save_file(cores, temporary / "cores.safetensors")
        write_json(temporary / "statistics.json", {"rows": fit.statistics})
        write_json(temporary / "parts.json", dict(parts))
        seal(temporary)
