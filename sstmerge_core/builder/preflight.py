"""Before any work: is it possible, what will it cost, is it known already? Recipes are made here. No torch."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sstmerge_core import adapters, methods
from sstmerge_core.adapters import saved
from sstmerge_core.adapters.json_file import read_object
from sstmerge_core.adapters.templates import template
from sstmerge_core.analysis.screening import SPLIT, Screening
from sstmerge_core.builder import unpinned
from sstmerge_core.catalog import Base, Entry
from sstmerge_core.errors import DataError, Problem, RecipeError, SSTMergeError
from sstmerge_core.evaluate import encoders, served
from sstmerge_core.fisher.room import AT_ONCE, TOKENS, Footprint
from sstmerge_core.jobs import default_device, history
from sstmerge_core.merge import effective_weights
from sstmerge_core.metrics.labels import DEFAULT_JUDGE
from sstmerge_core.models import bits
from sstmerge_core.models.device import APPLIED, DTYPES, Memory, computing, memory_of
from sstmerge_core.models.supervised import LARGEST_LOGITS
from sstmerge_core.recipe import Applied, Backend, Calibration, Chat, Evaluation, Held, Recipe, Suite, TooLong
from sstmerge_core.store.events import last_status
from sstmerge_core.suites import bundled, twins
from sstmerge_core.suites.rows import rows_digest, splits
from sstmerge_core.workspace import Workspace

SHORTEST, LONGEST = 16, 131_072
"""Tokens that a calibration sample may be cut to"""
GENERAL_UTILITY = "instructions"
"""The suite for a utility adapter that names none of its own."""


@dataclass(frozen=True)
class Options:
    """How a merge is measured; the defaults are those of the Merge page."""

    split: str = "test"
    n: int = bundled.PROMPTS
    device: str = ""
    """Where to compute; empty: wherever the job runs"""
    dtype: str = "float32"
    """Of the model that answers and whose gradients are taken"""
    applied: Applied = "in_weights"
    """How a low-rank ΔW gets into it"""
    max_length: int = 256
    """Tokens of a calibration sample"""
    backend: Backend = "transformers"
    """What generates"""
    bits: Literal[8, 4] | None = None
    """In which the base's linear weights are while it answers; None: as they are"""
    system: str = ""
    """System prompt; empty: the template's own, or none"""
    thinking: bool | None = None
    """Whether the template lets the model reason first; None: as it has it"""
    too_long: TooLong = "refuse"
    """What is done with prompts beyond the model's positions"""
    modules_to_save: str = "refuse"
    """What is done with modules that an adapter has trained whole, one of `adapters.saved.POLICIES`"""
    judge: str = DEFAULT_JUDGE
    utility_suite: str = ""
    """Empty: the first utility adapter's own suite"""
    utility_metric: str = ""
    """Empty: ROUGE-L. One that an encoder computes with that: ``bertscore:FOLDER#9``, ``bertscore:ORG/NAME@REV#9``"""
    utility_tokens: int = bundled.MAX_NEW_TOKENS
    """Longest answer to a utility prompt"""
    harmful_suite: str = "harmful"
    attacks: tuple[str, ...] = ()
    """Under which the harmful prompts are asked again (`suites.attacks`), each measured beside the plain ones"""
    benign_suite: str = "near_miss"
    general_suite: str = bundled.GENERAL
    """General benign prompts, where the method weighs them"""
    refusal_suite: str = "harmful"
    """Harmful prompts with the refusals to them, whose gradients make F_harm"""
    near_suite: str = "near_miss"
    """Near misses with helpful answers, where the method learns to tell them from harmful prompts"""


