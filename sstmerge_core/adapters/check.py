"""Do adapters and a base model fit together? Every problem at once, from file headers.

Values are looked at only to find NaN, and to compare a copy of base weights that an adapter carries with the base.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sstmerge_core import documents
from sstmerge_core.adapters.read import WEIGHTS, AdaptedModule, Adapter, read
from sstmerge_core.adapters.safetensors_header import TensorHeader, read_header, same_values
from sstmerge_core.adapters.settings import unknown_settings
from sstmerge_core.errors import AdapterError, DataError, Problem, SSTMergeError

_CONV1D = {"gpt2": ("c_attn", "q_attn", "c_proj", "c_fc"), "openai-gpt": ("c_attn", "c_proj", "c_fc")}
"""Modules whose weights are stored as (in, out), by model type; embeddings and lm_head of these models are not"""
EMBEDDINGS = ("embed_tokens", "wte", "tokens_embed", "embed_in", "word_embeddings", "tok_embeddings")
_POSITIONS = ("wpe", "positions_embed")
_HEADS = ("lm_head", "embed_out")


@dataclass(frozen=True)
class BaseModel:
    """A base model's folder, as far as adapters are concerned."""

    path: Path
    name: str
    architecture: str
    vocabulary: int
    weights: dict[str, tuple[Path, TensorHeader]]
    """File and place of each weight by the module's name in the file; a tied output embedding is not in it"""
    model_type: str
    tied: bool
    """The output embedding is the input embedding (``tie_word_embeddings``)"""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Weight shapes by module name, as they are in the files."""
        return {name: tensor.shape for name, (_, tensor) in self.weights.items()}

    def weight(self, module: str) -> tuple[Path, TensorHeader] | None:
        """File and place of a module's weight, None where the base has no such module.

        Files may leave out the model's own prefix (GPT-2's ``transformer.``), and a tied output embedding.
        """
        bare = module.split(".", 1)[-1]
        found = self.weights.get(module) or self.weights.get(bare)
        if found is None and self.tied and module.rsplit(".", 1)[-1] in _HEADS:
            names = [name for name in self.weights if name.rsplit(".", 1)[-1] in EMBEDDINGS]
            found = self.weights[names[0]] if len(names) == 1 else None
        return found

    def is_transposed(self, module: str) -> bool:
        """Whether the module's weight is stored as (in, out): embeddings, and GPT-2's ``Conv1D``."""
        last = module.rsplit(".", 1)[-1]
        return last in EMBEDDINGS + _POSITIONS or last in _CONV1D.get(self.model_type, ())


@dataclass
class Report:
    """What adapters have in common and what stands in the way of merging them."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def compatible(self) -> bool:
        return not self.problems


def read_base(path: str | Path) -> BaseModel:
    """The base model in folder `path`. Raises DataError naming the missing or damaged file."""
    folder = Path(path).expanduser().resolve()
    if not folder.is_dir():
        fix = "Give the folder of a model saved with save_pretrained (safetensors)."
        raise DataError(Problem(str(folder), "there is no such base model folder", fix))
    try:
        if not (folder / "config.json").is_file():
            fix = "Give the folder of a transformers model."
            raise DataError(Problem(str(folder / "config.json"), "the file is missing", fix))
        config = documents.read_json(folder / "config.json")
        if not isinstance(config, dict):
            raise documents.FormatError("is not a JSON object")
    except documents.FormatError as error:
        raise DataError(Problem(str(folder / "config.json"), str(error), "Download it again.")) from None
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise DataError(Problem(str(folder), "holds no safetensors weights", "Save the model as safetensors."))
    weights: dict[str, tuple[Path, TensorHeader]] = {}
    for file in files:
        try:
            header = read_header(file)
        except ValueError as error:
            raise DataError(Problem(str(file), str(error), "Copy or download the file again.")) from None
        weights |= {key.removesuffix(".weight"): (file, tensor) for key, tensor in header.items()}
    return BaseModel(
        path=folder,
        name=config.get("_name_or_path") or config.get("_model_name_or_path") or folder.name,
        architecture=(config.get("architectures") or ["unknown"])[0],
        vocabulary=int(config.get("vocab_size") or 0),
        weights=weights,
        model_type=str(config.get("model_type")),
        # configurations leave out what is their class's default; an untied head would be in the file
        tied=bool(config.get("tie_word_embeddings", True)),
    )


def check_pair(base: str | Path, utility: str | Path, safety: str | Path) -> Report:
    """`check_many` of a utility and a safety adapter."""
    return check_many(base, {"utility": utility, "safety": safety})


def check_many(base: str | Path, adapters: Mapping[str, str | Path]) -> Report:
    """Check that adapters, given by role or name, fit the base model and each other.

    Never raises for bad input: the report holds every problem of every adapter.
    """
    report = Report()
    found: dict[str, Adapter] = {}
    for role, path in adapters.items():
        try:
            found[role] = read(path)
        except AdapterError as error:
            report.problems.extend(error.problems)
    try:
        model = read_base(base)
    except SSTMergeError as error:
        report.problems.extend(error.problems)
        return report
    for role, adapter in found.items():
        report.problems.extend(_fits_base(adapter, model, role))
        report.warnings.extend(_doubts(adapter, role))
        report.facts |= _facts(role, adapter)
    report.facts["base"] = f"{model.name} ({model.architecture}, vocabulary {model.vocabulary:,})"
    if len(found) == len(adapters) > 1:
        _compare(report, found)
    return report


