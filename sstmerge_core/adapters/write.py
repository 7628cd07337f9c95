"""Write a merged adapter as a PEFT folder, and prove what was written by reading it back."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstmerge_core.adapters.read import CONFIG, WEIGHTS, read
from sstmerge_core.adapters.safetensors_writer import CODES, Layout, is_faithful, layout, write_tensors
from sstmerge_core.errors import AdapterError, Problem, RecipeError
from sstmerge_core.workspace import new_folder, write_file, write_json

if TYPE_CHECKING:
    import torch

RECORD = "sstmerge.json"
"""What is known of an adapter beyond PEFT's own files: recipe, hashes, versions, scores."""
_KEYS = {"linear": ("lora_A.weight", "lora_B.weight"), "embedding": ("lora_embedding_A", "lora_embedding_B")}
"""PEFT keeps an embedding's factors as bare parameters, a linear module's as modules with a weight"""
OUTPUT_DTYPES = ("float32", "bfloat16", "float16", "auto")

Pair = tuple["torch.Tensor", "torch.Tensor"]
"""LoRA factors A (r, in) and B (out, r)"""
Rows = list[dict[str, Any]]
"""Rows (module, stat, value) as stored in ``module_stats``"""


@dataclass(frozen=True)
class Lazy:
    """Factors of one module that are made when they are written, so that one module is in memory at a time."""

    rank: int
    in_features: int
    out_features: int
    make: Callable[[], Pair]
    """A (rank, in) and B (out, rank), float32"""


@dataclass(frozen=True)
class Weights:
    """The weights of an adapter or a model as they were written, before the texts beside them are."""

    files: dict[str, str]
    """SHA-256 by file name"""
    dtype: str
    statistics: Rows = field(default_factory=list)
    """``rounding_error`` per module and pooled, where a 16-bit format rounded"""


Describe = Callable[[Weights], Mapping[str, str]]
"""Text files to lay beside the weights, by name"""


@dataclass(frozen=True)
class Written:
    path: Path
    sha256: str
    """Fingerprint of the adapter: weights and the settings that enter ΔW"""
    bytes: int
    weights: Weights


def write_adapter(
    factors: Mapping[str, Pair | Lazy],
    folder: Path | str,
    *,
    base_name: str,
    dtype: str = "float32",
    embeddings: Collection[str] = (),
    fan_in_fan_out: bool = False,
    record: dict[str, Any] | None = None,
    describe: Describe = lambda weights: {},
) -> Written:
    """Write A (r, in) and B (out, r) of every module to `folder` as PEFT LoRA, whole or not at all.

    The scaling is 1 and r the same for every module. `dtype` is one of `OUTPUT_DTYPES`; ``auto`` is that of the factors
    where they agree, else float32. A 16-bit format rounds: ‖ΔW − ΔW_written‖_F / ‖ΔW‖_F is measured per module and
    pooled (``rounding_error``). Modules in `embeddings` are token embeddings, with in = vocabulary and out = width;
    `fan_in_fan_out` says that the base keeps its linear weights as (in, out), as GPT-2 does. `record` becomes
    sstmerge.json, and `describe` gives the texts beside it, from what is known once the weights are written.

    After writing, the folder is read again: every tensor must be at its place and the file's SHA-256 that of the bytes
    computed. Raises AdapterError where that fails, where a value is not finite in `dtype`, or where `folder` exists and
    is not of ours; RecipeError for another dtype.
    """
    folder = Path(folder)
    refuse_foreign(folder)
    rank = max((_shape(pair)[0] for pair in factors.values()), default=0)
    with new_folder(folder) as temporary:
        weights, plan = write_weights(temporary / WEIGHTS, factors, dtype, embeddings)
        write_json(temporary / CONFIG, _config(factors, rank, base_name, fan_in_fan_out))
        write_json(temporary / RECORD, record or {})
        for name, text in describe(weights).items():
            write_file(temporary / name, text)
        _verify(temporary, plan, weights.files[WEIGHTS], factors)
    adapter = read(folder, check_values=False)
    return Written(folder, adapter.sha256, adapter.bytes, weights)


def write_weights(
    path: Path,
    factors: Mapping[str, Pair | Lazy],
    dtype: str = "float32",
    embeddings: Collection[str] = (),
    *,
    checked: bool = True,
) -> tuple[Weights, Layout]:
    """The weights file of `write_adapter`, and what must be found in it.

    Without `checked` no value is looked at, no rounding measured and nothing hashed: that is for benchmarks.
    """
    dtype = _dtype(dtype, factors)
    plan = _plan(factors, dtype, embeddings)
    rounding: list[tuple[str, float, float]] = []
    sha256 = write_tensors(path, plan, _tensors(factors, dtype, checked, rounding), hashed=checked)
    return Weights({path.name: sha256}, dtype, rounding_rows(rounding)), plan


