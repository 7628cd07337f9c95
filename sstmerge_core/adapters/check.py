"""Do adapters and a base model fit together? Every problem at once, from file headers.

Values are looked at only to find NaN, and to compare a copy of base weights that an adapter carries with the base.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sstmerge_core.adapters import places, scan
from sstmerge_core.adapters import saved as saved_modules
from sstmerge_core.adapters.adapted import EXPERT, AdaptedModule
from sstmerge_core.adapters.json_file import read_object, shown
from sstmerge_core.adapters.names import canonical
from sstmerge_core.adapters.places import WEIGHTS
from sstmerge_core.adapters.read import Adapter, read
from sstmerge_core.adapters.safetensors_header import TensorHeader, read_header, same_values
from sstmerge_core.adapters.settings import unknown_settings
from sstmerge_core.adapters.templates import template
from sstmerge_core.errors import AdapterError, DataError, Problem, SSTMergeError
from sstmerge_core.workspace import given_path

_CONV1D = {"gpt2": ("c_attn", "q_attn", "c_proj", "c_fc"), "openai-gpt": ("c_attn", "c_proj", "c_fc")}
"""Modules whose weights are stored as (in, out), by model type; embeddings and lm_head of these models are not"""
EMBEDDINGS = ("embed_tokens", "wte", "tokens_embed", "embed_in", "word_embeddings", "tok_embeddings")
_POSITIONS = ("wpe", "positions_embed")
_HEADS = ("lm_head", "embed_out")
_BODIES = dict.fromkeys(("gpt2", "gptj", "gpt_neo", "gpt_bigcode", "bloom", "falcon", "codegen", "mpt"), "transformer")
_BODIES |= {"openai-gpt": "transformer", "gpt_neox": "gpt_neox", "mamba": "backbone", "mamba2": "backbone"}
"""What causal models call their body, by model type, where it is not ``model`` (transformers' base_model_prefix)"""


_STACKS_TURNED = ("gpt_oss", "aria", "aria_text", "openai_privacy_filter", "qwen3_vl_moe")
"""Models whose files have stacks of experts as (experts, in, out), while PEFT's ΔW of one is (out, in)"""
_TOGETHER = ("llama4", "llama4_text", "dbrx")
"""Models that compute all experts of a layer in one product (transformers without ``use_experts_implementation``)"""
EXPERTS_KNOWN = frozenset(
    [
        *("mixtral", "minimax", "minimax_m2", "qwen2_moe", "qwen3_moe", "qwen3_next", "olmoe", "flex_olmo", "dots1"),
        *("deepseek_v2", "deepseek_v3", "deepseek_v32", "ernie4_5_moe", "glm4_moe", "glm4_moe_lite", "glm_moe_dsa"),
        *("glm4v_moe", "longcat_flash", "solar_open", "afmoe", "hunyuan_v1_moe", "exaone_moe", "cohere2_moe"),
        *("mellum", "beam"),
    ]
)
"""Models whose files hold one matrix an expert and whose memory holds stacks [gate; up] and down (transformers 5)"""


@dataclass(frozen=True)
class Place:
    """Where a module's weight, or some rows of it, lies in the files."""

    file: Path
    key: str
    tensor: TensorHeader
    expert: int | None = None
    """Which matrix of a stack (experts, ·, ·)"""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the matrix, as it is in the file."""
        return self.tensor.shape if self.expert is None else self.tensor.shape[1:]


@dataclass(frozen=True)
class BaseModel:
    """A base model's folder, as far as adapters are concerned."""

    path: Path
    name: str
    architecture: str
    vocabulary: int
    weights: dict[str, tuple[Path, TensorHeader]]
    """File and place of each weight by its module's name (`names.canonical`); a tied output embedding is not in it"""
    model_type: str
    several_modalities: bool
    """It sees pictures or hears too; its text part has names of its own"""
    tied: bool
    """The output embedding is the input embedding (``tie_word_embeddings``)"""
    keys: dict[str, str]
    """The tensor's name in its file, by module"""
    quantised: str = ""
    """By what its linear weights are quantised (``bitsandbytes``, ``gptq``, …); empty: they are floats"""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Weight shapes by module name, as they are in the files."""
        return {name: tensor.shape for name, (_, tensor) in self.weights.items()}

    def weight(self, module: str) -> tuple[Path, TensorHeader] | None:
        """File and place of a module's weight, None where the base has no such module.

        Files may leave out the model's own prefix (GPT-2's ``transformer.``), and a tied output embedding. No other
        part of a name is left out: where it were, a name that PEFT does not know would be taken for one that it does.
        """
        name = self._called(module)
        return self.weights.get(name) if name else None

    def _called(self, module: str) -> str:
        """What the module is called among `weights`; empty where the base has no such module."""
        body = f"{_BODIES.get(self.model_type, 'model')}."
        if module in self.weights:
            return module
        if module.startswith(body) and self.is_bare and (bare := module.removeprefix(body)) in self.weights:
            return bare
        if self.tied and module.rsplit(".", 1)[-1] in _HEADS:
            names = [name for name in self.weights if name.rsplit(".", 1)[-1] in EMBEDDINGS]
            return names[0] if len(names) == 1 else ""
        return ""

    def places(self, module: str) -> tuple[Place, ...]:
        """Where the module's weight is: its rows in this order, none where the base has no such module.

        An expert's matrix may be one of a stack, and its gate and up, which are one here, two tensors.
        """
        if name := self._called(module):
            file, tensor = self.weights[name]
            return (Place(file, self.keys[name], tensor),)
        match = EXPERT.fullmatch(module)
        if match is None:
            return ()
        stack, expert, part = match["stack"], match["expert"], match["part"]
        whole = self.weights.get(f"{stack}.{part}")
        if whole and len(whole[1].shape) == 3 and int(expert) < whole[1].shape[0]:
            return (Place(whole[0], self.keys[f"{stack}.{part}"], whole[1], int(expert)),)
        halves = [f"{stack}.{expert}.{half}" for half in ("gate_proj", "up_proj")]
        if part == "gate_up_proj" and all(half in self.weights for half in halves):
            return tuple(Place(self.weights[half][0], self.keys[half], self.weights[half][1]) for half in halves)
        return ()

    def shape(self, module: str, like: tuple[int, int] | None = None) -> tuple[int, ...] | None:
        """(out, in) of a module as its ΔW is, an embedding's being (width, vocabulary); None where there is none.

        `like` is the ΔW's own: it tells how a stack of experts is laid out, of which transformers has both ways.
        """
        places = self.places(module)
        if not places:
            return None
        shape = places[0].shape
        if len(shape) != 2:
            return shape
        if len(places) > 1:
            return sum(place.shape[0] for place in places), shape[1]
        return shape[::-1] if self.turned(module, shape, like) else shape

    def turned(self, module: str, shape: tuple[int, ...], like: tuple[int, ...] | None = None) -> bool:
        """Whether a matrix that lies in the file (or in memory) as `shape` is the transpose of W as its ΔW is."""
        if EXPERT.fullmatch(module) is None:
            return self.is_transposed(module)
        if like is None or shape[0] == shape[1]:
            return self.model_type in _STACKS_TURNED and module.rsplit(".", 1)[-1] in ("gate_up_proj", "down_proj")
        return like == shape[::-1]

    @cached_property
    def is_bare(self) -> bool:
        """Whether the file was saved of the model's body alone, so that names lack what the whole model calls it."""
        body = f"{_BODIES.get(self.model_type, 'model')}."
        return not any(name.startswith(body) for name in self.weights)

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
    experts: str = ""
    """The first expert that one of them adapts"""
    one_by_one: bool = True
    """Whether the base's experts can be computed one by one, as gradients need them"""

    @property
    def compatible(self) -> bool:
        return not self.problems


