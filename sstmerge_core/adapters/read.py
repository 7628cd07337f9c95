"""Read a PEFT LoRA folder: what it adapts, with which rank and scaling. Values are loaded only when asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstmerge_core.adapters import names, places
from sstmerge_core.adapters.adapted import AdaptedModule, Tensors, joined, stack_of, stacked
from sstmerge_core.adapters.fingerprint import adapter_fingerprint, forget
from sstmerge_core.adapters.json_file import read_object, shown
from sstmerge_core.adapters.names import Kind
from sstmerge_core.adapters.patterns import UnusablePattern
from sstmerge_core.adapters.places import CONFIG, MLX_WEIGHTS, PICKLE, WEIGHTS
from sstmerge_core.adapters.safetensors_header import TensorHeader, is_float, magnitude, read_header
from sstmerge_core.adapters.saved import Saved, find
from sstmerge_core.adapters.settings import Scales, config_problems
from sstmerge_core.errors import AdapterError, Problem
from sstmerge_core.workspace import Workspace, given_path

if TYPE_CHECKING:
    import torch

_SPARE = ".lora_velora_"
"""What VeLoRA's backward pass remembers"""
LARGEST_UPDATE = 1e12
"""Bound on the numbers in a ΔW. Trained ones stay below 10; squares of much larger ones overflow float32"""


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
    saved: dict[str, Saved] = field(default_factory=dict)
    """Tensors of fully trained modules (PEFT's ``modules_to_save``) by their name in the base, ``lm_head.weight``"""

    @property
    def name(self) -> str:
        """That of its folder, or of its repository in the Hugging Face cache."""
        return places.called(self.path)

    @property
    def base_name(self) -> str:
        """The base model it says it was trained on."""
        named = self.config.get("base_model_name_or_path")
        return named if isinstance(named, str) else ""

    @property
    def rank(self) -> int:
        return max((module.rank for module in self.modules.values()), default=0)

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
            tensors = Tensors(file)
            found = {}
            for name, module in self.modules.items():
                a, b = module.factors(tensors)
                # joined experts and modules trained whole are put together on the host
                found[name] = Factors(a.to(device, torch.float32), b.to(device, torch.float32), module.scaling)
            return found


def read(path: str | Path, *, check_values: bool = True, saved: bool = False) -> Adapter:
    """The adapter in folder `path`; with `saved` also one that has fully trained modules (``modules_to_save``).

    Whoever asks for `saved` has to do something with `Adapter.saved`: ΔW does not hold it.

    Raises AdapterError with every problem found: missing, truncated or damaged files, every kind of adapter whose ΔW is
    not s·BA (see `settings`), ranks that contradict the configuration, unpaired or misshapen factors, tensors whose
    names are not known (see `names`), and (with `check_values`) NaN, infinity, or numbers too large to compute with.
    """
    folder = places.snapshot(given_path(path, AdapterError).resolve())
    config = _read_config(folder)
    problems = config_problems(str(folder / CONFIG), config, folder, saved=saved)
    if config.get("peft_type") != "LORA":
        raise AdapterError(problems)  # its tensors follow other rules
    try:
        tensors = _read_tensors(folder)
        kept, lacking = find(folder, tensors, config)
        if lacking:  # the same words whether they would be kept or not: no choice helps where the file lacks them
            problems = config_problems(str(folder / CONFIG), config, folder, saved=True) + lacking
        held = {one.key for one in kept.values()} if saved else set()
        rest = {key: tensor for key, tensor in tensors.items() if key not in held}
        modules, copied, found = _sort(folder / WEIGHTS, rest, {} if problems else config)
    except AdapterError as error:
        raise AdapterError([*problems, *error.problems]) from None
    problems += found
    if check_values:
        problems += _values(folder / WEIGHTS, tensors, modules)
    if not problems:
        problems = _second_opinion(folder / WEIGHTS)
    if problems:
        raise AdapterError(problems)
    dtypes = {tensors[key].dtype for module in modules.values() for key in module.keys}
    size = (folder / WEIGHTS).stat().st_size
    return Adapter(folder, config, modules, "/".join(sorted(dtypes)).lower(), size, copied, kept)


def _read_config(folder: Path) -> dict[str, Any]:
    if folder.is_file():
        fix = f"Give its folder, {folder.parent}." if folder.name in (CONFIG, WEIGHTS) else "Give an adapter's folder."
        if places.is_packed(folder):
            fix = "Unpack it and give the adapter's folder, or upload it on the Adapters page."
        raise AdapterError(Problem(str(folder), "is a file, not the folder of an adapter", fix))
    if not folder.is_dir():
        raise AdapterError(Problem(str(folder), "there is no such folder", "Give the folder of a PEFT LoRA adapter."))
    path = folder / CONFIG
    if not path.is_file():
        raise AdapterError(places.no_adapter(folder))
    try:
        return read_object(path)
    except ValueError as error:
        raise AdapterError(places.damaged(path, error, "Export the adapter again.")) from None


