"""Fully trained modules that PEFT saves whole beside the factors (``modules_to_save``): heads, embeddings, norms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from sstmerge_core.adapters import names
from sstmerge_core.adapters.json_file import read_object, shown
from sstmerge_core.adapters.places import CONFIG, WEIGHTS
from sstmerge_core.adapters.safetensors_header import TensorHeader
from sstmerge_core.adapters.safetensors_writer import NAMES
from sstmerge_core.adapters.settings import SAVED
from sstmerge_core.errors import Problem

if TYPE_CHECKING:
    import torch

Policy = Literal["refuse", "utility", "dense"]
"""What a merge does with them: nothing is merged; the utility side's stay as they are; they are merged too"""
POLICIES: tuple[Policy, ...] = get_args(Policy)


@dataclass(frozen=True)
class Saved:
    """One tensor of a fully trained module, where it lies."""

    file: Path
    key: str
    header: TensorHeader

    @property
    def is_matrix(self) -> bool:
        """Whether it is a module's weight matrix: no norm, no bias, no stack of experts."""
        return len(self.header.shape) == 2 and self.key.endswith("weight")

    def load(self) -> torch.Tensor:
        """The tensor on the CPU, in the format in which it is saved."""
        from safetensors import safe_open

        with safe_open(self.file, framework="pt") as file:
            return file.get_tensor(self.key)


def modules(folder: Path) -> tuple[str, ...]:
    """The names in the adapter's ``modules_to_save``; none where it has none, or nothing can be read of it."""
    try:
        named = read_object(folder / CONFIG).get(SAVED)
    except (OSError, ValueError):
        return ()
    return tuple(map(str, named)) if isinstance(named, list) else ()


def find(
    folder: Path, tensors: Mapping[str, TensorHeader], config: Mapping[str, Any]
) -> tuple[dict[str, Saved], list[Problem]]:
    """The tensors of a file that belong to ``modules_to_save``, by their name in the base, and what is wrong with them.

    As PEFT matches names (0.21, peft/utils/other.py, _set_trainable): by the end of a module's name, with or without a
    dot before it, so that ``norm`` is every layer norm too; of such a module everything is saved.
    """
    targets = config.get(SAVED) or []
    where = str(folder / CONFIG)
    if not targets:
        return {}, []
    if not isinstance(targets, list) or not all(isinstance(one, str) and one for one in targets):
        return {}, [Problem(where, f"{SAVED} is no list of names", "Export the adapter again.")]
    found: dict[str, Saved] = {}
    missing = dict.fromkeys(targets)
    for key, header in tensors.items():
        name = names.trained(key)
        owner = owner_of(name, targets)
        if owner:
            missing.pop(owner, None)
            found[name] = Saved(folder / WEIGHTS, key, header)
    fix = names.conversion(str(folder))
    if missing:
        said = shown(", ".join(targets))
        fault = f"carries fully trained modules ({said}), and the file has no weights of {shown(next(iter(missing)))}"
        return found, [Problem(where, fault, f"Export the adapter again. {fix}")]
    if strange := [name for name, one in found.items() if one.header.dtype not in NAMES]:
        fault = f"fully trained modules are saved in a format that is not read here, {shown(strange[0])} first"
        return found, [Problem(where, fault, "Save the adapter in float32 or bfloat16.")]
    return found, []


def owner_of(name: str, targets: Iterable[str]) -> str:
    """Which of `targets` the tensor or module `name` belongs to; empty where none."""
    if ".lora_" in name or ".base_layer" in name:
        return ""
    parts = name.split(".")
    paths = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
    return next((target for target in targets if any(path.endswith(target) for path in paths)), "")


def problem(policy: str, where: str) -> Problem | None:
    """What is wrong with a choice before any adapter is looked at."""
    if policy in POLICIES:
        return None
    return Problem(where, f"--modules-to-save {policy} is unknown", f"Use one of {', '.join(POLICIES)}.")