def read_base(path: str | Path) -> BaseModel:
    """The base model in folder `path`. Raises DataError naming the missing or damaged file."""
    folder = places.snapshot(given_path(path).resolve())
    if folder.is_file():
        fix = f"Give its folder, {folder.parent}."
        raise DataError(Problem(str(folder), "is a file, not the folder of a base model", fix))
    if not folder.is_dir():
        fix = "Give the folder of a model saved with save_pretrained (safetensors)."
        raise DataError(Problem(str(folder), "there is no such base model folder", fix))
    try:
        config = read_object(folder / "config.json")
    except OSError:
        raise DataError(_no_base(folder)) from None
    except ValueError as error:
        raise DataError(places.damaged(folder / "config.json", error)) from None
    files = places.weight_files(folder)
    if not files:
        gguf = next(iter(sorted(folder.glob("*.gguf"))), None)
        fault = (
            f"holds {gguf.name}, a GGUF file, and no safetensors weights" if gguf else "holds no safetensors weights"
        )
        raise DataError(Problem(str(folder), fault, "Give the model as transformers saves it, in safetensors."))
    weights: dict[str, tuple[Path, TensorHeader]] = {}
    keys: dict[str, str] = {}
    for file in files:
        try:
            header = read_header(file)
        except ValueError as error:
            raise DataError(places.damaged(file, error, "Copy or download the file again.")) from None
        for key, tensor in header.items():
            name = canonical(key.removesuffix(".weight"))
            if keys.setdefault(name, key) != key:
                fault = f"two weights are one module here: {shown(keys[name])} and {shown(key)}"
                raise DataError(Problem(str(file), fault, "Give the text model alone as the base."))
            weights[name] = (file, tensor)
    return BaseModel(
        path=folder,
        name=_text(config, "_name_or_path", "_model_name_or_path") or places.repository(folder) or folder.name,
        architecture=_architecture(config),
        vocabulary=_vocabulary(config),
        weights=weights,
        model_type=str(config.get("model_type")),
        several_modalities=any(name in config for name in ("vision_config", "audio_config", "thinker_config")),
        # configurations leave out what is their class's default; an untied head would be in the file
        tied=bool(config.get("tie_word_embeddings", True)),
        keys=keys,
        quantised=_quantised(config),
    )


