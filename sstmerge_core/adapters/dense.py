"""Write base + ΔW as a transformers model folder of its own, one tensor at a time."""

from __future__ import annotations

import fnmatch
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstmerge_core.adapters.adapted import EXPERT
from sstmerge_core.adapters.check import BaseModel, Place, read_base
from sstmerge_core.adapters.json_file import read_object
from sstmerge_core.adapters.names import canonical
from sstmerge_core.adapters.places import INDEX, weight_files
from sstmerge_core.adapters.safetensors_header import TensorHeader, read_header
from sstmerge_core.adapters.safetensors_writer import CODES, NAMES, Layout, is_finite, layout, size, write_tensors
from sstmerge_core.adapters.saved import Saved
from sstmerge_core.adapters.skeleton import called, in_memory, skeleton
from sstmerge_core.adapters.write import RECORD, Describe, Weights, check_dtype, refuse_foreign, rounding_rows
from sstmerge_core.errors import AdapterError, DataError, Problem
from sstmerge_core.workspace import new_folder, write_file, write_json

if TYPE_CHECKING:
    import torch

COMPANIONS = (
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "chat_template*",
    "LICENSE*",
    "NOTICE*",
    "USE_POLICY*",
)
"""What is copied of a base model's folder beside its weights and config.json. Never code."""
SHARD_BYTES = 5_000_000_000


@dataclass(frozen=True)
class WrittenModel:
    path: Path
    bytes: int
    weights: Weights


@dataclass(frozen=True)
class _Added:
    """A ΔW, or some rows of it, that is added to a tensor."""

    module: str
    transposed: bool | None = False
    """The base keeps it as (in, out): GPT-2's Conv1D, and embeddings; None: whichever way fits (stacks of experts)"""
    expert: int | None = None
    """Which matrix of a stack it is added to"""
    rows: tuple[int, int] | None = None
    """Of ΔW, where the tensor is some rows of the module's weight"""
    turned_if_square: bool = False


@dataclass(frozen=True)
class _Stored:
    """One tensor of the new model: where the base has it, and what is added."""

    file: Path
    key: str
    header: TensorHeader
    added: tuple[_Added, ...] = ()
    """Nothing where the tensor stays as it is; of a stack of experts as many as are adapted"""


def write_model(
    base: Path | str,
    deltas: Mapping[str, Callable[[], torch.Tensor]],
    folder: Path | str,
    *,
    dtype: str = "auto",
    saved: Mapping[str, Saved] | None = None,
    record: dict[str, Any] | None = None,
    describe: Describe = lambda weights: {},
    shard_bytes: int = SHARD_BYTES,
) -> WrittenModel:
    """Write the model in folder `base` with ΔW added, summed in float32, to `folder`, whole or not at all.

    `deltas` gives ΔW (out, in) by the name that adapters agree on; each is made once. For an embedding, out is the
    width and in the vocabulary. `dtype` is that of the floating-point weights; ``auto`` keeps each tensor's own. What
    rounding to it costs, ‖W + ΔW − W_written‖_F / ‖ΔW‖_F, is measured per module and pooled.
    A base with tied embeddings stays tied unless a ΔW moves one of the two; then they are written apart. `saved` are
    tensors of fully trained modules, which are written in the place of the base's, in its format.

    Memory: one ΔW in float32, the tensor it is added to (a stack of experts is one), and the result. Every tensor is
    read back from its file and compared bit for bit. Raises DataError where that fails, and for a base that is
    quantized, has no safetensors or does not fit on the disk; AdapterError for a ΔW of another base and for values that
    are not finite.
    """
    base, folder = Path(base), Path(folder)
    refuse_foreign(folder)
    check_dtype(dtype)
    config = _config(base)
    stored, untied = _plan(base, config, deltas, saved or {})
    codes = {name: _code(one.header.dtype, dtype) for name, one in stored.items()}
    shards = _shards({name: (codes[name], one.header.shape) for name, one in stored.items()}, shard_bytes)
    total = sum(plan.bytes for plan in shards.values())
    _check_space(folder, total)
    rounding: list[tuple[str, float, float]] = []
    files = {}
    with new_folder(folder) as temporary:
        for name, plan in shards.items():
            tensors = _tensors(plan, stored, deltas, rounding)
            files[name] = write_tensors(temporary / name, plan, tensors)
        if len(shards) > 1:
            write_json(temporary / INDEX, _index(shards))
        _copy_companions(base, temporary)
        weights = Weights(files, dtype, rounding_rows(_by_module(rounding)))
        write_json(temporary / "config.json", _changed(config, dtype, untied))
        write_json(temporary / RECORD, record or {})
        for name, text in describe(weights).items():
            write_file(temporary / name, text)
    return WrittenModel(folder, total, weights)


def _config(base: Path) -> dict[str, Any]:
    try:
        config = read_object(base / "config.json")
    except (OSError, ValueError):
        fix = "Give the folder of a transformers model."
        raise DataError(Problem(str(base / "config.json"), "is missing or not valid JSON", fix)) from None
    if config.get("quantization_config"):
        fix = "ΔW can only be added to float weights: give the model's float checkpoint as the base."
        raise DataError(Problem(str(base), "the base model is quantized", fix))
    return config


