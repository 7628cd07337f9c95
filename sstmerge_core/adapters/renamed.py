"""LoRAs that other trainers write under other names, as PEFT's: the same numbers, turned where they lie otherwise."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstmerge_core.adapters.check import BaseModel
from sstmerge_core.adapters.json_file import shown
from sstmerge_core.adapters.safetensors_header import read_header
from sstmerge_core.adapters.settings import Scales
from sstmerge_core.errors import AdapterError, Problem

if TYPE_CHECKING:
    import torch

_KOHYA = re.compile(r"lora_(?:te\d?|llm|transformer)_(?P<module>.+)\.(?P<part>lora_down\.weight|lora_up\.weight|alpha)")
_MLX = re.compile(r"(?P<module>.+)\.(?P<part>lora_[ab])")


@dataclass(frozen=True)
class Renamed:
    """An adapter as PEFT keeps it."""

    tensors: dict[str, torch.Tensor]
    config: dict[str, Any]


def is_kohya(file: Path) -> bool:
    """Whether a safetensors file has kohya's names. Raises ValueError where it cannot be read."""
    return any(_KOHYA.fullmatch(name) for name in read_header(file))


def of_kohya(file: Path, base: BaseModel, settings: Mapping[str, Any] | None = None) -> Renamed:
    """ΔW = α/r · up · down (sd-scripts, networks/lora.py); its names have underscores for dots, the base tells which.

    Where the file has no α, `settings` of PEFT's beside it say the scaling; without them it is 1, as in sd-scripts.
    Raises AdapterError for modules that the base does not have, UnusablePattern as `settings.Scales`.
    """
    from safetensors.torch import load_file

    scales = Scales(settings) if settings else None

    parts: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in load_file(file).items():
        match = _KOHYA.fullmatch(name)
        if match is None:
            raise AdapterError(Problem(str(file), f"has a tensor that is no LoRA of kohya's: {shown(name)}", _PEFT))
        parts.setdefault(match["module"], {})[match["part"].removesuffix(".weight")] = tensor
    known = {module.replace(".", "_"): module for module in base.weights}
    tensors: dict[str, torch.Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for short, own in parts.items():
        module = known.get(short)
        if module is None or set(own) - {"alpha"} != {"lora_down", "lora_up"}:
            fault = f"has a module that the base does not have, or half of one: {shown(short)}"
            raise AdapterError(Problem(str(file), fault, "Give the base model that it was trained on."))
        tensors |= _pair(module, own["lora_down"], own["lora_up"])
        rank = own["lora_down"].shape[0]
        ranks[module], alphas[module] = rank, float(own["alpha"]) if "alpha" in own else 0.0
        # without an α, or with 0, sd-scripts takes the rank
        alphas[module] = alphas[module] or (scales.scaling(module, rank) * rank if scales else float(rank))
    config = {"r": max(ranks.values()), "lora_alpha": max(ranks.values())}
    return Renamed(tensors, _config(tensors, base, config | {"rank_pattern": ranks, "alpha_pattern": alphas}))


def of_mlx(file: Path, settings: Mapping[str, Any], base: BaseModel) -> Renamed:
    """ΔW = scale · (lora_a lora_b)ᵀ with lora_a (in, r) and lora_b (r, out) (mlx-lm, tuner/lora.py).

    Raises AdapterError for DoRA, fused experts, and settings without a scale.
    """
    from safetensors.torch import load_file

    said = settings.get("lora_parameters")
    said = said if isinstance(said, dict) else settings
    scale = said.get("scale")
    if settings.get("fine_tune_type", "lora") != "lora" or not isinstance(scale, (int, float)):
        fault = f"is no LoRA of MLX with a scale: fine_tune_type {shown(settings.get('fine_tune_type'), 40)}"
        raise AdapterError(Problem(str(file), fault, "Fuse it with `mlx_lm.fuse`, and extract a LoRA of that model."))
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in load_file(file).items():
        match = _MLX.fullmatch(name)
        if match is None or tensor.dim() != 2:
            raise AdapterError(Problem(str(file), f"has a tensor that is no LoRA of MLX's: {shown(name)}", _PEFT))
        parts.setdefault(match["module"], {})[match["part"]] = tensor
    tensors: dict[str, torch.Tensor] = {}
    ranks: dict[str, int] = {}
    for module, own in parts.items():
        if set(own) != {"lora_a", "lora_b"}:
            fault = f"has only {next(iter(own))} of {shown(module)}"
            raise AdapterError(Problem(str(file), fault, "Export the adapter again."))
        tensors |= _pair(module, own["lora_a"].T, own["lora_b"].T)
        ranks[module] = own["lora_a"].shape[1]
    rank = max(ranks.values(), default=1)
    alphas = {module: scale * own for module, own in ranks.items()}
    patterns = {} if set(ranks.values()) == {rank} else {"rank_pattern": ranks, "alpha_pattern": alphas}
    config = {"r": rank, "lora_alpha": scale * rank} | patterns
    named = settings.get("model")
    return Renamed(tensors, _config(tensors, base, config, named if isinstance(named, str) else ""))


_PEFT = "Save it as a PEFT LoRA where it was trained."


def _pair(module: str, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
    stem = f"base_model.model.{module}.lora_"
    return {f"{stem}A.weight": a.contiguous(), f"{stem}B.weight": b.contiguous()}


def _config(tensors: Mapping[str, Any], base: BaseModel, config: dict[str, Any], base_name: str = "") -> dict[str, Any]:
    modules = sorted({name.removeprefix("base_model.model.").rpartition(".lora_")[0] for name in tensors})
    said = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base_name or base.name}
    return said | {"bias": "none", "lora_dropout": 0.0, "inference_mode": True, "target_modules": modules} | config
