"""The base model's weights, one module at a time, straight from its safetensors files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sstmerge_core.adapters.check import EMBEDDINGS, read_base
from sstmerge_core.errors import DataError, Problem

if TYPE_CHECKING:
    import torch


def base_weights(path: str | Path, device: str = "cpu") -> Callable[[str], torch.Tensor]:
    """A function from module name to its base weight as ΔW is shaped, (out, in) float32 on `device`.

    Embeddings and GPT-2's Conv1D, which keep (in, out), are turned. Raises DataError where the folder is no base model,
    and when called for a module that the base does not have.
    """
    base = read_base(path)
    keys = {id(place): key for key, place in base.weights.items()}

    def weight(module: str) -> torch.Tensor:
        import torch
        from safetensors import safe_open

        found = base.weight(module)
        if found is None:
            raise DataError(Problem(str(base.path), f"has no module {module}", "Choose the adapter's base model."))
        with safe_open(found[0], framework="pt", device=device) as file:
            tensor = file.get_tensor(f"{keys[id(found)]}.weight").to(torch.float32)
        turned = base.is_transposed(module) or module.rsplit(".", 1)[-1] in EMBEDDINGS
        return tensor.T if turned else tensor

    return weight