def _plan(
    base: Path,
    config: dict[str, Any],
    deltas: Mapping[str, Callable[[], torch.Tensor]],
    saved: Mapping[str, Saved],
) -> tuple[dict[str, _Stored], bool]:
    """The tensors of the new model by name, and whether embeddings that were tied are written apart."""
    tensors = {key: _Stored(file, key, header) for file in weight_files(base) for key, header in _header(file).items()}
    strange = sorted({one.header.dtype for one in tensors.values()} - set(NAMES))
    if strange:
        fix = "Give the model's float checkpoint as the base."
        raise DataError(Problem(str(base), f"holds weights in the format {', '.join(strange)}", fix))
    model = skeleton(base)
    modules = called(model)
    untied = _untie(
        model, modules, tensors, {**deltas, **{name.removesuffix(".weight"): one for name, one in saved.items()}}
    )
    _put_in(tensors, saved, base)
    folder, memory = read_base(base), in_memory(model)
    unknown = []
    for name in deltas:
        found = _places(folder, modules, memory, name, tensors)
        for key, added in found:
            one = tensors[key]
            tensors[key] = _Stored(one.file, one.key, one.header, (*one.added, added))
        if not found:
            unknown.append(name)
    if unknown:
        fault = f"has no floating-point weight of {len(unknown)} modules of the adapters, the first is {unknown[0]}"
        raise AdapterError(Problem(f"base model {base}", fault, "Use adapters of this base model."))
    return tensors, untied


def _put_in(tensors: dict[str, _Stored], saved: Mapping[str, Saved], base: Path) -> None:
    """Have fully trained tensors in the place of the base's, which keep their format."""
    keys = {canonical(key): key for key in tensors}
    for name, one in saved.items():
        bare = canonical(name).partition(".")[2]  # as a file of the model's body alone has it
        key = keys.get(canonical(name)) or keys.get(bare)
        if key is None or tensors[key].header.shape != one.header.shape:
            fault = f"has no {name} of the shape {one.header.shape}, which the adapter has trained whole"
            raise AdapterError(Problem(f"base model {base}", fault, "Use adapters of this base model."))
        tensors[key] = _Stored(one.file, one.key, tensors[key].header)


def _places(
    base: BaseModel, modules: Mapping[str, Any], memory: Mapping[str, str], name: str, tensors: Mapping[str, _Stored]
) -> list[tuple[str, _Added]]:
    """The tensors that hold the weight of module `name`, and which part of its ΔW each takes; none for no module."""
    is_expert = EXPERT.fullmatch(name)
    if (is_expert["stack"] if is_expert else name) not in modules:
        return []
    own = f"{memory.get(name, name)}.weight"
    if not is_expert and own in tensors:  # of embeddings that are written apart, the file has only one
        found: tuple[Place, ...] = (Place(tensors[own].file, own, tensors[own].header),)
    else:
        found = base.places(name)
    if not all(place.key in tensors and "F" in place.tensor.dtype for place in found):
        return []
    if not is_expert:
        return [(place.key, _Added(name, _keeps_in_out(modules[name]))) for place in found]
    turned, start, parts = base.turned(name, found[0].shape if found else ()), 0, []
    for place in found:
        stop = start + place.shape[0]
        rows = (start, stop) if len(found) > 1 else None
        parts.append((place.key, _Added(name, None, place.expert, rows, turned)))
        start = stop
    return parts


def _keeps_in_out(module: Any) -> bool:
    import torch

    return isinstance(module, torch.nn.Embedding) or type(module).__name__ == "Conv1D"


def _untie(skeleton: Any, modules: dict[str, Any], tensors: dict[str, _Stored], deltas: Mapping[str, Any]) -> bool:
    """Give tied embeddings a tensor each where a ΔW moves only one of them; says whether it did."""
    names = {id(module): name for name, module in modules.items()}
    head = names.get(id(skeleton.get_output_embeddings()))
    body = names.get(id(skeleton.get_input_embeddings()))
    tied = bool(getattr(skeleton.config.get_text_config(), "tie_word_embeddings", False))
    if not (tied and head and body and {head, body} & set(deltas)):
        return False
    names_of = {canonical(key.removesuffix(".weight")): key for key in tensors}
    memory = in_memory(skeleton)
    keys = [names_of.get(name) for name in (body, body.removeprefix(f"{skeleton.base_model_prefix}."), head)]
    shared = next((tensors[key] for key in keys if key), None)
    if shared:
        # whichever of the two the checkpoint has, the other one starts from it
        if not keys[2]:
            tensors[f"{memory[head]}.weight"] = shared
        if not keys[0] and not keys[1]:
            tensors[f"{memory[body]}.weight"] = shared
    return True


def _header(file: Path) -> dict[str, TensorHeader]:
    try:
        return read_header(file)
    except (OSError, ValueError) as error:
        raise DataError(Problem(str(file), str(error), "Copy or download the file again.")) from None


def _code(stored: str, dtype: str) -> str:
    """The format of a tensor in the new model: whole numbers and flags stay what they are."""
    return stored if dtype == "auto" or "F" not in stored else CODES[dtype]