def _fits_base(adapter: Adapter, base: BaseModel, role: str) -> list[Problem]:
    where = f"{role} adapter {adapter.path}"
    problems = []
    declared, known = _short(adapter.base_name), _short(base.name)
    if declared and declared != known and declared != _short(str(base.path)):
        fault = f"it was trained on {adapter.base_name}, the base model is {base.name}"
        fix = "Choose the base it was trained on; if the two are one model, correct base_model_name_or_path."
        problems.append(Problem(where, fault, fix))
    missing, wrong = [], []
    for name, module in adapter.modules.items():
        shape = _shape(base, name, module)
        if shape is None:
            missing.append(name)
        elif (module.out_features, module.in_features) != shape:
            wrong.append((name, (module.out_features, module.in_features), shape))
    if missing:
        fault = f"{len(missing)} of its {len(adapter.modules)} modules are not in the base, the first is {missing[0]}"
        problems.append(Problem(where, fault, "Choose the base model that it was trained on."))
    if wrong:
        name, own, expected = wrong[0]
        vocabulary = " (another vocabulary)" if _is_vocabulary(name) else ""
        fault = f"{len(wrong)} modules have another shape than the base: {name} is {own}, not {expected}{vocabulary}"
        problems.append(Problem(where, fault, "Choose the base model that it was trained on."))
    return problems + _copies(adapter, base, where)


def _shape(base: BaseModel, name: str, module: AdaptedModule) -> tuple[int, ...] | None:
    """(out, in) of the base's module, an embedding's being (width, vocabulary); None where there is none."""
    found = base.weight(name)
    if found is None:
        return None
    shape = found[1].shape
    return shape[::-1] if module.kind == "embedding" or base.is_transposed(name) else shape


def _is_vocabulary(name: str) -> bool:
    return name.rsplit(".", 1)[-1] in EMBEDDINGS + _HEADS


def _copies(adapter: Adapter, base: BaseModel, where: str) -> list[Problem]:
    """Base weights saved beside the factors must be the base's: otherwise they were trained, or resized."""
    changed = []
    for name, tensor in adapter.copied.items():
        original = base.weight(name)
        if original is None or not same_values(adapter.path / WEIGHTS, tensor, *original):
            changed.append(name)
    if not changed:
        return []
    fault = f"carries whole weights of {', '.join(changed)} that are not the base's (trained, or a resized vocabulary)"
    fix = "Train with target_modules and the base's own vocabulary, or give that model as the base."
    return [Problem(where, fault, fix)]


def _doubts(adapter: Adapter, role: str) -> list[Problem]:
    names = unknown_settings(adapter.config)
    if not names:
        return []
    fault = f"its configuration has settings that are unknown here: {', '.join(names)}"
    return [Problem(f"{role} adapter", fault, "Make sure that its update is s·BA.")]


def _short(name: str) -> str:
    """The last part of a hub id or path, for comparing names that differ only in where the model lay."""
    return name.rstrip("/").split("/")[-1].lower()


def _facts(role: str, adapter: Adapter) -> dict[str, str]:
    ranks = Counter(module.rank for module in adapter.modules.values())
    scalings = sorted({round(module.scaling, 6) for module in adapter.modules.values()})
    kind = "rsLoRA" if adapter.config.get("use_rslora") else "LoRA"
    return {
        f"{role} rank": ", ".join(f"{rank} ({count} modules)" for rank, count in sorted(ranks.items())),
        f"{role} scaling": ", ".join(f"{value:g}" for value in scalings) + f" ({kind})",
        f"{role} targets": ", ".join(sorted({name.rsplit(".", 1)[-1] for name in adapter.modules})),
        f"{role} dtype": adapter.dtype,
    }


def _compare(report: Report, adapters: Mapping[str, Adapter]) -> None:
    where = "pair" if len(adapters) == 2 else "adapters"
    if len({_short(adapter.base_name) for adapter in adapters.values()}) > 1:
        named = [f"{role} names the base {adapter.base_name or '(none)'}" for role, adapter in adapters.items()]
        fix = "Make sure that all were trained on the same weights."
        report.warnings.append(Problem(where, ", ".join(named), fix))
    changed = {role: set(adapter.modules) for role, adapter in adapters.items()}
    union = set().union(*changed.values())
    shared = set.intersection(*changed.values())
    report.facts["shared modules"] = f"{len(shared)} of {len(union)}"
    if not shared:
        fix = "A merge then only puts them side by side."
        report.warnings.append(Problem(where, "the adapters share no module", fix))
    partial = {role: sorted(union - modules) for role, modules in changed.items() if union - modules}
    if partial:
        parts = [f"{role} leaves {len(names)} modules alone (such as {names[0]})" for role, names in partial.items()]
        fault = f"the adapters change different modules: {', '.join(parts)}"
        report.warnings.append(Problem(where, fault, "Its ΔW counts as zero there."))
