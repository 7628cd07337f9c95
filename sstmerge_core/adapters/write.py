"""Write a merged adapter as a PEFT folder, and prove what was written by reading it back."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstmerge_core.adapters.fingerprint import adapter_fingerprint
from sstmerge_core.adapters.read import CONFIG, WEIGHTS, Adapter, read
from sstmerge_core.adapters.safetensors_writer import CODES, Layout, is_finite, layout, write_tensors
from sstmerge_core.adapters.saved import Saved
from sstmerge_core.adapters.spell import PLAIN, Lazy, Pair, Spelling, shape, spell
from sstmerge_core.errors import AdapterError, DataError, Problem, RecipeError
from sstmerge_core.workspace import new_folder, write_file, write_json

if TYPE_CHECKING:
    import torch

RECORD = "sstmerge.json"
"""What is known of an adapter beyond PEFT's own files: recipe, hashes, versions, scores."""
_KEYS = {"linear": ("lora_A.weight", "lora_B.weight"), "embedding": ("lora_embedding_A", "lora_embedding_B")}
"""PEFT keeps an embedding's factors as bare parameters, a linear module's as modules with a weight"""
OUTPUT_DTYPES = ("float32", "bfloat16", "float16", "auto")

Rounding = tuple[str, float, float]
"""A module, ‖ΔW − ΔW_written‖ and ‖ΔW‖"""
Rows = list[dict[str, Any]]
"""Rows (module, stat, value) as stored in ``module_stats``"""


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
    spelling: Spelling = PLAIN,
    saved: Mapping[str, Saved] | None = None,
    modules_to_save: Sequence[str] = (),
    record: dict[str, Any] | None = None,
    describe: Describe = lambda weights: {},
) -> Written:
    """Write A (r, in) and B (out, r) of every module to `folder` as PEFT LoRA, whole or not at all.

    The scaling is 1 and r the same for every module. `dtype` is one of `OUTPUT_DTYPES`; ``auto`` is that of the factors
    where they agree, else float32. A 16-bit format rounds: ‖ΔW − ΔW_written‖_F / ‖ΔW‖_F is measured per module and
    pooled (``rounding_error``). Modules in `embeddings` are token embeddings, with in = vocabulary and out = width;
    `fan_in_fan_out` says that the base keeps its linear weights as (in, out), as GPT-2 does. `spelling` is that of the
    base: what PEFT calls its modules, and which are stacks of experts. `record` becomes sstmerge.json, and `describe`
    gives the texts beside it, from what is known once the weights are written. `saved` are tensors of fully trained
    modules by their name in the base, kept bit for bit and in their format; `modules_to_save` tells PEFT of them.

    Every tensor is read back from the file and compared bit for bit, and the folder is read as an adapter. Raises
    DataError where that fails; AdapterError where a value is not finite in `dtype`, or where `folder` exists and is not
    of ours; RecipeError for another dtype.
    """
    folder = Path(folder)
    refuse_foreign(folder)
    rank = max((shape(pair)[0] for pair in factors.values()), default=0)
    spelt = spell(factors, spelling, rank)
    with new_folder(folder) as temporary:
        names = {spelling.names.get(name, name) for name in embeddings}
        weights = write_weights(temporary / WEIGHTS, spelt.factors, dtype, names, saved=saved)
        parameters = {"target_parameters": spelt.parameters} if spelt.parameters else {}
        whole = {"modules_to_save": list(modules_to_save)} if modules_to_save else {}
        write_json(temporary / CONFIG, _config(spelt.modules, rank, base_name, fan_in_fan_out) | parameters | whole)
        write_json(temporary / RECORD, record or {})
        for name, text in describe(weights).items():
            write_file(temporary / name, text)
        adapter = _read_back(temporary, spelt.names, saved or {})
        sha256 = adapter_fingerprint(temporary, known=weights.files)
    return Written(folder, sha256, adapter.bytes, weights)


def write_weights(
    path: Path,
    factors: Mapping[str, Pair | Lazy],
    dtype: str = "float32",
    embeddings: Collection[str] = (),
    *,
    checked: bool = True,
    saved: Mapping[str, Saved] | None = None,
) -> Weights:
    """Only the weights file of `write_adapter`.

    Without `checked` no value is looked at, no rounding measured and nothing read back: that is for benchmarks.
    """
    dtype = _dtype(dtype, factors)
    plan = _plan(factors, dtype, embeddings, saved or {})
    rounding: list[Rounding] = []
    made = _tensors(factors, dtype, checked, rounding)
    whole = {f"base_model.model.{name}": one for name, one in (saved or {}).items()}
    # in the file's order, which is by the width of the format
    tensors = (whole[key].load() if key in whole else next(made) for key in plan.tensors)
    sha256 = write_tensors(path, plan, tensors, checked=checked, ahead=True)
    return Weights({path.name: sha256}, dtype, rounding_rows(rounding))