def how_to_compute(
    device: str = "", dtype: str = "auto", max_length: int | None = None, applied: str = "auto"
) -> dict[str, Any]:
    """Those fields of `Options` that a device decides where they are left to it: ``auto``, or no length.

    An empty `device` is the one that a job gets here. Raises RecipeError for what nothing can be computed with.
    """
    known = computing(device or default_device())
    chosen_dtype = known.dtype if dtype == "auto" else dtype
    chosen = known.applied if applied == "auto" else applied
    length = known.max_length if max_length is None else max_length
    problems = []
    if chosen_dtype not in DTYPES:
        problems.append(Problem(f"--dtype {dtype}", "is not supported", f"Use one of auto, {', '.join(DTYPES)}."))
    if chosen not in APPLIED:
        problems.append(Problem(f"--applied {applied}", "is unknown", f"Use one of auto, {', '.join(APPLIED)}."))
    if not SHORTEST <= length <= LONGEST:
        fix = f"Give {SHORTEST} to {LONGEST} tokens."
        problems.append(Problem(f"--max-length {max_length}", "is no length of a sample", fix))
    if problems:
        raise RecipeError(problems)
    return {"device": device, "dtype": chosen_dtype, "applied": chosen, "max_length": length}


@dataclass(frozen=True)
class Preflight:
    """What is known of a merge before it runs."""

    recipe: Recipe | None
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    seconds: float | None = None
    memory_bytes: int = 0
    known: bool = False
    """The same recipe has finished here"""

    @property
    def run_id(self) -> str:
        return self.recipe.run_id if self.recipe else ""


@dataclass(frozen=True)
class SweepPlan:
    """What is known of a sweep before it runs."""

    recipes: list[Recipe]
    """Those not finished yet"""
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    """Each once, however many points it is about"""
    points: int = 0
    skipped: int = 0
    """Points that are known already"""
    seconds: float | None = None
    memory_bytes: int = 0
    """Of the heaviest point"""
    every: list[Recipe] = field(default_factory=list)
    """All of them, in order; what is screened, so that a sweep asked for again chooses among the same"""
    screening: Screening | None = None
    """By which some are chosen before anything is generated"""

    @property
    def asked(self) -> list[Recipe]:
        """What a job is given: those that are not finished, or all where they are screened."""
        return self.every if self.screening else self.recipes


def plan(
    workspace: Workspace,
    *,
    base: Base,
    utility: Entry,
    safety: Entry,
    method: str,
    parameters: Mapping[str, Any],
    further: Sequence[Entry] = (),
    unaligned: Base | None = None,
    evaluate: bool = True,
    options: Options | None = None,
) -> Preflight:
    """Check everything and describe the run; every problem at once, none raised.

    `further` are the utility experts after the first, `utility`, whose suite measures utility. `unaligned` is the model
    that the base was aligned from, for methods that use a safe direction.
    """
    options = options or Options()
    problems, warnings = _adapter_problems(workspace, base, (utility, *further), safety, options)
    entry = methods.get(method)
    problems += entry.problems(parameters)
    problems += _gradient_problems(workspace, base, (utility, *further), safety, [method], options)
    if unaligned is not None:
        problems += _unaligned_problems(entry, base, unaligned)
    if problems:
        return Preflight(None, problems, warnings)
    try:
        effective_weights(method, parameters, 1 + len(further))  # whether there is a weight for each adapter
        recipe = merge_recipe(base, (utility, *further), safety, method, parameters, options)
        if unaligned is not None:
            recipe = recipe.model_copy(update={"unaligned": unaligned.source})
        if not evaluate:
            recipe = recipe.model_copy(update={"evaluation": None})
    except SSTMergeError as error:
        return Preflight(None, list(error.problems), warnings)
    warnings += notes([recipe], workspace) + _wrong_side(entry, safety)
    return Preflight(
        recipe,
        [],
        warnings,
        seconds=history.predict(workspace, [recipe], recipe.device or None),
        memory_bytes=memory(base, (utility, *further, safety), recipe, _device(options)),
        known=is_finished(workspace, recipe),
    )