def _read_tensors(folder: Path) -> dict[str, TensorHeader]:
    path = folder / WEIGHTS
    if not path.is_file():
        raise AdapterError(_without_weights(folder))
    try:
        return read_header(path)
    except ValueError as error:
        raise AdapterError(places.damaged(path, error, "Copy or download the file again.")) from None


def _without_weights(folder: Path) -> Problem:
    where = str(folder / WEIGHTS)
    if (folder / PICKLE).is_file():
        fault = f"the file is missing; {PICKLE} is a pickle, which can run code"
        return Problem(where, fault, names.conversion(str(folder)))
    if (folder / MLX_WEIGHTS).is_file():
        return Problem(where, f"the file is missing; {MLX_WEIGHTS} is in MLX's format", names.conversion(str(folder)))
    return Problem(where, *places.in_place_of_weights(folder))


def _second_opinion(path: Path) -> list[Problem]:
    """What the library that will load the values has against the file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            return []
    except (SafetensorError, OSError, ValueError) as error:
        fault = f"the safetensors library cannot read it ({shown(error)})"
        return [Problem(str(path), fault, "Copy or download the file again.")]


def _sort(
    path: Path, tensors: dict[str, TensorHeader], config: dict[str, Any]
) -> tuple[dict[str, AdaptedModule], dict[str, TensorHeader], list[Problem]]:
    """The file's tensors as adapted modules and copies of base weights, and what is wrong with the rest.

    `config` is empty where it has problems of its own: then neither ranks nor foreign tensors are held against it.
    """
    where = str(path)
    pairs: dict[tuple[str, Kind], dict[str, str]] = {}
    copied, unknown, twice, trained = {}, [], [], set()
    for key, tensor in tensors.items():
        said = names.understand(key)
        if said is None or (not said.side and len(tensor.shape) != 2):
            if _SPARE not in key:
                unknown.append(key)
        elif not said.side:
            copied[names.canonical(said.module)] = tensor
        else:
            trained.add(said.adapter)
            sides = pairs.setdefault((said.module, said.kind), {})
            if said.side in sides:
                twice.append((sides[said.side], key))
            sides[said.side] = key
    problems = []
    if len(trained) > 1:
        fault = (
            f"holds {len(trained)} adapters: {', '.join(shown(name or '(no name)', 40) for name in sorted(trained))}"
        )
        problems.append(Problem(where, fault, "Save them apart: save_pretrained(…, selected_adapters=[NAME])."))
    elif twice:
        fault = f"two tensors are one factor: {shown(twice[0][0])} and {shown(twice[0][1])}"
        problems.append(Problem(where, fault, "Export the adapter again."))
    if unknown and config:
        problems.append(Problem(where, *names.about_foreign(unknown, str(path.parent))))
    if not pairs and not problems:
        problems.append(Problem(where, "holds no LoRA factors", "Give an adapter saved by PEFT."))
    if not problems and (module := names.image_model(module for module, _ in pairs)):
        fix = "This program merges adapters of language models."
        problems.append(Problem(where, f"is an adapter of an image model: it adapts {shown(module)}", fix))
    if problems:
        return {}, {}, problems
    try:
        scales = Scales(config)
        modules, problems = _pair(where, pairs, tensors, scales)
        modules, faults = _by_parameter(where, modules, config.get("target_parameters"), scales)
        problems += faults
        ranks = {name: (module.rank, _told(name, config, scales)) for name, module in modules.items()}
        wrong = [(name, *found) for name, found in ranks.items() if found[0] != found[1] and not modules[name].pieces]
    except UnusablePattern as error:
        fix = "Write the modules' names instead, as they are in the weights file."
        return {}, {}, [Problem(str(path.parent / CONFIG), f"rank_pattern or alpha_pattern: {shown(error)}", fix)]
    if wrong and config:
        first, own, told = wrong[0]
        fault = f"{len(wrong)} modules have another rank than r and rank_pattern say: {first} has {own}"
        fix = f"Correct {CONFIG} to what it was trained with; its scaling α/r follows from it."
        problems.append(Problem(where, f"{fault}, not {shown(told, 20)}", fix))
    called: dict[str, str] = {}
    for name in modules:  # settings are by the names in the file; what follows, by those that every file agrees on
        if (other := called.setdefault(names.canonical(name), name)) != name:
            fault = f"two names are one module: {shown(other)} and {shown(name)}"
            problems.append(Problem(where, fault, "Export the adapter again."))
    return joined({one: modules[name] for one, name in called.items()}), copied, problems


def _told(name: str, config: dict[str, Any], scales: Scales) -> int:
    """The rank that the settings give a module, which PEFT calls by its weight where that was targeted itself."""
    return scales.rank(f"{name}.weight" if stacked(name, config.get("target_parameters")) else name)


def _pair(
    where: str,
    pairs: dict[tuple[str, Kind], dict[str, str]],
    tensors: dict[str, TensorHeader],
    scales: Scales,
) -> tuple[dict[str, AdaptedModule], list[Problem]]:
    """Modules of which both factors are there and fit; one problem for each way in which the others do not."""
    modules: dict[str, AdaptedModule] = {}
    faults: dict[str, list[str]] = {}
    for (name, kind), keys in pairs.items():
        about = shown(name)
        if len(keys) < 2:
            faults.setdefault("lack a factor", []).append(f"{about} has only lora_{next(iter(keys))}")
            continue
        a, b = tensors[keys["A"]], tensors[keys["B"]]
        if max(len(a.shape), len(b.shape)) > 2:
            faults.setdefault("are convolutions, not linear", []).append(f"{about}: A {a.shape}, B {b.shape}")
        elif min(len(a.shape), len(b.shape)) < 2 or 0 in (*a.shape, *b.shape):
            text = f"{about}: A {a.shape}, B {b.shape}"
            faults.setdefault("have empty factors (shards not gathered when it was saved?)", []).append(text)
        elif a.shape[0] != b.shape[1]:
            faults.setdefault("have factors that do not fit", []).append(f"{about}: A {a.shape}, B {b.shape}")
        elif not (is_float(a) and is_float(b)):
            faults.setdefault("have factors that are not floating point", []).append(f"{about}: {a.dtype}, {b.dtype}")
        elif name in modules:
            faults.setdefault("are both linear and embedding", []).append(about)
        else:
            rank = a.shape[0]
            modules[name] = AdaptedModule(
                rank, a.shape[1], b.shape[0], scales.scaling(name, rank), keys["A"], keys["B"], kind
            )
    return modules, [
        Problem(where, f"{len(names)} modules {fault}, the first is {names[0]}", "Train or export the adapter again.")
        for fault, names in faults.items()
    ]


def _by_parameter(
    where: str, modules: dict[str, AdaptedModule], targets: Any, scales: Scales
) -> tuple[dict[str, AdaptedModule], list[Problem]]:
    """The modules, where factors of a parameter (``target_parameters``), a stack of experts, are those of each."""
    found: dict[str, AdaptedModule] = {}
    unclear, ranks = [], []
    for name, module in modules.items():
        about = stacked(name, targets)
        if about is None:
            found[name] = module
            continue
        parameter = ".".join(about)
        rank = scales.rank(parameter)
        if not about[1]:
            unclear.append(name)
        elif about[1] == "weight":
            found[about[0]] = replace(module, scaling=scales.scaling(parameter, module.rank))
        elif module.rank % rank:
            ranks.append((name, module.rank, rank))
        else:
            scaled = replace(module, scaling=scales.scaling(parameter, rank))
            found |= stack_of(scaled, parameter, rank, module.rank // rank)
    problems = []
    if unclear:
        fault = f"adapts parameters that are not known here (target_parameters), the first is of {shown(unclear[0])}"
        problems.append(Problem(where, fault, "Train it on modules, by target_modules, or on gate_up_proj, down_proj."))
    if ranks:
        first, own, told = ranks[0]
        fault = f"{len(ranks)} stacks of experts have factors that are no multiple of r: {first} has {own} for r {told}"
        problems.append(Problem(where, fault, f"Correct r in {CONFIG} to what it was trained with."))
    return found, problems


def _values(path: Path, tensors: dict[str, TensorHeader], modules: dict[str, AdaptedModule]) -> list[Problem]:
    """Tensors that are not finite, and modules whose ΔW may have numbers beyond `LARGEST_UPDATE`."""
    largest = {name: magnitude(path, tensor) for name, tensor in tensors.items()}
    fix = "Train or export the adapter again; its training diverged or the file is damaged."
    if bad := [name for name, found in largest.items() if found == math.inf]:
        fault = f"{len(bad)} tensors hold NaN or infinity, the first is {shown(bad[0])}"
        return [Problem(str(path), fault, fix)]
    # |ΔW| ≤ s · r · max|A| · max|B|, in Python's own numbers, of which a product may be infinite but does not fail
    bounds = {
        name: sum(
            abs(part.scaling) * part.rank * largest[part.key_a] * largest[part.key_b] for part in one.pieces or (one,)
        )
        for name, one in modules.items()
    }
    if huge := [name for name, bound in bounds.items() if bound > LARGEST_UPDATE]:
        fault = f"{len(huge)} modules have an update too large to compute with: {shown(huge[0])}"
        return [Problem(str(path), f"{fault}, up to {bounds[huge[0]]:.0e} with its scaling", fix)]
    return []