def _quantised(config: dict[str, Any]) -> str:
    said = config.get("quantization_config")
    named = said.get("quant_method") if isinstance(said, dict) else said
    return str(named or "an unknown method") if said else ""


def _no_base(folder: Path) -> Problem:
    """What a folder without config.json is, and what to give instead."""
    if (folder / places.CONFIG).is_file():
        fix = "Give the base model that it was trained on as the base, and this folder as an adapter."
        return Problem(str(folder), "is an adapter, not a base model", fix)
    inner = sorted(path.parent for path in folder.glob("*/config.json"))
    if inner:
        fault = f"holds no model of its own, only {shown(inner[0].name)}" + (" and others" if len(inner) > 1 else "")
        return Problem(str(folder), fault, f"Give one of them, such as {inner[0]}.")
    return Problem(str(folder / "config.json"), "the file is missing", "Give the folder of a transformers model.")


def _text(config: dict[str, Any], *names: str) -> str:
    """The first of these settings that is a text."""
    return next((config[name] for name in names if config.get(name) and isinstance(config[name], str)), "")


def _architecture(config: dict[str, Any]) -> str:
    named = config.get("architectures")
    return named[0] if isinstance(named, list) and named and isinstance(named[0], str) else "unknown"


def _vocabulary(config: dict[str, Any]) -> int:
    """The number of tokens, of a model of several modalities that of its text part; 0 where it is not told."""
    inner = config.get("text_config")
    found = config.get("vocab_size") or (inner.get("vocab_size") if isinstance(inner, dict) else 0)
    return found if isinstance(found, int) else 0