def plan_sweep(
    workspace: Workspace,
    base: Base,
    utility: Entry,
    safety: Entry,
    *,
    methods: Sequence[str],
    alphas: Sequence[float],
    strengths: Sequence[float] | None = None,
    ks: Sequence[int] = (),
    seeds: Sequence[int] = (),
    further: Sequence[Entry] = (),
    unaligned: Base | None = None,
    options: Options | None = None,
    screening: Screening | None = None,
) -> SweepPlan:
    """A grid as recipes. `strengths` (default: `alphas`) serve the methods whose α is a strength, `alphas` the others.

    A parameter that a method does not have is left out, and equal points collapse into one. `unaligned`, as of `plan`,
    serves those methods that have a use for it. With `screening` every point is merged and screened, and the best are
    measured.
    """
    problems, warnings = _adapter_problems(workspace, base, (utility, *further), safety, options)
    problems += _gradient_problems(workspace, base, (utility, *further), safety, methods, options)
    takes = _taking_unaligned(methods)
    if unaligned is not None and takes:
        problems += _unaligned_problems(next(iter(takes.values())), base, unaligned)
    recipes: dict[str, Recipe] = {}
    if not methods:
        problems.append(Problem("methods", "none is chosen", "Choose at least one method."))
    for name in methods:
        for parameters in grid(name, alphas, alphas if strengths is None else strengths, ks, seeds):
            found = _method_problems(name, parameters, safety)
            problems += [problem for problem in found if problem not in problems]
            if found or problems:
                continue
            try:
                recipe = merge_recipe(base, (utility, *further), safety, name, parameters, options)
                if unaligned is not None and name in takes:
                    recipe = recipe.model_copy(update={"unaligned": unaligned.source})
            except SSTMergeError as error:
                return SweepPlan([], [*problems, *error.problems], warnings)
            recipes[recipe.run_id] = recipe
    if problems:
        return SweepPlan([], problems, warnings)
    every = list(recipes.values())
    warnings += notes(every, workspace)
    if screening is not None and (found := screening.problems() + _unscreenable(every)):
        return SweepPlan([], found, warnings)
    open_ones = [recipe for recipe in every if not is_finished(workspace, recipe)]
    asked = every if screening else open_ones
    return SweepPlan(
        open_ones,
        [],
        warnings,
        points=len(recipes),
        skipped=len(recipes) - len(open_ones),
        seconds=history.predict(workspace, asked, asked[0].device or None, screening) if open_ones else 0.0,
        memory_bytes=memory(base, (utility, *further, safety), max(open_ones, key=_samples), _device(options))
        if open_ones
        else 0,
        every=every,
        screening=screening,
    )


def notes(recipes: Sequence[Recipe], workspace: Workspace) -> list[Problem]:
    """What is no fault of these recipes and is to be known all the same, each once."""
    found: list[Problem] = []
    told: set[str] = set()
    for recipe in recipes:
        judged = recipe.evaluation.judge + str(recipe.evaluation.suites) if recipe.evaluation else ""
        found += _small_calibration(recipe)
        if judged not in told:  # of a grid it is the same at every point, and looks into files
            found += unpinned.notes(recipe, workspace)
        told.add(judged)
    return list(dict.fromkeys(found))


def _unscreenable(recipes: Sequence[Recipe]) -> list[Problem]:
    """Suites of which nothing can be screened: those without rows of the split that settings are chosen on."""
    suites = {suite.source.path: suite for recipe in recipes if recipe.evaluation for suite in recipe.evaluation.suites}
    fix = "Add such rows, or sweep without screening: what is told on test prompts must not be chosen on them."
    return [
        Problem(f"suite {suite.name}", f"has no rows of the split {SPLIT}, on which settings are screened", fix)
        for path, suite in suites.items()
        if SPLIT not in splits(path)
    ]


