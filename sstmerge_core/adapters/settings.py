"""What each setting of PEFT's LoraConfig means for ΔW = scaling · B A: it enters it, leaves it alone, or forbids it.

Every field of PEFT 0.21's LoraConfig is in exactly one of `ENTERS`, `WITHOUT_EFFECT` and `REFUSED`; a test compares
them with the PEFT that is installed, so that a new kind of adapter is never taken for a plain one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sstmerge_core.adapters.json_file import shown
from sstmerge_core.adapters.names import conversion
from sstmerge_core.adapters.patterns import Patterns, UnusablePattern
from sstmerge_core.errors import Problem

ENTERS = frozenset({"peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "target_parameters"})

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

SAVED = "modules_to_save"
KEEP = (
    "Or `--modules-to-save utility` keeps those of the utility side as they are, beside the merge, and `dense` merges "
    "them too."
)
_CONVERT = "convert"
"""Stands for the command that makes a LoRA of it"""
_RETRAIN = "Train without it, or merge the adapter into a dense model."

REFUSED: Mapping[str, tuple[str, str]] = {
    "use_dora": (
        "is a DoRA adapter; its ΔW is not s·BA",
        _CONVERT,
    ),
    "bias": ("trains biases (bias={})", "Train with bias='none'."),
    "lora_bias": ("adds a bias to lora_B (lora_bias)", "Train with lora_bias=False."),
    "modules_to_save": ("carries fully trained modules ({})", _CONVERT),
    "trainable_token_indices": (
        "trains single token embeddings (trainable_token_indices)",
        _CONVERT,
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
RECOMPUTED = ("pissa", "olora")
"""Initialisations that PEFT computes again from the base when it loads the adapter, so that ΔW is known"""

_PROMPTS = "trains prompt vectors, not weights"
_MIXES = "it mixes adapters by token or task"
_OTHER_TYPES = {
    "ADALORA": "its ΔW has singular values of its own and pruned ranks",
    "IA3": "it rescales activations",
    "VERA": "its factors are random and shared, only scales are trained",
    "LOHA": "its ΔW is a Hadamard product",
    "LOKR": "its ΔW is a Kronecker product",
    **dict.fromkeys(("XLORA", "POLY"), _MIXES),
    "TRAINABLE_TOKENS": "it trains single token embeddings",
    "MISS": "its ΔW is made of one repeated block",
    "FOURIERFT": "its ΔW is an inverse Fourier transform",
    "VBLORA": "its factors are put together from a bank of vectors",
    "RANDLORA": "its factors are random, only scales are trained",
    "HIRA": "its ΔW is a product with the base weight",
    "DELORA": "its ΔW is normalised",
    "GRALORA": "its ΔW is made of blocks",
    **dict.fromkeys(("OFT", "BOFT", "HRA"), "it rotates the weights"),
    **dict.fromkeys(
        ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT", "CPT"), _PROMPTS
    ),
}

_INITIAL = frozenset({"true", "false", "none", "gaussian", "eva", "orthogonal", "mica"})
"""Initialisations that leave the base weights as they are (PEFT 0.21, tuners/lora/layer.py)"""


def config_problems(
    where: str, config: Mapping[str, Any], folder: Path | str = "DIR", *, saved: bool = False
) -> list[Problem]:
    """Everything in an adapter_config.json that keeps ΔW from being s·BA, each by name, with what to do about it.

    With `saved`, modules_to_save are no obstacle: they are told apart from ΔW.
    """
    if "peft_type" not in config and ("fine_tune_type" in config or "lora_parameters" in config):
        return [Problem(where, "is the settings of an adapter in MLX's format", conversion(str(folder)))]
    kind = shown(config.get("peft_type"), 40)
    if "peft_type" not in config:
        return [Problem(where, "peft_type is None, not LORA", 'If it is a LoRA, add "peft_type": "LORA" to the file.')]
    if kind != "LORA":
        reason = _OTHER_TYPES.get(kind.upper())
        fault = f"peft_type is {kind}, not LORA" + (f"; {reason}" if reason else "")
        fix = "Only LoRA adapters have a ΔW = s·BA to merge."
        if kind.upper().removeprefix("PEFTTYPE.") == "LORA":
            fix = 'Write "peft_type": "LORA" into the file, as PEFT does.'
        return [Problem(where, fault, conversion(str(folder)) if is_convertible(kind) else fix)]
    problems = []
    for name, (fault, fix) in REFUSED.items():
        if saved and name == SAVED:
            continue
        if _is_set(name, config.get(name)):
            recomputed = name == "init_lora_weights" and str(config[name]).lower() in RECOMPUTED
            way_out = conversion(str(folder)) if fix == _CONVERT or recomputed else fix
            if name == SAVED:
                way_out += f" {KEEP}"
            problems.append(Problem(where, fault.format(shown(_text(config[name]))), way_out))
    return problems + _malformed(where, config)


def is_convertible(peft_type: str) -> bool:
    """Whether adapters of this type of PEFT's change weights, so that a LoRA can stand for them."""
    return peft_type in _OTHER_TYPES and _OTHER_TYPES[peft_type] not in (_PROMPTS, _MIXES)


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
        fault = f"r is {shown(_quoted(rank), 40)}; a rank must be at least 1"
        problems.append(Problem(where, fault, "Export the adapter again."))
    if not _is_number(config.get("lora_alpha", 8)):
        fault = f"lora_alpha is {shown(_quoted(config['lora_alpha']), 40)}, not a number that can be used"
        problems.append(Problem(where, fault, "Export the adapter again."))
    if not isinstance(config.get("use_rslora") or False, bool):
        fault = f"use_rslora is {shown(_quoted(config['use_rslora']), 40)}, neither true nor false"
        problems.append(Problem(where, fault, "Export the adapter again."))
    checks: tuple[tuple[str, Callable[[Any], bool]], ...] = (("rank_pattern", _is_rank), ("alpha_pattern", _is_number))
    for name, usable in checks:
        patterns = config.get(name) or {}
        if not isinstance(patterns, dict):
            problems.append(Problem(where, f"{name} is no mapping from names to values", "Export the adapter again."))
            continue
        for pattern, value in patterns.items():
            if not usable(value):
                fault = f"{name} gives {shown(pattern, 60)} the value {shown(_quoted(value), 40)}"
                problems.append(Problem(where, fault, "Export the adapter again."))
        try:
            Patterns(patterns)
        except UnusablePattern as error:
            fix = "Write the modules' names instead, as they are in the weights file."
            problems.append(Problem(where, f"{name}: {shown(error)}", fix))
    return problems


