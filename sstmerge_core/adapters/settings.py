"""What each setting of PEFT's LoraConfig means for ΔW = scaling · B A: it enters it, leaves it alone, or forbids it.

Every field of PEFT 0.21's LoraConfig is in exactly one of `ENTERS`, `WITHOUT_EFFECT` and `REFUSED`; a test compares
them with the PEFT that is installed, so that a new kind of adapter is never taken for a plain one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from sstmerge_core.errors import Problem

ENTERS = frozenset({"peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern"})

WITHOUT_EFFECT = frozenset(
    {
        # where the adapter comes from
        *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"),
        # which modules are adapted: the tensors say it
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "ensure_weight_tying"),
        # how the base stores its weight; A and B are the same either way
        "fan_in_fan_out",
        # training only; VeLoRA compresses what the backward pass keeps
        *("lora_dropout", "runtime_config", "velora_config"),
        # details of settings that decide by themselves: init_lora_weights, use_qalora, megatron_config
        *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size", "megatron_core"),
    }
)

_RETRAIN = "Train without it, or merge the adapter into a dense model."

REFUSED: Mapping[str, tuple[str, str]] = {
    "use_dora": (
        "is a DoRA adapter; its ΔW is not s·BA",
        "Merge the magnitudes into a dense model first, or train with use_dora=False.",
    ),
    "bias": ("trains biases (bias={})", "Train with bias='none'."),
    "lora_bias": ("adds a bias to lora_B (lora_bias)", "Train with lora_bias=False."),
    "modules_to_save": ("carries fully trained modules ({})", "Train without modules_to_save."),
    "trainable_token_indices": (
        "trains single token embeddings (trainable_token_indices)",
        "Train embed_tokens by target_modules instead.",
    ),
    "target_parameters": (
        "adapts bare parameters such as fused experts (target_parameters: {})",
        "Train it on modules, by target_modules.",
    ),
    "layer_replication": (
        "was trained on a model with replicated layers (layer_replication), which is not the base model",
        "Train it on the base as it is.",
    ),
    "alora_invocation_tokens": (
        "is an activated LoRA (aLoRA), applied only after its invocation tokens; no ΔW stands for it",
        "Train without alora_invocation_tokens.",
    ),
    "use_qalora": ("is a QALoRA adapter; its A acts on pooled inputs of a quantized base", _RETRAIN),
    "megatron_config": ("adapts Megatron's parallel layers (megatron_config)", "Train it on the transformers model."),
    "monteclora_config": ("is a MonteCLoRA adapter; its ΔW is sampled", _RETRAIN),
    "use_bdlora": ("is a BD-LoRA adapter; its factors are blocks", _RETRAIN),
    "arrow_config": ("routes between adapters (arrow_config); no ΔW stands for it", "Give the adapters it routes to."),
    "kasa_config": ("is a KaSA adapter; it changed the base weights it was trained on", _RETRAIN),
    "init_lora_weights": (
        "was initialised by {}, which changed the base weights: its BA belongs to another base",
        "Convert it to plain LoRA: save it with path_initial_model_for_weight_conversion.",
    ),
}
"""Fault and fix of each setting that `_is_set` finds; ``{}`` is its value."""

_PROMPTS = "trains prompt vectors, not weights"
_OTHER_TYPES = {
    "ADALORA": "its ΔW has singular values of its own and pruned ranks",
    "IA3": "it rescales activations",
    "VERA": "its factors are random and shared, only scales are trained",
    "LOHA": "its ΔW is a Hadamard product",
    "LOKR": "its ΔW is a Kronecker product",
    "XLORA": "it mixes adapters by token",
    "TRAINABLE_TOKENS": "it trains single token embeddings",
    **dict.fromkeys(("OFT", "BOFT", "HRA"), "it rotates the weights"),
    **dict.fromkeys(
        ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT", "CPT"), _PROMPTS
    ),
}

_INITIAL = frozenset({"true", "false", "none", "gaussian", "eva", "orthogonal", "mica"})
"""Initialisations that leave the base weights as they are (PEFT 0.21, tuners/lora/layer.py)"""


def config_problems(where: str, config: Mapping[str, Any]) -> list[Problem]:
    """Everything in an adapter_config.json that keeps ΔW from being s·BA, each by name, with what to do about it."""
    kind = str(config.get("peft_type"))
    if kind != "LORA":
        reason = _OTHER_TYPES.get(kind.upper())
        fault = f"peft_type is {kind}, not LORA" + (f"; {reason}" if reason else "")
        convertible = reason is not _PROMPTS and kind != "None"
        fix = " PEFT's save_as_lora approximates some other types by one." if convertible else ""
        return [Problem(where, fault, f"Only LoRA adapters have a ΔW = s·BA to merge.{fix}")]
    problems = []
    for name, (fault, fix) in REFUSED.items():
        if _is_set(name, config.get(name)):
            problems.append(Problem(where, fault.format(_text(config[name])), fix))
    return problems + _malformed(where, config)


def _is_set(name: str, value: Any) -> bool:
    if name == "bias":
        return value not in (None, "none")
    if name == "init_lora_weights":
        return str(value).lower() not in _INITIAL
    return bool(value)


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _malformed(where: str, config: Mapping[str, Any]) -> list[Problem]:
    """Settings that enter ΔW and have no usable value."""
    problems = []
    rank = config.get("r", 8)
    if not _is_rank(rank):
        problems.append(Problem(where, f"r is {rank}; a rank must be at least 1", "Export the adapter again."))
    if not _is_number(config.get("lora_alpha", 8)):
        fault = f"lora_alpha is {config['lora_alpha']}, not a number"
        problems.append(Problem(where, fault, "Export the adapter again."))
    checks: tuple[tuple[str, Callable[[Any], bool]], ...] = (("rank_pattern", _is_rank), ("alpha_pattern", _is_number))
    for name, usable in checks:
        patterns = config.get(name) or {}
        if not isinstance(patterns, dict):
            problems.append(Problem(where, f"{name} is no mapping from names to values", "Export the adapter again."))
            continue
        for pattern, value in patterns.items():
            if not usable(value):
                fault = f"{name} gives {pattern} the value {value}"
                problems.append(Problem(where, fault, "Export the adapter again."))
            elif not _compiles(pattern):
                fault = f"{name} holds {pattern}, which is no regular expression"
                problems.append(Problem(where, fault, "Correct the pattern."))
    return problems


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _compiles(pattern: str) -> bool:
    try:
        re.compile(rf"(.*\.)?({pattern})$")
    except re.error:
        return False
    return True


def unknown_settings(config: Mapping[str, Any]) -> list[str]:
    """Settings with a value that no PEFT known here has: they may or may not matter to ΔW."""
    known = ENTERS | WITHOUT_EFFECT | set(REFUSED)
    return sorted(name for name, value in config.items() if value and name not in known)


def rank_of(module: str, config: Mapping[str, Any]) -> int:
    """The rank PEFT gives `module`."""
    return int(_by_pattern(module, config.get("rank_pattern"), config.get("r", 8)))


def scaling_of(module: str, rank: int, config: Mapping[str, Any]) -> float:
    """α/r, or α/√r for rsLoRA (arXiv 2312.03732), with the α PEFT gives `module`."""
    alpha = float(_by_pattern(module, config.get("alpha_pattern"), config.get("lora_alpha", 8)))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_pattern(module: str, patterns: Mapping[str, Any] | None, default: Any) -> Any:
    """The value of the first pattern that matches the whole name or its end after a dot (PEFT's `get_pattern_key`)."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return (patterns or {}).get(module, default)