def check_pair(base: str | Path, utility: str | Path, safety: str | Path) -> Report:
    """`check_many` of a utility and a safety adapter."""
    return check_many(base, {"utility": utility, "safety": safety})


def check_many(base: str | Path, adapters: Mapping[str, str | Path], *, modules_to_save: str = "refuse") -> Report:
    """Check that adapters, given by role or name, fit the base model and each other.

    `modules_to_save` says what is done with fully trained modules, see `saved.Policy`: refused, those of the utility
    side (every role but ``safety``) stay as they are, or all are merged. Never raises for bad input: the report holds
    every problem of every adapter.
    """
    report = Report()
    found: dict[str, Adapter] = {}
    for role, path in adapters.items():
        try:
            found[role] = read(path, saved=modules_to_save != "refuse")
        except AdapterError as error:
            report.problems.extend(error.problems)
    try:
        model = read_base(base)
    except SSTMergeError as error:
        report.problems.extend(error.problems)
        return report
    plain = dict(found)
    if modules_to_save == "dense":
        found = _told_whole(report, found, model)
    for role, adapter in found.items():
        problems, warnings = _fits_base(adapter, model, role)
        report.problems.extend(problems)
        report.warnings.extend(warnings + _doubts(adapter, role) + _own_template(adapter, model, role))
        report.warnings.extend(scan.doubts(plain[role], role))
        report.facts |= _facts(role, adapter)
        report.experts = report.experts or next(filter(EXPERT.fullmatch, adapter.modules), "")
    report.one_by_one = model.model_type not in _TOGETHER
    report.facts["base"] = f"{model.name} ({model.architecture}, vocabulary {model.vocabulary:,})"
    if len(found) == len(adapters) > 1:
        _compare(report, found)
    if modules_to_save == "utility":
        _keep(report, found, model)
    return report


def _told_whole(report: Report, adapters: Mapping[str, Adapter], base: BaseModel) -> dict[str, Adapter]:
    """The adapters with their fully trained modules among the others, and what stands in the way of that."""
    found = {}
    for role, adapter in adapters.items():
        if adapter.saved:
            report.facts[f"{role} modules_to_save"] = shown(", ".join(saved_modules.modules(adapter.path)))
        try:
            found[role] = replace(adapter, modules={**adapter.modules, **as_modules(adapter, base, role)}, saved={})
        except AdapterError as error:
            report.problems.extend(error.problems)
    return found


def as_modules(adapter: Adapter, base: BaseModel, role: str = "") -> dict[str, AdaptedModule]:
    """An adapter's fully trained modules (`Adapter.saved`) as modules with a ΔW of full rank, by name.

    Raises AdapterError for what is no weight matrix, and for one that the base does not have in this shape.
    """
    where = f"{role} adapter {adapter.path}".strip()
    if other := next((name for name, one in adapter.saved.items() if not one.is_matrix), ""):
        fix = "`--modules-to-save utility` keeps those of the utility side; or train it without."
        fault = f"has trained {shown(other)} whole, which is no weight matrix and cannot be merged as one"
        raise AdapterError(Problem(where, fault, fix))
    if adapter.saved and (misfits := _misfits(adapter, base, where)):
        raise AdapterError(misfits)
    found = {}
    for name, one in adapter.saved.items():
        module = canonical(name.removesuffix(".weight"))
        out, inner = one.header.shape[::-1] if base.is_transposed(module) else one.header.shape
        found[module] = AdaptedModule(min(out, inner), inner, out, 1.0, one.key, one.key)
    return found