def refuse_foreign(folder: Path) -> None:
    """Raise AdapterError where `folder` holds anything that this tool did not write."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / RECORD).is_file()):
        fault = "exists and was not written by this tool, so it is not replaced"
        raise AdapterError(Problem(str(folder), fault, "Give another --out folder, or remove this one."))


def check_dtype(dtype: str) -> None:
    """Raise RecipeError where `dtype` is none that can be written."""
    if dtype not in OUTPUT_DTYPES:
        raise RecipeError(Problem(f"--dtype {dtype}", "cannot be written", f"Use one of {', '.join(OUTPUT_DTYPES)}."))


def rounding_rows(measured: list[tuple[str, float, float]]) -> Rows:
    """Relative errors per module and pooled (empty name) from (module, ‖error‖, ‖ΔW‖); none of nothing measured."""
    if not measured:
        return []
    pooled = (
        "",
        math.sqrt(sum(error**2 for _, error, _ in measured)),
        math.sqrt(sum(norm**2 for _, _, norm in measured)),
    )
    return [
        {"module": module, "stat": "rounding_error", "value": error / norm if norm else 0.0}
        for module, error, norm in [*measured, pooled]
    ]


def _dtype(dtype: str, factors: Mapping[str, Pair | Lazy]) -> str:
    check_dtype(dtype)
    if dtype != "auto":
        return dtype
    found = {
        str(tensor.dtype).removeprefix("torch.")
        for pair in factors.values()
        if not isinstance(pair, Lazy)
        for tensor in pair
    }
    only = found.pop() if len(found) == 1 else "float32"
    return only if only in OUTPUT_DTYPES else "float32"


def _shape(pair: Pair | Lazy) -> tuple[int, int, int]:
    """(r, in, out)"""
    if isinstance(pair, Lazy):
        return pair.rank, pair.in_features, pair.out_features
    return pair[0].shape[0], pair[0].shape[1], pair[1].shape[0]


def _plan(factors: Mapping[str, Pair | Lazy], dtype: str, embeddings: Collection[str]) -> Layout:
    shapes = {}
    for name, pair in factors.items():
        rank, width, height = _shape(pair)
        kind = "embedding" if name in embeddings else "linear"
        left, right = _KEYS[kind]
        shapes[f"base_model.model.{name}.{left}"] = (CODES[dtype], (rank, width))
        shapes[f"base_model.model.{name}.{right}"] = (CODES[dtype], (height, rank))
    return layout(shapes)


def _tensors(
    factors: Mapping[str, Pair | Lazy], dtype: str, checked: bool, rounding: list[tuple[str, float, float]]
) -> Iterator[torch.Tensor]:
    """A and B of one module after the other in the format to write; what rounding cost is noted in `rounding`."""
    import torch

    target = getattr(torch, dtype)
    for name, pair in factors.items():
        exact = pair.make() if isinstance(pair, Lazy) else pair
        stored = tuple(tensor.to(target) for tensor in exact)
        if checked:
            for tensor in stored:
                _check_finite(name, tensor, dtype)
            if target != torch.float32:
                rounding.append((name, *_rounding(exact, stored)))
        yield from stored


def _check_finite(name: str, tensor: torch.Tensor, dtype: str) -> None:
    import torch

    if tensor.numel() and not torch.isfinite(torch.stack(tensor.aminmax())).all():
        fix = "Write it as float32 or bfloat16." if dtype == "float16" else "Check the adapters and the parameters."
        raise AdapterError(Problem(name, f"has values that are not finite in {dtype}", fix))


def _rounding(exact: Pair, stored: tuple[torch.Tensor, ...]) -> tuple[float, float]:
    """‖BA − B̂Â‖_F and ‖BA‖_F, where hats are what is stored.

    The difference is (B − B̂)A + B̂(A − Â), so nothing cancels and the r×r Gram matrices in float32 suffice.
    """
    import torch

    a, b = (tensor.float() for tensor in exact)
    a_stored, b_stored = (tensor.float() for tensor in stored)
    b_lost, a_lost = b - b_stored, a - a_stored
    left, right = [b_lost], [a]
    if bool(a_lost.any()):
        left.append(b_stored)
        right.append(a_lost)
    elif not bool(b_lost.any()):
        return 0.0, _norm(b, a)
    return _norm(torch.cat(left, dim=1), torch.cat(right)), _norm(b, a)


def _norm(b: torch.Tensor, a: torch.Tensor) -> float:
    """‖BA‖_F = √⟨BᵀB, AAᵀ⟩, without forming BA."""
    squared = float(((b.T @ b).double() * (a @ a.T).double()).sum())
    return math.sqrt(max(0.0, squared))


def _config(factors: Mapping[str, Pair | Lazy], rank: int, base_name: str, fan_in_fan_out: bool) -> dict[str, Any]:
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
        "fan_in_fan_out": fan_in_fan_out,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "target_modules": sorted(factors),
    }


def _verify(folder: Path, plan: Layout, sha256: str, factors: Mapping[str, Any]) -> None:
    """The folder reads as an adapter of these modules with scaling 1, and its bits are the computed ones."""
    modules = read(folder, check_values=False).modules
    whole = set(modules) == set(factors) and all(module.scaling == 1.0 for module in modules.values())
    if not (whole and is_faithful(folder / WEIGHTS, plan, sha256)):
        raise AdapterError(Problem(str(folder), "was not written faithfully", "Check the disk, and merge again."))
