"""Do two adapters and a base model fit together? Every problem at once, from file headers alone."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from sstmerge_core.adapters.read import Adapter, read
from sstmerge_core.adapters.safetensors_header import read_header
from sstmerge_core.errors import AdapterError, DataError, Problem, SSTMergeError


@dataclass(frozen=True)
class BaseModel:
    """A base model's folder, as far as adapters are concerned."""

    path: Path
    name: str
    architecture: str
    vocabulary: int
    shapes: dict[str, tuple[int, ...]]
    """Weight shapes by module name"""
    transposed: bool
    """Linear weights are stored (in, out), as GPT-2's Conv1D does"""


@dataclass
class Report:
    """What a pair has in common and what stands in the way of merging it."""

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
        config = json.loads((folder / "config.json").read_text())
    except OSError:
        fix = "Give the folder of a transformers model."
        raise DataError(Problem(str(folder / "config.json"), "the file is missing", fix)) from None
    except ValueError:
        raise DataError(Problem(str(folder / "config.json"), "is not valid JSON", "Download it again.")) from None
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise DataError(Problem(str(folder), "holds no safetensors weights", "Save the model as safetensors."))
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        try:
            header = read_header(file)
        except ValueError as error:
            raise DataError(Problem(str(file), str(error), "Copy or download the file again.")) from None
        shapes |= {key.removesuffix(".weight"): tensor.shape for key, tensor in header.items()}
    return BaseModel(
        path=folder,
        name=config.get("_name_or_path") or config.get("_model_name_or_path") or folder.name,
        architecture=(config.get("architectures") or ["unknown"])[0],
        vocabulary=int(config.get("vocab_size") or 0),
        shapes=shapes,
        transposed=config.get("model_type") == "gpt2",
    )


def check_pair(base: str | Path, utility: str | Path, safety: str | Path) -> Report:
    """Check that both adapters fit the base model and each other. Never raises for bad input: it reports."""
    report = Report()
    adapters: dict[str, Adapter] = {}
    for role, path in (("utility", utility), ("safety", safety)):
        try:
            adapters[role] = read(path)
        except AdapterError as error:
            report.problems.extend(error.problems)
    try:
        model = read_base(base)
    except SSTMergeError as error:
        report.problems.extend(error.problems)
        return report
    for role, adapter in adapters.items():
        report.problems.extend(_fits_base(adapter, model, role))
        report.facts |= _facts(role, adapter)
    report.facts["base"] = f"{model.name} ({model.architecture}, vocabulary {model.vocabulary:,})"
    if len(adapters) == 2:
        _compare(report, adapters["utility"], adapters["safety"])
    return report


def _fits_base(adapter: Adapter, base: BaseModel, role: str) -> list[Problem]:
    where = f"{role} adapter {adapter.path}"
    problems = []
    declared, known = _short(adapter.base_name), _short(base.name)
    if declared and declared != known and declared != _short(str(base.path)):
        fault = f"it was trained on {adapter.base_name}, the base model is {base.name}"
        fix = "Choose the base it was trained on; if the two are one model, correct base_model_name_or_path."
        problems.append(Problem(where, fault, fix))
    missing = [name for name in adapter.modules if name not in base.shapes]
    if missing:
        fault = f"{len(missing)} of its {len(adapter.modules)} modules are not in the base, the first is {missing[0]}"
        problems.append(Problem(where, fault, "Choose the base model that it was trained on."))
    wrong = []
    for name, module in adapter.modules.items():
        if name in base.shapes:
            expected = base.shapes[name][::-1] if base.transposed else base.shapes[name]
            if (module.out_features, module.in_features) != expected:
                wrong.append((name, (module.out_features, module.in_features), expected))
    if wrong:
        name, own, expected = wrong[0]
        vocabulary = " (another vocabulary)" if "embed" in name or "lm_head" in name else ""
        fault = f"{len(wrong)} modules have another shape than the base: {name} is {own}, not {expected}{vocabulary}"
        problems.append(Problem(where, fault, "Choose the base model that it was trained on."))
    return problems


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


def _compare(report: Report, utility: Adapter, safety: Adapter) -> None:
    if _short(utility.base_name) != _short(safety.base_name):
        fault = f"utility names the base {utility.base_name or '(none)'}, safety names {safety.base_name or '(none)'}"
        report.warnings.append(Problem("pair", fault, "Make sure that both were trained on the same weights."))
    only_utility = sorted(set(utility.modules) - set(safety.modules))
    only_safety = sorted(set(safety.modules) - set(utility.modules))
    shared = len(set(utility.modules) & set(safety.modules))
    report.facts["shared modules"] = f"{shared} of {len(set(utility.modules) | set(safety.modules))}"
    if not shared:
        fix = "A merge then only puts them side by side."
        report.warnings.append(Problem("pair", "the adapters share no module", fix))
    for role, names in (("safety", only_utility), ("utility", only_safety)):
        if names:
            fault = f"the {role} adapter leaves {len(names)} modules alone that the other one changes"
            report.warnings.append(Problem("pair", f"{fault}, the first is {names[0]}", "Its ΔW counts as zero there."))
