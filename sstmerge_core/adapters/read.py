"""Read a PEFT LoRA folder: what it adapts, with which rank and scaling. Values are loaded only when asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sstmerge_core import documents
from sstmerge_core.adapters.fingerprint import adapter_fingerprint, forget
from sstmerge_core.adapters.safetensors_header import TensorHeader, is_finite, is_float, read_header
from sstmerge_core.adapters.settings import config_problems, rank_of, scaling_of
from sstmerge_core.errors import AdapterError, Problem
from sstmerge_core.workspace import Workspace

if TYPE_CHECKING:
    import torch

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
Kind = Literal["linear", "embedding"]
_KEY = re.compile(
    r"^base_model\.model\.(?P<module>.+)\.lora_"
    r"(?:(?P<linear>[AB])(?:\.default)?\.weight|embedding_(?P<embedding>[AB])(?:\.default)?)$"
)
"""PEFT keeps a linear module's factors as modules with a weight, an embedding's as bare parameters."""
_COPIED = re.compile(r"^base_model\.model\.(?P<module>(?!.*lora_).+?)(?:\.base_layer)?\.weight$")
"""PEFT saves the whole base weight beside the factors of embed_tokens and lm_head."""
_SPARE = ".lora_velora_"
"""What VeLoRA's backward pass remembers"""


@dataclass(frozen=True)
class AdaptedModule:
    """One module that the adapter changes: ΔW = scaling · B A, of shape (out_features, in_features).

    For a token embedding `in_features` is the vocabulary and `out_features` the width: its weight is Wᵀ in this view.
    """

    rank: int
    in_features: int
    out_features: int
    scaling: float
    key_a: str
    key_b: str
    kind: Kind = "linear"


@dataclass(frozen=True)
class Factors:
    """float32 LoRA factors: ΔW = scaling · B A, with A of shape (r, in) and B of shape (out, r)."""

    a: torch.Tensor
    b: torch.Tensor
    scaling: float


@dataclass(frozen=True)
class Adapter:
    """A checked PEFT LoRA folder."""

    path: Path
    config: dict[str, Any]
    modules: dict[str, AdaptedModule]
    """By full module name, such as ``model.layers.0.self_attn.q_proj``."""
    dtype: str
    bytes: int
    copied: dict[str, TensorHeader] = field(default_factory=dict)
    """By module name, whole weights saved beside the factors; `check` compares them with those of the base"""

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def base_name(self) -> str:
        """The base model it says it was trained on."""
        return str(self.config.get("base_model_name_or_path") or "")

    @property
    def rank(self) -> int:
        return max(module.rank for module in self.modules.values())

    @property
    def embeddings(self) -> frozenset[str]:
        """The modules that are token (or position) embeddings."""
        return frozenset(name for name, module in self.modules.items() if module.kind == "embedding")

    @property
    def fan_in_fan_out(self) -> bool:
        """It says that its base keeps linear weights as (in, out), as GPT-2 does; ΔW is (out, in) either way."""
        return bool(self.config.get("fan_in_fan_out"))

    @cached_property
    def sha256(self) -> str:
        return adapter_fingerprint(self.path)

    def fingerprint(self, workspace: Workspace) -> str:
        """The same as `sha256`, remembered in the workspace."""
        return adapter_fingerprint(self.path, workspace)

    def forget(self, workspace: Workspace) -> None:
        """Have the weights hashed when `fingerprint` is asked next."""
        forget(self.path / WEIGHTS, workspace)

    def load(self, device: str = "cpu") -> dict[str, Factors]:
        """Factors of every module as float32 on `device`."""
        import torch
        from safetensors import safe_open

        with safe_open(self.path / WEIGHTS, framework="pt", device=device) as file:
            return {
                name: Factors(
                    file.get_tensor(module.key_a).to(torch.float32),
                    file.get_tensor(module.key_b).to(torch.float32),
                    module.scaling,
                )
                for name, module in self.modules.items()
            }


def read(path: str | Path, *, check_values: bool = True) -> Adapter:
    """The adapter in folder `path`.

    Raises AdapterError with every problem found: missing or truncated files, every kind of adapter whose ΔW is not
    s·BA (see `settings`), ranks that contradict the configuration, unpaired or misshapen factors, tensors that are no
    factors, and (with `check_values`) NaN or infinity.
    """
    folder = Path(path).expanduser().resolve()
    config = _read_config(folder)
    problems = config_problems(str(folder / CONFIG), config)
    if config.get("peft_type") != "LORA":
        raise AdapterError(problems)  # its tensors follow other rules
    try:
        tensors = _read_tensors(folder)
    except AdapterError as error:
        raise AdapterError([*problems, *error.problems]) from None
    modules, copied, found = _sort(folder / WEIGHTS, tensors, {} if problems else config)
    problems += found + (_values(folder / WEIGHTS, tensors) if check_values else [])
    if problems:
        raise AdapterError(problems)
    dtypes = {tensors[key].dtype for module in modules.values() for key in (module.key_a, module.key_b)}
    size = (folder / WEIGHTS).stat().st_size
    return Adapter(folder, config, modules, "/".join(sorted(dtypes)).lower(), size, copied)