def _keep(report: Report, adapters: Mapping[str, Adapter], base: BaseModel) -> None:
    """What stands in the way of keeping the utility side's fully trained modules."""
    having = {role: adapter for role, adapter in adapters.items() if adapter.saved}
    keeping = [role for role in having if role != "safety"]
    for role, adapter in having.items():
        where, names = f"{role} adapter {adapter.path}", shown(", ".join(saved_modules.modules(adapter.path)))
        if role == "safety":
            fault = f"its fully trained modules ({names}) have no part in the merge: the utility side's are kept"
            report.warnings.append(Problem(where, fault, "Convert it to a LoRA to have them merged."))
            continue
        report.facts[f"{role} modules_to_save"] = names
        report.problems.extend(_misfits(adapter, base, where))
        for other, one in adapters.items():
            targets = saved_modules.modules(adapter.path)
            both = next((module for module in one.modules if saved_modules.owner_of(module, targets)), "")
            if both:
                fault = f"{shown(both)} is fully trained there, and the {other} adapter has a ΔW of it"
                report.problems.append(Problem(where, fault, "Convert the first to a LoRA: then the two are added."))
    if len(keeping) > 1:
        fault = f"{len(keeping)} utility adapters carry fully trained modules, and only one's can stay"
        report.problems.append(
            Problem("adapters", fault, "Convert the others to a LoRA (`sstmerge adapters convert`).")
        )


def _misfits(adapter: Adapter, base: BaseModel, where: str) -> list[Problem]:
    if base.several_modalities or base.quantised:
        kind = "quantised" if base.quantised else "of several modalities"
        fault = f"carries fully trained modules, and the base is {kind}"
        return [Problem(where, fault, "Give the text model alone in float as the base, or convert it to a LoRA.")]
    for name, one in adapter.saved.items():
        found = base.weight(canonical(name.removesuffix(".weight")))
        if found is None:
            return [Problem(where, f"the base has no {shown(name)}", "Choose the base model that it was trained on.")]
        if found[1].shape != one.header.shape:
            vocabulary = " (another vocabulary)" if _is_vocabulary(name.removesuffix(".weight")) else ""
            fault = f"its trained {shown(name)} is {one.header.shape}, in the base {found[1].shape}{vocabulary}"
            return [Problem(where, fault, "Give the base whose vocabulary was resized as it was in training.")]
    return []


def _fits_base(adapter: Adapter, base: BaseModel, role: str) -> tuple[list[Problem], list[Problem]]:
    """Problems and warnings. One model has many names: another one is a warning where every shape fits."""
    where = f"{role} adapter {adapter.path}"
    trained = "Choose the base model that it was trained on."
    other = _named_otherwise(adapter, base)
    if other:
        trained = f"Choose the base model that it was trained on, {shown(adapter.base_name)}."
    problems = []
    missing, wrong = [], []
    for name, module in adapter.modules.items():
        own = (module.out_features, module.in_features)
        shape = base.shape(name, own) if module.kind == "linear" else _turned(base.weight(name))
        if shape is None:
            missing.append(name)
        elif base.quantised and _is_packed(base, name, own):
            continue
        elif own != shape:
            wrong.append((name, own, shape))
    if missing:
        count = f"{len(missing)} of its {len(adapter.modules)} modules"
        if extra := _prefix(missing[0], base):
            fault = f"{count} have a prefix that is not known here, {extra}, the first is {shown(missing[0])}"
            problems.append(Problem(where, fault, "Rename its tensors as PEFT does: base_model.model.<module>.lora_A."))
        else:
            fault = f"{count} are not in the base, the first is {shown(missing[0])}"
            if base.several_modalities:
                fault += f"; the base is of several modalities ({base.architecture})"
                trained = "Give its text model alone as the base, and an adapter of that."
            problems.append(Problem(where, fault, trained))
    if wrong:
        name, own, expected = wrong[0]
        vocabulary = " (another vocabulary)" if _is_vocabulary(name) else ""
        fault = f"{len(wrong)} modules have another shape than the base: {name} is {own}, not {expected}{vocabulary}"
        problems.append(Problem(where, fault, trained))
    if experts := _experts_unknown(adapter, base):
        fault = f"adapts experts one by one, the first is {shown(experts)}; those of {base.architecture} are not known"
        problems.append(Problem(where, f"{fault} here", "Use adapters of its attention alone."))
    if base.quantised and base.quantised != "bitsandbytes":
        fault = f"the base {base.path} is quantised by {base.quantised}, which is not read here"
        return [Problem(where, fault, "Give its float checkpoint as the base.")], []
    problems += _copies(adapter, base, where)
    warnings = []
    if other and not problems:
        fault = f"it names the base {shown(adapter.base_name)}, the base given is {shown(base.name)}; every shape fits"
        warnings.append(Problem(where, fault, "Make sure that the two are the same weights."))
    return problems, warnings


