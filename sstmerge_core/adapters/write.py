"""Write a merged adapter as a PEFT folder, and prove what was written by reading it back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstmerge_core.adapters.read import CONFIG, WEIGHTS, read
from sstmerge_core.errors import AdapterError, Problem
from sstmerge_core.workspace import new_folder, write_file, write_json

if TYPE_CHECKING:
    from sstmerge_core.merge import Merged

RECORD = "sstmerge.json"
"""What is known of an adapter beyond PEFT's own files: recipe, hashes, versions, scores."""


@dataclass(frozen=True)
class Written:
    path: Path
    sha256: str
    bytes: int
    statistics: list[dict[str, Any]] = field(default_factory=list)
    """``rank_error`` per module and pooled (empty module name), where the factors are an approximation"""


def write_adapter(
    merged: Merged, folder: Path, *, base_name: str, record: dict[str, Any] | None = None, card: str = ""
) -> Written:
    """Write `merged` to `folder` as float32 PEFT LoRA with scaling 1, whole or not at all.

    After writing, the folder is read again and every factor compared bit for bit.
    Raises AdapterError where that fails, or where `folder` exists and is not an adapter of ours.
    """
    import torch
    from safetensors.torch import save_file

    _refuse_foreign(folder)
    tensors: dict[str, torch.Tensor] = {}
    statistics = []
    squared_error = squared_norm = 0.0
    for name, module in merged.modules.items():
        (a, b), error = module.compressed(merged.rank)
        tensors[f"base_model.model.{name}.lora_A.weight"] = a.contiguous().cpu()
        tensors[f"base_model.model.{name}.lora_B.weight"] = b.contiguous().cpu()
        if error is not None:
            statistics.append({"module": name, "stat": "rank_error", "value": error})
            norm = float((b @ a).square().sum()) / max(1e-12, 1 - error**2)
            squared_error, squared_norm = squared_error + error**2 * norm, squared_norm + norm
    if squared_norm:
        statistics.append({"module": "", "stat": "rank_error", "value": (squared_error / squared_norm) ** 0.5})

    with new_folder(folder) as temporary:
        save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
        write_json(temporary / CONFIG, _config(merged, base_name))
        write_json(temporary / RECORD, record or {})
        if card:
            write_file(temporary / "README.md", card)
        _verify(temporary, tensors)
    adapter = read(folder, check_values=False)
    return Written(folder, adapter.sha256, adapter.bytes, statistics)


def _refuse_foreign(folder: Path) -> None:
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / RECORD).is_file()):
        fault = "exists and was not written by this tool, so it is not replaced"
        raise AdapterError(Problem(str(folder), fault, "Give another --out folder, or remove this one."))


def _config(merged: Merged, base_name: str) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": merged.rank,
        "lora_alpha": merged.rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "target_modules": sorted(merged.modules),
    }


def _verify(folder: Path, tensors: dict[str, Any]) -> None:
    """The written bits are the computed bits, and every value is finite."""
    import torch

    for name, factors in read(folder).load().items():
        key = f"base_model.model.{name}"
        same = torch.equal(factors.a, tensors[f"{key}.lora_A.weight"])
        if not (same and torch.equal(factors.b, tensors[f"{key}.lora_B.weight"]) and factors.scaling == 1.0):
            raise AdapterError(Problem(str(folder), f"{name} was not written faithfully", "Check the disk."))