def _quoted(value: Any) -> Any:
    """A text where a number should be is told by its quotation marks."""
    return f'"{value}"' if isinstance(value, str) else value


LARGEST_NUMBER = 1e9
"""Of a rank and of α; those of real adapters stay below a hundred thousand"""


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_NUMBER


def _is_number(value: Any) -> bool:
    # NaN is not below anything; a whole number of any length can be compared, though not turned into a float
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and -LARGEST_NUMBER <= value <= LARGEST_NUMBER


def unknown_settings(config: Mapping[str, Any]) -> list[str]:
    """Settings with a value that no PEFT known here has: they may or may not matter to ΔW."""
    known = ENTERS | WITHOUT_EFFECT | set(REFUSED)
    return sorted(name for name, value in config.items() if value and name not in known)


class Scales:
    """Ranks and scalings of modules by an adapter's settings. Raises UnusablePattern, see `patterns`."""

    def __init__(self, config: Mapping[str, Any]):
        self._r, self._alpha = config.get("r", 8), config.get("lora_alpha", 8)
        self._ranks = Patterns(config.get("rank_pattern") or {})
        self._alphas = Patterns(config.get("alpha_pattern") or {})
        self._rslora = bool(config.get("use_rslora"))

    def rank(self, module: str) -> int:
        """The rank PEFT gives `module`."""
        return int(self._ranks.value(module, self._r))

    def scaling(self, module: str, rank: int) -> float:
        """α/r, or α/√r for rsLoRA (arXiv 2312.03732), with the α PEFT gives `module`."""
        alpha = float(self._alphas.value(module, self._alpha))
        return alpha / (math.sqrt(rank) if self._rslora else rank)
