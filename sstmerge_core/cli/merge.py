"""``sstmerge merge|recipe``: make a merged adapter or model, and the file that makes it again."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from sstmerge_core import methods, words
from sstmerge_core.builder import chosen_suites, preflight, recipe_file
from sstmerge_core.builder.recipe_file import Output, RecipeFile
from sstmerge_core.cli import inputs
from sstmerge_core.cli.printing import progress, raise_found, tell_notes
from sstmerge_core.errors import JobError, Problem, RecipeError
from sstmerge_core.merge.cautions import cautions
from sstmerge_core.models.device import DTYPES
from sstmerge_core.recipe import Recipe
from sstmerge_core.store.events import last_status
from sstmerge_core.suites import prepare
from sstmerge_core.workspace import Workspace, write_file

_ERRORS = {
    "rank_error": "Of this rank it is an approximation: relative error {:.2e}.",
    "rounding_error": "Rounding to this number format cost a relative error of {:.2e}.",
}
_OF_A_RECIPE = (
    *("utility", "safety", "method", "alpha", "k", "seed", "set", "suite", "compute_dtype", "max_length"),
    *("system", "thinking", "too_long", "modules_to_save"),
)
"""Options that a recipe file answers by itself"""


def register(command: Any) -> None:
    """Add the commands; `command` makes a parser from name, function and description."""
    merge = command("merge", _merge, "Merge utility and safety adapters into a PEFT adapter, or into a whole model.")
    merge.add_argument("recipe", nargs="?", type=Path, help="a recipe.yaml to make again, instead of what follows")
    inputs.add_trio(merge, required=False)
    about = "for methods with a safe direction: the model that the base was aligned from; default: ΔS stands in"
    merge.add_argument("--unaligned", metavar="DIR", help=about)
    merge.add_argument("--method", help=", ".join(methods.names()))
    merge.add_argument("--alpha")
    merge.add_argument("--k")
    merge.add_argument("--seed")
    merge.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", action="extend", help="further parameters")
    merge.add_argument("--suite", default="", help="for the benign Fisher: a suite of `sstmerge suites`, or a file")
    inputs.add_columns(merge)
    for option, value in (("--adapter", "NAME=DIR"), ("--data", "NAME=FILE")):
        about = "where an input of the recipe lies, if it is not registered here"
        merge.add_argument(option, nargs="+", default=[], metavar=value, action="extend", help=about)
    merge.add_argument("--out", required=True, type=Path, help="folder of the result")
    merge.add_argument("--dtype", help="float32 (default), bfloat16, float16, auto (as the inputs are)")
    merge.add_argument("--compute-dtype", choices=["auto", *DTYPES], help="of the model whose gradients are taken")
    inputs.add_max_length(merge)
    inputs.add_chat(merge)
    merge.add_argument("--rank", type=int, help="compress the adapter to this rank; default, and 0: exact")
    merge.add_argument("--dense", action="store_true", help="write base + ΔW as a model of its own (--dtype auto)")
    merge.add_argument("--licence", default="", metavar="TEXT", help="note on the licence, for the model card")
    merge.add_argument("--device", default="auto")

    recipe = command("recipe", _recipe, "Print the recipe of a finished run as YAML.")
    recipe.add_argument("run_id")
    recipe.add_argument("--out", type=Path, help="write it to this file instead")


def _merge(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core.runs import execute

    known = _of_file(options, workspace) if options.recipe else RecipeFile(_of_options(options, workspace))
    output = _output(options, known.output)
    raise_found(output.problems())
    recipe = _located(options, known.recipe, output, workspace) if options.recipe else known.recipe
    written, errors = execute.merge_to(
        recipe, workspace, options.out, output=output, device=options.device, report=progress([])
    )
    files = ", ".join(f"{name} SHA-256 {sha256[:16]}" for name, sha256 in list(written.weights.files.items())[:3])
    print(f"{written.path}: {recipe.label}, {words.size(written.bytes)}, {files}, read back and equal")
    for row in errors:
        if row["module"] == "" and row["stat"] in _ERRORS:
            print(_ERRORS[row["stat"]].format(row["value"]))
    for caution in cautions(errors):
        print(f"sstmerge: note: {caution}", file=sys.stderr)
    if known.files and output == known.output:
        same = known.files == written.weights.files
        print("The same bits as the recipe's." if same else "Not the bits of the recipe's: see its versions.")


def _of_options(options: argparse.Namespace, workspace: Workspace) -> Recipe:
    missing = [name for name in ("utility", "safety", "method") if not getattr(options, name)]
    if missing:
        fix = "Give base, adapters and method, or the recipe.yaml of a merged adapter."
        raise RecipeError([Problem(f"--{name}", "is missing", fix) for name in missing])
    if options.adapter or options.data:
        raise RecipeError(Problem("--adapter, --data", "are only for a recipe file", "Use --utility and --safety."))
    given = {"alpha": options.alpha, "k": options.k, "seed": options.seed}
    parameters = {name: value for name, value in given.items() if value is not None}
    plan = preflight.plan(
        workspace,
        **inputs.merge_inputs(options, workspace).plan,
        method=options.method,
        parameters=parameters | inputs.assignments(options.set, "--set"),
        evaluate=False,
        unaligned=inputs.base(options.unaligned, workspace) if options.unaligned else None,
        options=preflight.Options(
            utility_suite=chosen_suites.suite(options.suite, "utility", workspace, columns=inputs.columns(options))[0],
            **inputs.computing(options, options.compute_dtype or "auto"),
            **inputs.chat(options),
        ),
    )
    raise_found(plan.problems)
    tell_notes(plan.warnings)
    assert plan.recipe is not None
    return plan.recipe


def _of_file(options: argparse.Namespace, workspace: Workspace) -> RecipeFile:
    if extra := [name for name in _OF_A_RECIPE if getattr(options, name)]:
        fix = "Edit the recipe file, or leave it out."
        named = [f"--{name.replace('_', '-')}" for name in extra]
        raise RecipeError([Problem(name, "cannot be given beside a recipe file", fix) for name in named])
    known = recipe_file.read_recipe(options.recipe)
    if methods.get(known.recipe.method).kind == "reference":
        fault = "describes a measurement of one adapter or of the base, not a merge"
        raise RecipeError(Problem(str(options.recipe), fault, "Give the recipe of a merge."))
    return known


def _located(options: argparse.Namespace, recipe: Recipe, output: Output, workspace: Workspace) -> Recipe:
    entry = methods.get(recipe.method)
    data = inputs.assignments(options.data, "--data")
    if columns := inputs.columns(options):
        data = {name: str(prepare.mapped(file, columns, workspace)) for name, file in data.items()}
    return recipe_file.locate(
        recipe,
        workspace,
        base=inputs.base(options.base, workspace) if options.base else None,
        unaligned=inputs.base(options.unaligned, workspace) if options.unaligned else None,
        given=inputs.assignments(options.adapter, "--adapter") | data,
        needs_base=bool(entry.needs_samples or entry.needs_base or recipe.unaligned or output.kind == "model"),
    )


def _output(options: argparse.Namespace, known: Output) -> Output:
    """What the options say, and where they say nothing, what the recipe file says."""
    output = replace(known, licence=options.licence or known.licence)
    if options.dense and known.kind != "model":
        output = replace(output, kind="model", dtype="auto", rank=None)
    if options.dtype:
        output = replace(output, dtype=options.dtype)
    return output if options.rank is None else replace(output, rank=options.rank or None)


def _recipe(options: argparse.Namespace, workspace: Workspace) -> None:
    text = _of_run(options.run_id, workspace)
    if options.out:
        write_file(options.out, text)
        print(options.out)
    else:
        print(text, end="")


def _of_run(run_id: str, workspace: Workspace) -> str:
    """The recipe file that the run's adapter carries; for a run without an adapter, from its events."""
    known = {folder.name for folder in workspace.run_folders()}
    status = last_status(workspace.run(run_id)) if run_id in known else None
    if status != "finished":
        fault = f"is {status}, not finished" if status else "is not known here"
        raise JobError(Problem(f"run {run_id}", fault, '`sstmerge query "SELECT run_id, label FROM runs"` lists them.'))
    return recipe_file.of_run(workspace, run_id)