def _read_config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise AdapterError(Problem(str(folder), "there is no such folder", "Give the folder of a PEFT LoRA adapter."))
    path = folder / CONFIG
    if not path.is_file():
        fix = f"Give the folder that holds {CONFIG} and {WEIGHTS}."
        raise AdapterError(Problem(str(path), "the file is missing, so this is no PEFT adapter", fix))
    try:
        config = documents.read_json(path)
        if not isinstance(config, dict):
            raise ValueError
    except ValueError:
        raise AdapterError(Problem(str(path), "is not valid JSON", "Export the adapter again.")) from None
    return config


def _read_tensors(folder: Path) -> dict[str, TensorHeader]:
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        fault = "the file is missing; adapter_model.bin is a pickle, which can run code" if pickled else "is missing"
        fix = "Save it with safe_serialization=True." if pickled else "Copy or download the whole folder."
        raise AdapterError(Problem(str(path), fault, fix))
    try:
        return read_header(path)
    except ValueError as error:
        raise AdapterError(Problem(str(path), str(error), "Copy or download the file again.")) from None


def _sort(
    path: Path, tensors: dict[str, TensorHeader], config: dict[str, Any]
) -> tuple[dict[str, AdaptedModule], dict[str, TensorHeader], list[Problem]]:
    """The file's tensors as adapted modules and copies of base weights, and what is wrong with the rest.

    `config` is empty where it has problems of its own: then neither ranks nor foreign tensors are held against it.
    """
    where = str(path)
    pairs: dict[tuple[str, Kind], dict[str, str]] = {}
    copied, foreign = {}, []
    for key, tensor in tensors.items():
        if match := _KEY.match(key):
            kind: Kind = "linear" if match["linear"] else "embedding"
            pairs.setdefault((match["module"], kind), {})[match["linear"] or match["embedding"]] = key
        elif (match := _COPIED.match(key)) and len(tensor.shape) == 2:
            copied[match["module"]] = tensor
        elif _SPARE not in key:
            foreign.append(key)
    modules, problems = _pair(where, pairs, tensors, config)
    if foreign and config:
        fault = f"{len(foreign)} tensors are not LoRA factors of linear modules or embeddings"
        fix = "Only lora_A and lora_B, lora_embedding_A and lora_embedding_B can be merged."
        problems.append(Problem(where, f"{fault}, the first is {foreign[0]}", fix))
    if not pairs:
        problems.append(Problem(where, "holds no LoRA factors", "Give an adapter saved by PEFT."))
    wrong = [(name, rank_of(name, config)) for name, module in modules.items() if module.rank != rank_of(name, config)]
    if wrong and config:
        name, said = wrong[0]
        fault = f"{len(wrong)} modules have another rank than r and rank_pattern say: {name} has {modules[name].rank}"
        fix = f"Correct {CONFIG} to what it was trained with; its scaling α/r follows from it."
        problems.append(Problem(where, f"{fault}, not {said}", fix))
    return modules, copied, problems


def _pair(
    where: str,
    pairs: dict[tuple[str, Kind], dict[str, str]],
    tensors: dict[str, TensorHeader],
    config: dict[str, Any],
) -> tuple[dict[str, AdaptedModule], list[Problem]]:
    """Modules of which both factors are there and fit; one problem for each way in which the others do not."""
    modules: dict[str, AdaptedModule] = {}
    faults: dict[str, list[str]] = {}
    for (name, kind), keys in pairs.items():
        if len(keys) < 2:
            faults.setdefault("lack a factor", []).append(f"{name} has only lora_{next(iter(keys))}")
            continue
        a, b = tensors[keys["A"]], tensors[keys["B"]]
        if max(len(a.shape), len(b.shape)) > 2:
            faults.setdefault("are convolutions, not linear", []).append(f"{name}: A {a.shape}, B {b.shape}")
        elif min(len(a.shape), len(b.shape)) < 2 or 0 in (*a.shape, *b.shape):
            text = f"{name}: A {a.shape}, B {b.shape}"
            faults.setdefault("have empty factors (shards not gathered when it was saved?)", []).append(text)
        elif a.shape[0] != b.shape[1]:
            faults.setdefault("have factors that do not fit", []).append(f"{name}: A {a.shape}, B {b.shape}")
        elif not (is_float(a) and is_float(b)):
            faults.setdefault("have factors that are not floating point", []).append(f"{name}: {a.dtype}, {b.dtype}")
        elif name in modules:
            faults.setdefault("are both linear and embedding", []).append(name)
        else:
            rank = a.shape[0]
            scaling = scaling_of(name, rank, config)
            modules[name] = AdaptedModule(rank, a.shape[1], b.shape[0], scaling, keys["A"], keys["B"], kind)
    return modules, [
        Problem(where, f"{len(names)} modules {fault}, the first is {names[0]}", "Train or export the adapter again.")
        for fault, names in faults.items()
    ]


def _values(path: Path, tensors: dict[str, TensorHeader]) -> list[Problem]:
    bad = [name for name, tensor in tensors.items() if not is_finite(path, tensor)]
    if not bad:
        return []
    fault = f"{len(bad)} tensors hold NaN or infinity, the first is {bad[0]}"
    fix = "Train or export the adapter again; its training diverged or the file is damaged."
    return [Problem(str(path), fault, fix)]
