"""A LoRA that stands for any adapter of PEFT's that moves weight matrices: PEFT puts it on, and W' − W is factored."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstmerge_core.adapters import names, patterns
from sstmerge_core.adapters.json_file import shown
from sstmerge_core.adapters.names import canonical
from sstmerge_core.adapters.settings import RECOMPUTED
from sstmerge_core.adapters.skeleton import LOCAL, in_memory, model_class, stacks
from sstmerge_core.errors import AdapterError, DataError, Problem

if TYPE_CHECKING:
    import torch

TOLERANCE = 1e-6
"""Relative error of ΔW up to which a rank counts as exact: what float32 factors keep"""
_TOKENS = ("trainable_token_indices", "token_indices", "modules_to_save")


@dataclass(frozen=True)
class Stand:
    """Factors A (r, in) and B (out, r) of one rank for every module, and what that rank leaves out."""

    factors: dict[str, tuple[torch.Tensor, torch.Tensor]]
    embeddings: frozenset[str]
    fan_in_fan_out: bool
    rank: int
    rank_error: float
    """‖ΔW − BA‖_F / ‖ΔW‖_F over all modules"""


def stand_in(folder: Path, config: Mapping[str, Any], base: Path, rank: int = 0) -> Stand:
    """The LoRA of the PEFT adapter in `folder` on the model in `base`, of `rank`, or of the smallest that is exact.

    Memory: the base model two times in float32 (in float64 where it is small: the difference is then exact to the
    adapter's own precision). Raises AdapterError where PEFT does not take the adapter, or where it moves what is no
    matrix of a module (biases, norms); DataError where the base cannot be loaded.
    """
    import torch
    from transformers import AutoConfig

    try:
        config_of = AutoConfig.from_pretrained(base, **LOCAL)
        model: Any = model_class(config_of).from_pretrained(base, dtype=torch.float32, use_safetensors=True, **LOCAL)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise DataError(Problem(str(base), f"cannot be loaded: {shown(error)}", "Check the base model.")) from None
    # PiSSA and OLoRA factor the base in PEFT, which refuses float64 for that
    recomputed = str(config.get("init_lora_weights")).lower() in RECOMPUTED
    if not recomputed and sum(weight.numel() for weight in model.parameters()) < 1e9:
        model = model.double()
    kinds = {name: type(module) for name, module in model.named_modules()}
    memory = in_memory(model)
    fused = {
        f"{memory[name]}.{part}": bool(getattr(module, "is_transposed", False)) for name, module, part in stacks(model)
    }
    tied = bool(getattr(model.config.get_text_config(), "tie_word_embeddings", False))
    before = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PEFT: what it says of training
        merged = _merged(model, folder, config)
    both = [name for name in merged if name in before]
    moved = {name: merged[name] for name in both if not torch.equal(merged[name], before[name])}
    if tied and not any(config.get(name) for name in _TOKENS) and not _names(folder, "lm_head"):
        moved.pop("lm_head.weight", None)  # PEFT added the embedding's update to the weight that both have
    if not moved:
        raise AdapterError(Problem(str(folder), "changes no weight of the base", "Check that the two belong together."))
    found, embeddings, turned = {}, set(), False
    for name, weight in moved.items():
        module = name.removesuffix(".weight")
        kind = kinds.get(module)
        if name in fused:
            change = weight.double() - before[name].double()
            stack, _, part = canonical(name).rpartition(".")
            for expert, own in enumerate(change.mT if fused[name] else change):
                found[f"{stack}.{expert}.{part}"] = own
            continue
        if kind is None or weight.dim() != 2 or name == module:
            fault = f"changes {shown(name)}, which is no matrix of a module; no LoRA stands for it"
            raise AdapterError(Problem(str(folder), fault, "Train it without, or merge it into a dense model."))
        embedding = issubclass(kind, torch.nn.Embedding)
        delta = weight.double() - before[name].double()
        if embedding or kind.__name__ == "Conv1D":
            delta = delta.T
        found[canonical(module)] = delta
        embeddings |= {canonical(module)} if embedding else set()
        turned |= kind.__name__ == "Conv1D"
    factors, used, lost = _factored(found, rank)
    return Stand(factors, frozenset(embeddings), turned, used, lost)


def _names(folder: Path, part: str) -> bool:
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", framework="numpy") as file:
        return any(part in name for name in file.keys())  # noqa: SIM118


def _merged(model: Any, folder: Path, config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The weights with the adapter on them, by the base's names."""
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    own = _plain_targets(config, [name for name, _ in model.named_modules()], folder)
    stored = load_file(folder / "adapter_model.safetensors")
    tensors = {names.with_prefix(name): tensor for name, tensor in stored.items()}
    try:
        settings = PeftConfig.from_peft_type(**own)
        adapted = get_peft_model(model, settings, autocast_adapter_dtype=False)
        result: Any = set_peft_model_state_dict(adapted, tensors)  # a named tuple that it makes in its body
        # what the adapter has and the model did not take would be lost without a word
        if unexpected := list(result.unexpected_keys):
            fault = f"PEFT finds no place for {len(unexpected)} of its tensors, the first is {shown(unexpected[0])}"
            raise AdapterError(Problem(str(folder), fault, "Give the base model that it was trained on."))
        return adapted.to(model.dtype).merge_and_unload().state_dict()
    except (ValueError, TypeError, KeyError, RuntimeError, AttributeError, NotImplementedError, ImportError) as error:
        fault = f"PEFT cannot put it on the base ({type(error).__name__}: {shown(error)})"
        raise AdapterError(Problem(str(folder), fault, "Check that the two belong together.")) from None


def _plain_targets(config: Mapping[str, Any], modules: list[str], folder: Path) -> dict[str, Any]:
    """The settings with module names in place of patterns, which PEFT would match without a bound on time."""
    own = dict(config) | {"inference_mode": True, "base_model_name_or_path": ""}
    try:
        for name in ("target_modules", "exclude_modules", "modules_to_save", "feedforward_modules"):
            if isinstance(own.get(name), str) and own[name] != "all-linear":
                own[name] = patterns.whole(own[name], modules)
        for name in ("rank_pattern", "alpha_pattern"):
            if isinstance(own.get(name), dict) and own[name]:
                known = patterns.Patterns(own[name])
                said = {module: known.value(module, None) for module in modules}
                own[name] = {module: value for module, value in said.items() if value is not None}
        for name in ("layers_pattern",):
            for pattern in [own[name]] if isinstance(own.get(name), str) else own.get(name) or []:
                patterns.plain(pattern)
    except patterns.UnusablePattern as error:
        fix = "Write the modules' names instead, as they are in the weights file."
        raise AdapterError(Problem(str(folder / "adapter_config.json"), shown(error), fix)) from None
    return own


def _factored(
    deltas: Mapping[str, torch.Tensor], rank: int
) -> tuple[dict[str, tuple[torch.Tensor, torch.Tensor]], int, float]:
    """Factors of the best approximation of a rank (Eckart and Young 1936), the same rank for all; 0: an exact one."""
    import torch

    parts = {name: _svd(delta) for name, delta in deltas.items()}
    used = rank or max(_exact(s) for _, s, _ in parts.values())
    factors, lost, whole = {}, 0.0, 0.0
    for name, (u, s, v) in parts.items():
        out, inner = deltas[name].shape
        kept = min(used, len(s))
        a, b = torch.zeros(used, inner), torch.zeros(out, used)
        root = s[:kept].sqrt()
        a[:kept], b[:, :kept] = (root[:, None] * v[:kept]).float(), (u[:, :kept] * root).float()
        factors[name] = (a, b)
        lost += float((s[kept:] ** 2).sum())
        whole += float((s**2).sum())
    return factors, used, math.sqrt(lost / whole) if whole else 0.0


def _exact(s: torch.Tensor) -> int:
    """The smallest rank whose relative error is below `TOLERANCE`."""
    tail = (s.flip(0) ** 2).cumsum(0).sqrt().flip(0)  # what is lost from each place on
    return max(1, int((tail > TOLERANCE * tail[0]).sum()))


def _svd(delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """U, S, V of a matrix; columns that are all zero (tokens that were not trained) are left out of the work."""
    import torch

    columns = delta.abs().amax(0).nonzero().squeeze(1)
    u, s, inner = torch.linalg.svd(delta[:, columns], full_matrices=False)
    v = torch.zeros(len(s), delta.shape[1], dtype=delta.dtype)
    v[:, columns] = inner
    return u, s, v