def grid(
    method: str, alphas: Iterable[float], strengths: Iterable[float], ks: Sequence[int], seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """The parameter sets of one method on the grid; a list it has no parameter for does not multiply."""
    entry = methods.get(method)
    has = {parameter.name for parameter in entry.parameters}
    axes: dict[str, Sequence[Any]] = {}
    if "alpha" in has:
        axes["alpha"] = list(strengths if entry.axis == "strength" else alphas)
    whole = {"k": ks, "seed": seeds}
    axes |= {name: values for name, values in whole.items() if name in has and name in entry.swept and values}
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def merge_recipe(
    base: Base,
    experts: Sequence[Entry],
    safety: Entry,
    method: str,
    parameters: Mapping[str, Any],
    options: Options | None = None,
) -> Recipe:
    """The recipe of one merge. Raises RecipeError for parameters, DataError for suites."""
    options = options or Options()
    entry = methods.get(method)
    complete = entry.complete(parameters)
    utility_suite = options.utility_suite or experts[0].suite or GENERAL_UTILITY
    measured = entry.measures_budget(complete)
    limited = complete.get("over_refusal", 1.0) < 1.0
    if limited and not measured:
        fix = "Use unit=percent or unit=rouge_l, or leave over_refusal at 1."
        raise RecipeError(Problem("parameter over_refusal", "has no effect on a budget in nats: it is measured", fix))
    looks = entry.needs_samples or entry.needs_base or entry.needs_aligned_part
    _can_answer(base, options, entry.title if looks else "")
    task: dict[str, Any] = {**encoders.declared(options.utility_metric), "max_new_tokens": options.utility_tokens}
    return Recipe(
        base=base.source,
        adapters=(*(utility.source for utility in experts), safety.source),
        method=method,
        parameters=complete,
        calibration=_calibration(entry, experts, utility_suite, complete, options) if entry.needs_samples else None,
        evaluation=_evaluation(utility_suite, options),
        selection=bundled.suite(utility_suite, "utility", "selection", **task) if measured else None,
        selection_benign=bundled.suite(options.benign_suite, "benign", "selection") if limited else None,
        chat=_chat(base, options),
        modules_to_save=_kept(base, (*experts, safety), options),
        device=options.device,
    )


def single_recipe(base: Base, adapter: Entry | None, utility_suite: str, options: Options | None = None) -> Recipe:
    """The recipe that measures one adapter alone, or the base where `adapter` is None. Raises as `merge_recipe`."""
    _can_answer(base, options or Options())
    return Recipe(
        base=base.source,
        adapters=(adapter.source,) if adapter else (),
        method="adapter" if adapter else "base",
        parameters={},
        evaluation=_evaluation(utility_suite, options or Options()),
        chat=_chat(base, options or Options()),
        # those of one adapter are its own: there is nothing to choose
        modules_to_save=_kept(base, (adapter,), replace(options or Options(), modules_to_save="utility"))
        if adapter
        else "refuse",
        device=options.device if options else "",
    )


def _can_answer(base: Base, options: Options, gradients: str = "") -> None:
    """Raises RecipeError where the base cannot answer in so many bits, or has no gradients: before anything runs.

    `gradients` is the title of a method that wants them, or the base's weights.
    """
    if not base.ready:
        return
    try:
        quantised = bits.method(read_object(base.path / "config.json"))
    except (OSError, ValueError):
        return  # said where the base is read
    if found := bits.problem(f"base model {base.name}", quantised, options.bits, gradients=gradients):
        raise RecipeError(found)


def _chat(base: Base, options: Options) -> Chat:
    """How prompts become text. Raises RecipeError where the base's template plainly has no room for what is asked."""
    chat = Chat(system=options.system.strip(), thinking=options.thinking, too_long=options.too_long)
    found = template(base.path) if base.ready and chat.told else None
    where = f"base model {base.name}"
    if chat.told and base.ready and not found:
        fix = "Leave the system prompt and thinking out, or choose a base with a chat template."
        raise RecipeError(Problem(where, "has no chat template, so no system turn and no thinking", fix))
    if chat.thinking is not None and base.ready and "enable_thinking" not in str(found):
        fix = "Leave it to the template, or choose a base that knows enable_thinking."
        raise RecipeError(Problem(where, "has a chat template that does not know thinking from no thinking", fix))
    return chat


def _kept(base: Base, used: Sequence[Entry], options: Options) -> Literal["refuse", "utility", "dense"]:
    """What was chosen where an adapter has fully trained modules: a recipe without them keeps its id.

    Raises RecipeError where what generates cannot have them.
    """
    if options.modules_to_save == "refuse" or not any(saved.modules(one.path) for one in used):
        return "refuse"
    fix = "Convert the adapter to a LoRA (`sstmerge adapters convert`), or "
    for wrong, said in ((options.backend == "vllm", "--backend transformers"), (options.bits, "leave --bits out")):
        if wrong:
            fault = "answers without modules that an adapter has trained whole, by vLLM and in 8 or 4 bits"
            raise RecipeError(Problem(f"base model {base.name}", fault, f"{fix}{said}."))
    return "dense" if options.modules_to_save == "dense" else "utility"


def is_finished(workspace: Workspace, recipe: Recipe) -> bool:
    return last_status(workspace.run(recipe.run_id)) == "finished"


def memory(base: Base, used: Sequence[Entry], recipe: Recipe, device: str = "cpu", there: Memory | None = None) -> int:
    """Estimated peak bytes on `device`: the base once in the recipe's format, adapters, gradients, one batch's own.

    The base is in memory once, see `ResidentModel`; moving a module takes three times its weights in float32. On a
    GPU the gradients stay on the host where they would take half of what is free; they are counted here all the same.
    `there`: the device's memory, by default as it is found.
    """
    model = adapters.read_base(base.path)
    size = 4 if recipe.dtype == "float32" else 2
    parameters = sum(_numel(shape) for shape in model.shapes.values())
    matrices = [shape for shape in model.shapes.values() if len(shape) == 2]
    vocabulary = max(shape[0] for shape in matrices)
    inner = [shape for shape in matrices if shape[0] != vocabulary]
    largest = max((_numel(shape) for shape in inner), default=0)
    held = parameters * size + 3 * largest * 4 + sum(adapter.bytes for adapter in used) * 4
    core = sum(adapter.rank for adapter in used)
    entry = methods.get(recipe.method)
    if entry.needs_importance:
        held += parameters * 5  # a score a weight, and two masks
    elif recipe.calibration:
        hidden = min(min(shape) for shape in matrices if shape[0] == vocabulary)
        footprint = Footprint.of_sizes(sum(map(sum, inner)), _layers(model.shapes), hidden, size)
        samples = recipe.parameters.get("batch", AT_ONCE) if entry.fits else AT_ONCE
        length = recipe.calibration.max_length
        tokens = samples * length if entry.fits else min(samples * length, max(TOKENS, length))
        logits = 3 * min(4 * tokens * vocabulary, LARGEST_LOGITS)
        there = there or memory_of(device)
        roomy = there is None or tokens * footprint.everything <= (there.total - held) // 2
        # a fit keeps its activations; a Fisher pass computes them again where they do not fit
        held += logits + tokens * (footprint.everything if roomy or entry.fits else min(footprint))
        if entry.kind == "edited":  # what every module answers to every prompt, in float64
            held += recipe.calibration.samples * sum(shape[0] for shape in inner) * 8
        elif entry.kind != "learned" and not entry.needs_inputs:
            held += recipe.calibration.samples * max(adapter.modules for adapter in used) * core**2 * 4
    return held + (600_000_000 if not device.startswith("cuda") else CUDA_CONTEXT)


CUDA_CONTEXT = 700_000_000
"""Bytes that CUDA itself takes on a device, and what its allocator cannot hand out; read, not measured here"""


def _layers(names: Iterable[str]) -> int:
    """Of how many layers these are the modules: how many names differ in nothing but a number."""
    kinds = Counter(".".join("#" if part.isdecimal() else part for part in name.split(".")) for name in names)
    return max(kinds.values(), default=1)


def _device(options: Options | None) -> str:
    return (options.device if options else "") or default_device()


def _samples(recipe: Recipe) -> int:
    return recipe.calibration.samples if recipe.calibration else 0


def _numel(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def _calibration(
    entry: methods.Method,
    experts: Sequence[Entry],
    utility_suite: str,
    parameters: Mapping[str, Any],
    options: Options,
) -> Calibration:
    answered = parameters.get("targets") != "own"
    harm, n_harm = bundled.source(options.refusal_suite, "fisher", answered=answered)
    benign, n_benign = bundled.source(utility_suite, "fisher", answered=answered)
    several = len(experts) > 1
    further = []
    if several and entry.fisher_of_each and parameters.get("expansion") == "own":
        further = [bundled.source(one.suite or utility_suite, "fisher", answered=True) for one in experts[1:]]
    general: dict[str, Any] = {}
    if weight := parameters.get("general", 0.0):
        source, n = bundled.source(options.general_suite, "fisher")
        general = {"general": source, "n_general": n, "general_weight": weight}
    near: dict[str, Any] = {}
    if entry.needs_near:
        source, n = bundled.source(options.near_suite, "fisher", answered=answered)
        near = {"near": source, "n_near": n}
        if entry.needs_refused:
            near["refused"] = rows_digest(twins.refused(source.path, n, harm.path, "fisher"))
        if entry.needs_held:
            near["held"] = _held(options.refusal_suite, options.near_suite, utility_suite)
    return Calibration(
        harm=harm,
        benign=benign,
        n_harm=n_harm,
        n_benign=n_benign,
        further=tuple(source for source, _ in further),
        n_further=tuple(n for _, n in further),
        experts=parameters.get("experts", "mean") if several else "mean",
        expansion="base_and_own"
        if entry.needs_importance
        else parameters.get("expansion", "base" if entry.needs_inputs else "utility"),
        fisher=parameters.get("fisher", "empirical"),
        max_length=options.max_length,
        dtype=options.dtype,
        **general,
        **near,
    )


def _held(harm: str, near: str, benign: str) -> Held:
    """All rows of the selection split of what a fit is taken of."""
    found = {"harm": harm, "near": near, "benign": benign}
    parts = {part: bundled.source(suite, "selection", answered=True) for part, suite in found.items()}
    taken: dict[str, Any] = {}
    for part, (source, n) in parts.items():
        taken |= {part: source, f"n_{part}": n}
    return Held(**taken)


def _evaluation(utility_suite: str, options: Options) -> Evaluation:
    chosen: tuple[Suite, ...] = (
        bundled.suite(options.harmful_suite, "harmful", options.split, options.n),
        bundled.suite(options.benign_suite, "benign", options.split, options.n),
        bundled.suite(
            utility_suite,
            "utility",
            bundled.split_there(utility_suite, options.split),
            options.n,
            max_new_tokens=options.utility_tokens,
            **encoders.declared(options.utility_metric),
        ),
    )
    chosen += tuple(bundled.attacked(chosen[0], attack) for attack in options.attacks)
    if len({suite.name for suite in chosen}) < len(chosen):
        names = ", ".join(suite.name for suite in chosen)
        raise DataError(Problem(f"suites {names}", "two have one name", "Rename a file: results are kept by name."))
    if options.backend == "vllm":
        served.check_installed()
    applied = options.applied if options.backend == "transformers" else "in_weights"  # vLLM has a way of its own
    if options.bits:
        if options.backend == "vllm":
            fix = "Use --backend transformers."
            raise RecipeError(Problem(f"--bits {options.bits}", "is not for vLLM here", fix))
        applied = "beside"
    return Evaluation(
        suites=chosen,
        judge=options.judge,
        dtype=options.dtype,
        backend=options.backend,
        applied=applied,
        bits=options.bits,
    )


def not_ready(base: Base) -> Problem:
    """Why nothing can be merged on a base model whose files are not here."""
    fix = "Run `sstmerge demo --prepare`, choose another base model, or add one on the Adapters page."
    return Problem(f"base model {base.name}", "is not prepared on this machine yet", fix)


def _adapter_problems(
    workspace: Workspace, base: Base, experts: Sequence[Entry], safety: Entry, options: Options | None = None
) -> tuple[list[Problem], list[Problem]]:
    """Problems and warnings of everything that goes into a merge together."""
    if not base.ready:
        return [not_ready(base)], []
    problems = []
    if any(utility.sha256 == safety.sha256 for utility in experts):
        problems.append(Problem("adapters", "utility and safety are the same adapter", "Choose two different ones."))
    if len({utility.sha256 for utility in experts}) < len(experts):
        problems.append(Problem("adapters", "a utility adapter is given twice", "Choose different ones."))
    policy = options.modules_to_save if options else "refuse"
    if found := saved.problem(policy, "adapters"):
        problems.append(found)
    report = _checked(workspace, base, experts, safety, policy if found is None else "utility")
    return problems + report.problems, list(report.warnings)


def _gradient_problems(
    workspace: Workspace,
    base: Base,
    experts: Sequence[Entry],
    safety: Entry,
    names: Iterable[str],
    options: Options | None = None,
) -> list[Problem]:
    """Methods that cannot be told which weights matter of the experts of this base, said before they are launched."""
    if not base.ready:
        return []
    report = _checked(workspace, base, experts, safety, options.modules_to_save if options else "refuse")
    if not report.experts:
        return []
    entries = [methods.get(name) for name in names if name in methods.names()]
    wanting = [one for one in entries if one.needs_importance or (one.needs_samples and not report.one_by_one)]
    fix = "Choose a method that needs no samples, or adapters without the experts."
    where = f"base model {base.name}"
    return [
        Problem(where, f"gives {one.title} no gradients of its experts, such as {report.experts}", fix)
        for one in wanting
    ]


def _checked(
    workspace: Workspace, base: Base, experts: Sequence[Entry], safety: Entry, policy: str = "refuse"
) -> adapters.Report:
    """`check_many`, remembered while none of the adapters changes: the form asks at every keystroke."""
    roles = {"utility" if not index else f"utility {index + 1}": entry for index, entry in enumerate(experts)}
    roles["safety"] = safety
    key = (
        policy,
        base.sha256,
        str(base.path),
        *((role, entry.sha256, str(entry.path)) for role, entry in roles.items()),
    )
    stamps = tuple(_stamp(entry.path) for entry in roles.values())
    if _CHECKED.get(key, (None, None))[0] != stamps:
        paths = {role: entry.path for role, entry in roles.items()}
        _CHECKED[key] = (stamps, adapters.check_many(base.path, paths, modules_to_save=policy))
    return _CHECKED[key][1]


_CHECKED: dict[Any, tuple[Any, Any]] = {}


def _stamp(folder: Any) -> tuple[int, ...]:
    stamps = []
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        try:
            stamps.append((folder / name).stat().st_mtime_ns)
        except OSError:
            stamps.append(0)
    return tuple(stamps)


def _taking_unaligned(names: Iterable[str]) -> dict[str, methods.Method]:
    """Those methods that have a use for the model that the base was aligned from."""
    return {name: methods.get(name) for name in names if methods.get(name).needs_aligned_part}


def _unaligned_problems(entry: methods.Method, base: Base, unaligned: Base) -> list[Problem]:
    if not entry.needs_aligned_part:
        using = ", ".join(own.name for own in methods.methods() if own.needs_aligned_part)
        fault = f"has no use for the unaligned model {unaligned.name}"
        return [Problem(f"method {entry.name}", fault, f"Leave it out; methods that use one: {using}.")]
    if unaligned.sha256 == base.sha256:
        fault = "is also given as the unaligned model"
        return [Problem(f"base model {base.name}", fault, "Give the model that the base was aligned from.")]
    return []


def _wrong_side(entry: methods.Method, last: Entry) -> list[Problem]:
    """That a harm adapter would be added, or an adapter that refuses harm subtracted."""
    if entry.takes_harm and last.role not in ("harm", ""):
        fix = "Give a harm adapter, trained to comply with harmful requests, or another method."
        return [Problem(f"method {entry.name}", f"subtracts {last.name}, a {last.role} adapter", fix)]
    if last.role == "harm" and not entry.takes_harm:
        using = ", ".join(own.name for own in methods.methods() if own.takes_harm)
        return [
            Problem(f"method {entry.name}", f"adds {last.name}, a harm adapter", f"Methods that subtract: {using}.")
        ]
    return []


def _method_problems(name: str, parameters: Mapping[str, Any], last: Entry) -> list[Problem]:
    try:
        entry = methods.get(name)
        return entry.problems(parameters) + _wrong_side(entry, last)
    except SSTMergeError as error:
        return list(error.problems)


def _small_calibration(recipe: Recipe) -> list[Problem]:
    found = []
    for name in ("k", "m"):
        value = recipe.parameters.get(name)
        if (
            recipe.calibration
            and value
            and value > recipe.calibration.n_harm
            and not recipe.parameters.get("layerwise")
        ):
            fault = f"is more than the {recipe.calibration.n_harm} harmful samples, so every direction is taken"
            found.append(Problem(f"parameter {name}={value}", fault, f"A smaller {name} selects."))
    return found
