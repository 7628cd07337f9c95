"""Write a merged adapter as a PEFT folder, and prove what was written by reading it back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstmerge_core.adapters.read import CONFIG, WEIGHTS, read
from sstmerge_core.errors import AdapterError, Problem
from sstmerge_core.workspace import new_folder, write_file, write_json

if TYPE_CHECKING:
    import torch

RECORD = "sstmerge.json"
"""What is known of an adapter beyond PEFT's own files: recipe, hashes, versions, scores."""


@dataclass(frozen=True)
class Written:
    path: Path
    sha256: str
    bytes: int


def write_adapter(
    factors: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
    folder: Path | str,
    *,
    base_name: str,
    record: dict[str, Any] | None = None,
    card: str = "",
) -> Written:
    """Write A (r, in) and B (out, r) of every module to `folder` as float32 PEFT LoRA, whole or not at all.

    The scaling is 1 and r the same for every module.

    After writing, the folder is read again and every factor compared bit for bit.
    Raises AdapterError where that fails, or where `folder` exists and is not an adapter of ours.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    _refuse_foreign(folder)
    tensors: dict[str, torch.Tensor] = {}
    for name, (a, b) in factors.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = a.contiguous().cpu()
        tensors[f"base_model.model.{name}.lora_B.weight"] = b.contiguous().cpu()
    with new_folder(folder) as temporary:
        save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
        write_json(temporary / CONFIG, _config(factors, base_name))
        write_json(temporary / RECORD, record or {})
        if card:
            write_file(temporary / "README.md", card)
        _verify(temporary, tensors)
    adapter = read(folder, check_values=False)
    return Written(folder, adapter.sha256, adapter.bytes)


def _refuse_foreign(folder: Path) -> None:
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / RECORD).is_file()):
        fault = "exists and was not written by this tool, so it is not replaced"
        raise AdapterError(Problem(str(folder), fault, "Give another --out folder, or remove this one."))


def _config(factors: Mapping[str, tuple[torch.Tensor, torch.Tensor]], base_name: str) -> dict[str, Any]:
    rank = max((a.shape[0] for a, _ in factors.values()), default=0)
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "target_modules": sorted(factors),
    }


def _verify(folder: Path, tensors: dict[str, Any]) -> None:
    """The written bits are the computed bits, and every value is finite."""
    import torch

    for name, factors in read(folder).load().items():
        key = f"base_model.model.{name}"
        same = torch.equal(factors.a, tensors[f"{key}.lora_A.weight"])
        if not (same and torch.equal(factors.b, tensors[f"{key}.lora_B.weight"]) and factors.scaling == 1.0):
            raise AdapterError(Problem(str(folder), f"{name} was not written faithfully", "Check the disk."))
