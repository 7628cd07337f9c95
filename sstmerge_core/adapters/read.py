"""Read a PEFT LoRA folder: what it adapts, with which rank and scaling. Values are loaded only when asked for."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstmerge_core.adapters.fingerprint import adapter_fingerprint
from sstmerge_core.adapters.safetensors_header import TensorHeader, is_finite, read_header
from sstmerge_core.errors import AdapterError, Problem
from sstmerge_core.workspace import Workspace

if TYPE_CHECKING:
    import torch

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_KEY = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight$")


@dataclass(frozen=True)
class AdaptedModule:
    """One linear module that the adapter changes: ΔW = scaling · B A, of shape (out_features, in_features)."""

    rank: int
    in_features: int
    out_features: int
    scaling: float
    key_a: str
    key_b: str


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

    @cached_property
    def sha256(self) -> str:
        return adapter_fingerprint(self.path)

    def fingerprint(self, workspace: Workspace) -> str:
        """The same as `sha256`, remembered in the workspace."""
        return adapter_fingerprint(self.path, workspace)

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

    Raises AdapterError with every problem found: missing or truncated files, other PEFT types, DoRA, biases,
    fully trained modules, rank 0, unpaired or misshapen factors, and (with `check_values`) NaN or infinity.
    """
    folder = Path(path).expanduser().resolve()
    config = _read_config(folder)
    problems = _config_problems(folder / CONFIG, config)
    tensors = _read_tensors(folder)
    modules, found = _pair_factors(folder / WEIGHTS, config, tensors)
    problems += found
    if check_values:
        bad = [name for name, tensor in tensors.items() if not is_finite(folder / WEIGHTS, tensor)]
        if bad:
            problems.append(
                Problem(
                    str(folder / WEIGHTS),
                    f"{len(bad)} tensors hold NaN or infinity, the first is {bad[0]}",
                    "Train or export the adapter again; its training diverged or the file is damaged.",
                )
            )
    if problems:
        raise AdapterError(problems)
    dtypes = {tensor.dtype for tensor in tensors.values()}
    return Adapter(folder, config, modules, "/".join(sorted(dtypes)).lower(), (folder / WEIGHTS).stat().st_size)


def _read_config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise AdapterError(Problem(str(folder), "there is no such folder", "Give the folder of a PEFT LoRA adapter."))
    path = folder / CONFIG
    if not path.is_file():
        fix = f"Give the folder that holds {CONFIG} and {WEIGHTS}."
        raise AdapterError(Problem(str(path), "the file is missing, so this is no PEFT adapter", fix))
    try:
        config = json.loads(path.read_text())
        if not isinstance(config, dict):
            raise ValueError
    except ValueError:
        raise AdapterError(Problem(str(path), "is not valid JSON", "Export the adapter again.")) from None
    return config


def _config_problems(path: Path, config: dict[str, Any]) -> list[Problem]:
    where = str(path)
    problems = []
    kind = config.get("peft_type")
    if kind != "LORA":
        fix = "Only LoRA adapters have a ΔW = s·BA to merge."
        problems.append(Problem(where, f"peft_type is {kind}, not LORA", fix))
    if config.get("use_dora"):
        fix = "Merge the magnitudes into a dense model first, or train with use_dora=False."
        problems.append(Problem(where, "is a DoRA adapter; its ΔW is not s·BA", fix))
    if config.get("bias", "none") != "none":
        problems.append(Problem(where, f"trains biases (bias={config['bias']})", "Train with bias='none'."))
    if config.get("modules_to_save"):
        names = ", ".join(config["modules_to_save"])
        problems.append(Problem(where, f"carries fully trained modules ({names})", "Train without modules_to_save."))
    rank = config.get("r")
    if kind == "LORA" and (not isinstance(rank, int) or rank < 1):
        problems.append(Problem(where, f"r is {rank}; a rank must be at least 1", "Export the adapter again."))
    return problems


def _read_tensors(folder: Path) -> dict[str, TensorHeader]:
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        fault = "the file is missing; adapter_model.bin is a pickle, which can run code" if pickled else "is missing"
        raise AdapterError(Problem(str(path), fault, "Save it with safe_serialization=True." if pickled else ""))
    try:
        return read_header(path)
    except ValueError as error:
        raise AdapterError(Problem(str(path), str(error), "Copy or download the file again.")) from None


def _pair_factors(
    path: Path, config: dict[str, Any], tensors: dict[str, TensorHeader]
) -> tuple[dict[str, AdaptedModule], list[Problem]]:
    sides: dict[str, dict[str, str]] = {}
    foreign = []
    for key in tensors:
        if match := _KEY.match(key):
            sides.setdefault(match["module"], {})[match["side"]] = key
        else:
            foreign.append(key)
    problems = []
    if foreign:
        fault = f"{len(foreign)} tensors are not LoRA factors of linear modules, the first is {foreign[0]}"
        problems.append(Problem(str(path), fault, "Only lora_A and lora_B of linear modules can be merged."))
    modules = {}
    for module, keys in sides.items():
        if len(keys) < 2:
            fault = f"{module} has only lora_{next(iter(keys))}"
            problems.append(Problem(str(path), fault, "Export the adapter again."))
            continue
        a, b = tensors[keys["A"]], tensors[keys["B"]]
        if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1]:
            fault = f"the factors of {module} do not fit: A {a.shape}, B {b.shape}"
            problems.append(Problem(str(path), fault, "Export the adapter again."))
            continue
        rank = a.shape[0]
        if rank < 1:
            problems.append(Problem(str(path), f"{module} has rank 0", "Export the adapter again."))
            continue
        modules[module] = AdaptedModule(
            rank, a.shape[1], b.shape[0], _scaling(module, rank, config), keys["A"], keys["B"]
        )
    if not sides:
        problems.append(Problem(str(path), "holds no LoRA factors", "Give an adapter saved by PEFT."))
    return modules, problems


def _scaling(module: str, rank: int, config: dict[str, Any]) -> float:
    """α/r, or α/√r for rsLoRA, with PEFT's per-module patterns (a pattern matches the end of the name)."""
    alpha = config.get("lora_alpha", 8)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            alpha = value
            break
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)
