"""The command that makes a run's result again, and what another form can be filled in with. No torch."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pydantic

from sstmerge_core import catalog, methods
from sstmerge_core.builder import preflight
from sstmerge_core.builder.recipe_file import NAME
from sstmerge_core.errors import SSTMergeError
from sstmerge_core.recipe import AS_THE_TEMPLATE, Recipe
from sstmerge_core.workspace import Workspace

OPTIONS = ("alpha", "k", "seed")
"""Parameters that `sstmerge merge` has an option of their own for"""


@dataclass(frozen=True)
class Inputs:
    """A recipe's base and adapters as this workspace knows them, found by their hashes."""

    base: catalog.Base
    experts: tuple[catalog.Entry, ...]
    safety: catalog.Entry


def stored(recipe: Mapping[str, Any] | None) -> Recipe | None:
    """A recipe as the database holds it; None where there is none, or one that this version cannot read."""
    try:
        return Recipe.model_validate(recipe) if recipe else None
    except pydantic.ValidationError:
        return None


def inputs(recipe: Recipe, bases: Sequence[catalog.Base], entries: Sequence[catalog.Entry]) -> Inputs | list[str]:
    """The inputs of a merge; the names of those that are not known here, where any is missing."""
    known = {entry.sha256: entry for entry in entries}
    base = next((one for one in bases if one.sha256 == recipe.base.sha256), None)
    missing = [] if base else [f"base model {recipe.base.name}"]
    missing += [f"adapter {source.name}" for source in recipe.adapters if source.sha256 not in known]
    if missing or base is None:
        return missing
    found = [known[source.sha256] for source in recipe.adapters]
    return Inputs(base, tuple(found[:-1]), found[-1])


def by_file(run_id: str) -> str:
    """Makes the run's adapter again wherever its inputs are, and says whether the bits are the same."""
    return f"sstmerge recipe {run_id} --out {NAME}\nsstmerge merge {NAME} --out merged"


def by_options(recipe: Recipe, workspace: Workspace) -> str | None:
    """One command with every setting in it; None where options cannot say it, or an input is not registered here.

    What it would make is planned and compared by its identity, so a command that is given makes the same weights.
    """
    entry = methods.get(recipe.method)
    if entry.kind == "reference" or len(recipe.adapters) < 2:
        return None
    entries = catalog.entries(workspace)
    found = inputs(recipe, catalog.bases(workspace), entries)
    names = [one.name for one in entries]
    if not isinstance(found, Inputs) or any(names.count(one.name) > 1 for one in (*found.experts, found.safety)):
        return None
    plan = preflight.plan(
        workspace,
        base=found.base,
        utility=found.experts[0],
        safety=found.safety,
        method=recipe.method,
        parameters=recipe.parameters,
        further=found.experts[1:],
        evaluate=False,
        options=preflight.Options(**preflight.how_to_compute(), **_chat(recipe)),  # as the command computes here
    )
    if plan.recipe is None or plan.recipe.run_id != recipe.model_copy(update={"evaluation": None}).run_id:
        return None
    changed = changed_parameters(recipe)
    words = ["sstmerge", "merge", "--base", found.base.name, "--utility", *(one.name for one in found.experts)]
    words += ["--safety", found.safety.name, "--method", recipe.method]
    for name in OPTIONS:
        if name in changed:
            words += [f"--{name}", changed.pop(name)]
    if changed:
        words += ["--set", *(f"{name}={value}" for name, value in changed.items())]
    return shlex.join([*words, *_chat_words(recipe), "--out", "merged"])


def _chat(recipe: Recipe) -> dict[str, Any]:
    """How prompts become text, as `preflight.Options` has it; nothing where it is the template's own."""
    chat = {} if recipe.chat == AS_THE_TEMPLATE else recipe.chat.model_dump()
    return chat | {"modules_to_save": recipe.modules_to_save}


def _chat_words(recipe: Recipe) -> list[str]:
    chat = recipe.chat
    thinking = {True: "yes", False: "no", None: ""}[chat.thinking]
    told = {"--system": chat.system, "--thinking": thinking, "--too-long": chat.too_long.replace("refuse", "")}
    told |= {"--modules-to-save": recipe.modules_to_save.replace("refuse", "")}
    return [word for name, value in told.items() if value for word in (name, value)]