def _named_otherwise(adapter: Adapter, base: BaseModel) -> bool:
    """Whether the adapter names another base; not where the name differs only in where the model lay."""
    declared = places.short_name(adapter.base_name)
    known = {places.short_name(name) for name in (base.name, base.path.name, places.repository(base.path))}
    return bool(declared) and declared not in known


def _prefix(module: str, base: BaseModel) -> str:
    """What stands before a module's name that the base has; empty where no end of the name is in the base."""
    parts = module.split(".")
    for length in range(1, len(parts) - 1):
        if base.weight(".".join(parts[length:])):
            return ".".join(parts[:length])
    return ""


def _experts_unknown(adapter: Adapter, base: BaseModel) -> str:
    """The first expert that the base's files hold as a matrix of its own, of a model that may keep it otherwise."""
    if base.model_type in EXPERTS_KNOWN:
        return ""
    experts = (name for name in adapter.modules if EXPERT.fullmatch(name))
    return next((name for name in experts if any(place.expert is None for place in base.places(name))), "")


def _is_packed(base: BaseModel, name: str, own: tuple[int, int]) -> bool:
    """Whether a quantised weight is this matrix with two numbers of 4 bits in a byte, in whatever shape."""
    found = base.weight(name)
    return found is not None and found[1].dtype == "U8" and 2 * math.prod(found[1].shape) == own[0] * own[1]


def _turned(found: tuple[Path, TensorHeader] | None) -> tuple[int, ...] | None:
    """(width, vocabulary) of an embedding."""
    return found[1].shape[::-1] if found else None


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
    which = shown(", ".join(changed))
    fault = f"carries whole weights of {which} that are not the base's (trained, or a resized vocabulary)"
    fix = "Train with target_modules and the base's own vocabulary, or give that model as the base."
    return [Problem(where, fault, fix)]


_GENERATES = (None, "", "CAUSAL_LM", "SEQ_2_SEQ_LM")


def _doubts(adapter: Adapter, role: str) -> list[Problem]:
    doubts = []
    if (task := adapter.config.get("task_type")) not in _GENERATES:
        fault = f"it was trained for the task {shown(task, 40)}, not to write text (CAUSAL_LM)"
        doubts.append(Problem(f"{role} adapter {adapter.path}", fault, "Make sure that its answers are what you want."))
    if names := unknown_settings(adapter.config):
        fault = f"its configuration has settings that are unknown here: {shown(', '.join(names))}"
        doubts.append(Problem(f"{role} adapter", fault, "Make sure that its update is s·BA."))
    return doubts


def _own_template(adapter: Adapter, base: BaseModel, role: str) -> list[Problem]:
    """An adapter trained with another chat template answers otherwise than where it was trained."""
    own = template(adapter.path)
    if not own or own == template(base.path):
        return []
    fault = "its folder has a chat template of its own, which is not the base's; the base's is used"
    fix = "Where it was trained with it, copy chat_template.jinja into a copy of the base."
    return [Problem(f"{role} adapter {adapter.path}", fault, fix)]


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
    if len({places.without_precision(adapter.base_name) for adapter in adapters.values()}) > 1:
        named = [f"{role} names the base {shown(adapter.base_name) or '(none)'}" for role, adapter in adapters.items()]
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
