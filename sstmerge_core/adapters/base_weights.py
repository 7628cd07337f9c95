"""The base model's weights, one module at a time, straight from its safetensors files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sstmerge_core.adapters.check import EMBEDDINGS, Place, read_base
from sstmerge_core.errors import DataError, Problem

if TYPE_CHECKING:
    import torch


def base_weights(path: str | Path, device: str = "cpu") -> Callable[[str], torch.Tensor]:
    """A function from module name to its base weight as ΔW is shaped, (out, in) float32 on `device`.

    Embeddings and GPT-2's Conv1D, which keep (in, out), are turned. Raises DataError where the folder is no base model,
    and when called for a module that the base does not have.
    """
    base = read_base(path)

    def weight(module: str) -> torch.Tensor:
        found = base.places(module)
        if not found:
            raise DataError(Problem(str(base.path), f"has no module {module}", "Choose the adapter's base model."))
        tensor = read_places(found, device)
        embedding = module.rsplit(".", 1)[-1] in EMBEDDINGS
        return tensor.T if embedding or base.turned(module, tuple(tensor.shape)) else tensor

    return weight


def read_places(places: Sequence[Place], device: str = "cpu", dtype: torch.dtype | None = None) -> torch.Tensor:
    """A module's weight from where it lies in the files, as they lay it out, float32 where no `dtype` is given.

    Rows of several tensors stand below each other; of a stack of experts it is one matrix.
    """
    import torch
    from safetensors import safe_open

    parts = []
    for place in places:
        with safe_open(place.file, framework="pt", device=device) as file:
            part = file.get_tensor(place.key) if place.expert is None else file.get_slice(place.key)[place.expert]
        parts.append(part.to(dtype or torch.float32))
    return parts[0] if len(parts) == 1 else torch.cat(parts)