def _shards(shapes: Mapping[str, tuple[str, tuple[int, ...]]], most: int) -> dict[str, Layout]:
    """Files of at most `most` bytes (or one tensor) in the base's order, under transformers' names."""
    groups: list[dict[str, tuple[str, tuple[int, ...]]]] = [{}]
    held = 0
    for name, shape in shapes.items():
        if groups[-1] and held + size(*shape) > most:
            groups.append({})
            held = 0
        groups[-1][name] = shape
        held += size(*shape)
    if len(groups) == 1:
        return {"model.safetensors": layout(groups[0])}
    return {
        f"model-{number:05d}-of-{len(groups):05d}.safetensors": layout(group)
        for number, group in enumerate(groups, start=1)
    }


def _index(shards: Mapping[str, Layout]) -> dict[str, Any]:
    headers = [header for plan in shards.values() for header in plan.tensors.values()]
    places = {name: file for file, plan in shards.items() for name in plan.tensors}
    return {"metadata": {"total_size": sum(header.end - header.start for header in headers)}, "weight_map": places}


def _tensors(
    plan: Layout,
    stored: Mapping[str, _Stored],
    deltas: Mapping[str, Callable[[], torch.Tensor]],
    rounding: list[tuple[str, float, float]],
) -> Iterator[torch.Tensor]:
    import torch
    from safetensors import safe_open

    opened: dict[Path, Any] = {}
    made: dict[str, torch.Tensor] = {}  # the last ΔW: its rows may go to tensors that follow each other
    for name, planned in plan.tensors.items():
        one = stored[name]
        if one.file not in opened:
            opened[one.file] = safe_open(one.file, framework="pt")
        weight = opened[one.file].get_tensor(one.key)
        target = getattr(torch, NAMES[planned.dtype])
        if not one.added:
            yield weight.to(target)
            continue
        exact = weight.to(torch.float32, copy=True)
        norms = []
        for added in one.added:
            if added.module not in made:
                made = {added.module: deltas[added.module]()}
            norms.append(_add(exact, added, made[added.module]))
        result = exact.to(target).contiguous()
        if not is_finite(result):
            narrow = target == torch.float16
            fix = "Write it as float32 or bfloat16." if narrow else "Check the adapters and parameters."
            fault = f"W + ΔW has values that are not finite in {target}"
            raise AdapterError(Problem(one.added[0].module, fault, fix))
        if target != torch.float32:
            exact.sub_(result)
            for added, norm in zip(one.added, norms, strict=True):
                rounding.append((added.module, float(_part(exact, added).norm()), norm))
        yield result


def _by_module(rounding: list[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    """Of modules that are written in several tensors, one row."""
    found: dict[str, tuple[float, float]] = {}
    for name, error, norm in rounding:
        before = found.get(name, (0.0, 0.0))
        found[name] = math.hypot(before[0], error), math.hypot(before[1], norm)
    return [(name, *own) for name, own in found.items()]


def _part(weight: torch.Tensor, added: _Added) -> torch.Tensor:
    return weight if added.expert is None else weight[added.expert]


def _add(exact: torch.Tensor, added: _Added, delta: torch.Tensor) -> float:
    """Add ΔW, or the rows of it that belong there, to a tensor in float32, in place; ‖ΔW‖ of what was added."""
    own = delta[slice(*added.rows)] if added.rows else delta
    part = _part(exact, added)
    turned = added.transposed
    if turned is None:
        turned = added.turned_if_square if part.shape[0] == part.shape[1] else own.shape == part.shape[::-1]
    own = (own.T if turned else own).to(part)
    if own.shape != part.shape:
        fault = f"ΔW has shape {tuple(own.shape)}, the base weight {tuple(part.shape)}"
        raise AdapterError(Problem(added.module, fault, "Use an adapter of this base model."))
    part += own
    return float(own.norm())


def _check_space(folder: Path, needed: int) -> None:
    place = next(parent for parent in folder.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(place).free
    if free < needed:
        fault = f"the model takes {needed / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB free"
        raise DataError(Problem(str(folder), fault, "Free space, or give an --out folder on another disk."))


def _copy_companions(base: Path, folder: Path) -> None:
    for path in sorted(base.iterdir()):
        if path.is_file() and any(fnmatch.fnmatch(path.name, pattern) for pattern in COMPANIONS):
            shutil.copyfile(path, folder / path.name)
    if (base / "additional_chat_templates").is_dir():
        shutil.copytree(base / "additional_chat_templates", folder / "additional_chat_templates")


def _changed(config: dict[str, Any], dtype: str, untied: bool) -> dict[str, Any]:
    """The base's configuration with what is different now, and without where the base lay."""
    changed = {key: value for key, value in config.items() if key not in ("_name_or_path", "_model_name_or_path")}
    if untied:
        changed["tie_word_embeddings"] = False
        if isinstance(changed.get("text_config"), dict):
            changed["text_config"] = changed["text_config"] | {"tie_word_embeddings": False}
    if dtype != "auto":
        changed.pop("torch_dtype", None)
        changed["dtype"] = dtype
    return changed