def measuring(recipe: Recipe, workspace: Workspace) -> str | None:
    """The command that measures one adapter, or the base, alone as a run did; None for a merge."""
    if methods.get(recipe.method).kind != "reference" or recipe.method not in ("adapter", "base"):
        return None
    entries = {one.sha256: one.name for one in catalog.entries(workspace)}
    words = ["sstmerge", "evaluate"]
    if recipe.adapters:
        name = entries.get(recipe.adapters[0].sha256)
        if name is None:
            return None
        words += ["--adapter", name]
    suites = recipe.evaluation.suites if recipe.evaluation else ()
    if suites and suites[0].split != "test":
        words += ["--split", suites[0].split]
    if suites and suites[0].n != preflight.Options().n:
        words += ["--n", str(suites[0].n)]
    if under := [suite.attack for suite in suites if suite.attack]:
        words += ["--attacks", ",".join(under)]
    if recipe.evaluation and recipe.evaluation.backend == "vllm":
        words += ["--backend", "vllm"]
    if recipe.device:
        words += ["--device", recipe.device]
    usual = preflight.how_to_compute(recipe.device)
    for name in ("dtype", "applied"):
        if recipe.evaluation and (value := getattr(recipe.evaluation, name)) != usual[name]:
            words += [f"--{name}", value]
    if recipe.evaluation and recipe.evaluation.bits:
        words += ["--bits", str(recipe.evaluation.bits)]
    return shlex.join([*words, *_chat_words(recipe)])


def changed_parameters(recipe: Recipe) -> dict[str, str]:
    """The parameters that are not at their default, as text; α in any case."""
    entry = methods.get(recipe.method)
    complete = entry.complete(recipe.parameters)
    found = {one.name: complete[one.name] for one in entry.parameters}
    defaults = {one.name: one.default for one in entry.parameters}
    return {name: said(value) for name, value in found.items() if name == "alpha" or value != defaults[name]}


def said(value: Any) -> str:
    """A parameter's value as the command line and a link take it."""
    if isinstance(value, bool):
        return "1" if value else "0"
    return repr(value) if isinstance(value, float) else str(value)


def form(recipe: Recipe, found: Inputs, names: Mapping[str, str]) -> dict[str, Any]:
    """What the Merge page's link says of a recipe. `names`: SHA-256 of a base or adapter → its name in that form.

    Raises KeyError where a name is missing.
    """
    values: dict[str, Any] = {
        "base": names[found.base.sha256],
        "utility": names[found.experts[0].sha256],
        "safety": names[found.safety.sha256],
        "expert": [names[one.sha256] for one in found.experts[1:]],
        "method": recipe.method,
        **{name: said(value) for name, value in methods.get(recipe.method).complete(recipe.parameters).items()},
    }
    told = _measured(recipe)
    if "max_length" in told:
        told["length"] = told.pop("max_length")
    told["attack"] = list(told.pop("attacks", ()))
    if not told.get("device"):
        told.pop("device", None)
    if told.get("thinking", ...) is not ...:
        told["thinking"] = {True: "yes", False: "no", None: "template"}[told["thinking"]]
    return values | told


def not_in_the_form(recipe: Recipe, workspace: Workspace, found: Inputs) -> list[str]:
    """What of a recipe the Merge page has no field for and would set to its defaults, in words."""
    try:
        again = preflight.merge_recipe(
            found.base,
            found.experts,
            found.safety,
            recipe.method,
            recipe.parameters,
            preflight.Options(**_measured(recipe)),
        )
    except SSTMergeError as error:
        return [str(problem) for problem in error.problems]
    parts = {"calibration": "the calibration samples", "evaluation": "what it is measured on", "selection": "selection"}
    return [words for name, words in parts.items() if _identity(again, name) != _identity(recipe, name)]


def _measured(recipe: Recipe) -> dict[str, Any]:
    """What the form, and `preflight.Options`, are told of how a run is measured."""
    if recipe.evaluation is None or not recipe.evaluation.suites:
        return {}
    suites = recipe.evaluation.suites
    told: dict[str, Any] = {"split": suites[0].split, "n": max(suite.n for suite in suites)}
    told |= {"attacks": tuple(suite.attack for suite in suites if suite.attack)}
    told |= {"dtype": recipe.evaluation.dtype, "applied": recipe.evaluation.applied, "device": recipe.device}
    if recipe.calibration is not None:
        told["max_length"] = recipe.calibration.max_length
    if recipe.evaluation.bits:
        told["bits"] = recipe.evaluation.bits
    told |= _chat(recipe)
    return told | ({"backend": "vllm"} if recipe.evaluation.backend == "vllm" else {})


def _identity(recipe: Recipe, part: str) -> Any:
    only = {"calibration", "evaluation", "selection"} - {part}
    return recipe.model_copy(update=dict.fromkeys(only)).run_id