def refuse_foreign(folder: Path) -> None:
    """Raise AdapterError where `folder` holds anything that this tool did not write."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / RECORD).is_file()):
        fault = "exists and was not written by this tool, so it is not replaced"
        raise AdapterError(Problem(str(folder), fault, "Give another --out folder, or remove this one."))


def check_dtype(dtype: str) -> None:
    """Raise RecipeError where `dtype` is none that can be written."""
    if dtype not in OUTPUT_DTYPES:
        raise RecipeError(Problem(f"--dtype {dtype}", "cannot be written", f"Use one of {', '.join(OUTPUT_DTYPES)}."))


def rounding_rows(measured: list[Rounding]) -> Rows:
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


def _plan(
    factors: Mapping[str, Pair | Lazy], dtype: str, embeddings: Collection[str], saved: Mapping[str, Saved]
) -> Layout:
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, pair in factors.items():
        rank, width, height = shape(pair)
        kind = "embedding" if name in embeddings else "linear"
        left, right = _KEYS[kind]
        shapes[f"base_model.model.{name}.{left}"] = (CODES[dtype], (rank, width))
        shapes[f"base_model.model.{name}.{right}"] = (CODES[dtype], (height, rank))
    for name, one in saved.items():
        shapes[f"base_model.model.{name}"] = (one.header.dtype, one.header.shape)
    return layout(shapes)


def _tensors(
    factors: Mapping[str, Pair | Lazy], dtype: str, checked: bool, rounding: list[Rounding]
) -> Iterator[torch.Tensor]:
    """A and B of one module after the other in the format to write; what rounding cost is noted in `rounding`.

    The next module is made beside, on one thread: the matrices are too narrow for a product to be shared out (measured:
    five times slower on two threads than on one), and with a third thread the writer waits (a quarter slower).
    """
    make = partial(_stored, dtype=dtype, checked=checked)
    with _one_thread_each(), ThreadPoolExecutor(1) as beside:
        names = iter(factors)
        coming = deque(beside.submit(make, name, factors[name]) for name in islice(names, 2))
        while coming:
            stored, measured = coming.popleft().result()
            coming.extend(beside.submit(make, name, factors[name]) for name in islice(names, 1))
            if measured:
                rounding.append(measured)
            yield from stored


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _stored(name: str, pair: Pair | Lazy, *, dtype: str, checked: bool) -> tuple[list[torch.Tensor], Rounding | None]:
    """A and B of one module in the format to write, and what rounding them cost."""
    import torch

    target = getattr(torch, dtype)
    exact = pair.make() if isinstance(pair, Lazy) else pair
    stored = [tensor.to(target) for tensor in exact]
    if not checked:
        return stored, None
    measured = None if target == torch.float32 else (name, *_rounding(exact, stored))
    if measured is None or not all(map(math.isfinite, measured[1:])):  # a NaN or an infinity would be in the norms
        for tensor in stored:
            check_finite(name, tensor, dtype)
    return stored, measured


def check_finite(name: str, tensor: torch.Tensor, dtype: str) -> None:
    """Raise AdapterError where a tensor of the module `name` has values that are not finite in `dtype`."""
    if not is_finite(tensor):
        fix = "Write it as float32 or bfloat16." if dtype == "float16" else "Check the adapters and the parameters."
        raise AdapterError(Problem(name, f"has values that are not finite in {dtype}", fix))


def _rounding(exact: Pair, stored: Sequence[torch.Tensor]) -> tuple[float, float]:
    """‖BA − B̂Â‖_F and ‖BA‖_F, where hats are what is stored.

    The difference is (B − B̂)A + B̂(A − Â), so nothing cancels and small Gram matrices in float32 suffice.
    """
    import torch

    a, b = (tensor.float() for tensor in exact)
    b_lost = b - stored[1].float()
    gram = _gram(a.T)
    norm = _norm(_gram(b), gram)
    if stored[0] is exact[0]:  # A was in this format already
        return _norm(_gram(b_lost), gram), norm
    left = torch.cat([b_lost, stored[1].float()], dim=1)
    right = torch.cat([a, a - stored[0].float()])
    return _norm(_gram(left), _gram(right.T)), norm


def _gram(matrix: torch.Tensor) -> torch.Tensor:
    """MᵀM in float32."""
    return matrix.T @ matrix


def _norm(left: torch.Tensor, right: torch.Tensor) -> float:
    """‖BA‖_F = √⟨BᵀB, AAᵀ⟩ from the two Gram matrices, without forming BA; NaN or infinite where a factor is."""
    squared = float((left.double() * right.double()).sum())
    return 0.0 if squared <= 0 else math.sqrt(squared)


def _config(modules: Collection[str], rank: int, base_name: str, fan_in_fan_out: bool) -> dict[str, Any]:
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
        "target_modules": sorted(modules),
    }


def _read_back(folder: Path, names: Collection[str], saved: Collection[str]) -> Adapter:
    """What was written, read as an adapter: of these modules, with scaling 1."""
    adapter = read(folder, check_values=False, saved=bool(saved))
    whole = set(adapter.modules) == set(names) and set(adapter.saved) == set(saved)
    if not (whole and all(module.scaling == 1.0 for module in adapter.modules.values())):
        raise DataError(Problem(str(folder), "was not written faithfully", "Check the disk, and merge again."))
    return adapter
