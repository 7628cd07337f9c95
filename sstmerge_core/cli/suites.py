"""``sstmerge suites|academic``: which prompt sets are here and how to get the others; the academic benchmarks."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sstmerge_core import catalog, words
from sstmerge_core.builder import preflight
from sstmerge_core.cli import inputs
from sstmerge_core.cli.printing import line, table
from sstmerge_core.cli.records import ingest
from sstmerge_core.errors import DataError, Problem, RecipeError
from sstmerge_core.suites import attacks, declared, own, prepare
from sstmerge_core.suites.columns import parse
from sstmerge_core.suites.declared import METRICS, SPLITS, DeclaredSuite
from sstmerge_core.workspace import Workspace

_EXAMPLE = "How do I pick a lock?"
"""What attacks are shown on"""


def register(command: Any) -> None:
    """Add the commands; `command` makes a parser from name, function and description."""
    suites = command("suites", _suites, "List the prompt suites: which are here, and the exact way to get the others.")
    suites.add_argument(
        "name", nargs="?", help="one suite, or a YAML file, in full; harmful+prefill is harmful under an attack"
    )
    suites.add_argument("--fetch", action="store_true", help="get the rows from the Hugging Face hub, once")
    suites.add_argument("--add", type=Path, metavar="FILE", help="make a file of prompts a suite; needs --role")
    suites.add_argument("--role", choices=list(own.ROLES), help="what the prompts are")
    suites.add_argument("--metric", default="", help="of a task; default: rouge_l. bertscore:FOLDER#9: by your encoder")
    suites.add_argument("--columns", metavar="MAP", help="such as prompt=question,response=answer")
    suites.add_argument("--shares", metavar="SPLITS", help="such as selection=0.4,test=0.6, by a stable hash")
    suites.add_argument("--max-new-tokens", type=int, default=48, help="longest answer to a task, default 48")
    suites.add_argument("--licence", default="not stated")
    suites.add_argument("--remove", action="store_true", help="move a suite of your own into the trash")
    suites.add_argument("--json", action="store_true", help="one JSON object per suite")

    academic = command("academic", _academic, "Measure MMLU, BBH, GSM8K, HumanEval … by lm-evaluation-harness.")
    academic.add_argument("--tasks", required=True, help="academic suites or tasks of the harness, with commas")
    academic.add_argument("--run", dest="run_id", metavar="RUN", help="a finished run, as it was merged")
    academic.add_argument("--adapter", help="name or folder; without it and --run the base model is measured")
    academic.add_argument("--base", help="base model folder; default: the bundled one")
    academic.add_argument("--limit", type=int, help="problems of each task; default: all")
    academic.add_argument("--few-shot", type=int, help="examples before each problem; default: the task's own")
    academic.add_argument("--batch-size", type=int, default=8)
    academic.add_argument("--samples", type=int, default=1, help="answers a problem where code is run, for pass@10")
    academic.add_argument("--chat", action="store_true", help="put the model's chat template around the prompts")
    academic.add_argument("--include", type=Path, metavar="DIR", help="a folder with task files of your own")
    academic.add_argument("--execute-code", action="store_true", help="run generated code, in a sandboxed process")
    academic.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    academic.add_argument("--device", default="auto")
    academic.add_argument("--json", action="store_true", help="one JSON object per metric")


def _suites(options: argparse.Namespace, workspace: Workspace) -> None:
    if options.add:
        _add(options, workspace)
        return
    if options.remove:
        if not options.name:
            raise RecipeError(Problem("--remove", "needs a suite", "Name one: `sstmerge suites NAME --remove`."))
        print(workspace.trash / own.remove(workspace, options.name))
        return
    if options.name:
        name, under = attacks.parted(options.name) if attacks.BETWEEN in options.name else (options.name, ())
        suite = declared.get(name, workspace)
        if under and suite.role != "harmful":
            fix = f"Attacks: {', '.join(attacks.names())}."
            raise RecipeError(Problem(f"suite {options.name}", f"is under attack, but {suite.role}", fix))
        if options.fetch and suite.sources:
            prepare.prepare(suite, workspace)
        told = _told(suite, workspace)
        told |= {"attacks": {name: asdict(attacks.get(name).asks(_EXAMPLE)) for name in under}} if under else {}
        print(json.dumps(told, ensure_ascii=False)) if options.json else _show(told)
        for name in under if not options.json else ():
            one = attacks.get(name)
            print(
                f"\n{attacks.BETWEEN}{name}: {one.help} {one.paper}\n{textwrap.indent(one.asks(_EXAMPLE).told, '    ')}"
            )
        return
    if options.fetch:
        raise RecipeError(Problem("--fetch", "needs a suite", "Name one: `sstmerge suites NAME --fetch`."))
    rows: list[dict[str, Any]] = []
    unusable: list[Problem] = []
    for found in declared.suites(workspace):
        if isinstance(found, DataError):
            unusable += found.problems
        else:
            rows.append(_told(found, workspace))
    if options.json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
    else:
        columns = ("suite", "role", "rows", *SPLITS, "metric", "judge", "licence", "from")
        table(columns, [_cells(row) for row in rows])
        print("How to get one that is not here: `sstmerge suites NAME`.")
    if unusable:
        raise DataError(unusable)


def _add(options: argparse.Namespace, workspace: Workspace) -> None:
    """A file of the user's becomes a suite, under the name given or the file's own."""
    if not options.role:
        raise RecipeError(Problem("--role", "is missing", f"Say what the prompts are: {', '.join(own.ROLES)}."))
    name = options.name or own.usable_name(options.add.name)
    suite = own.OwnSuite(
        name,
        options.role,
        metric=options.metric,
        columns=parse(options.columns) if options.columns else None,
        shares=_shares(options.shares),
        max_new_tokens=options.max_new_tokens,
        licence=options.licence,
    )
    told = _told(own.add(workspace, options.add, suite), workspace)
    print(json.dumps(told, ensure_ascii=False)) if options.json else _show(told)


def _shares(text: str | None) -> dict[str, float]:
    """``selection=0.4,test=0.6`` → shares; nothing of nothing. Raises RecipeError."""
    shares: dict[str, float] = {}
    for part in filter(None, (text or "").split(",")):
        split, _, share = part.partition("=")
        try:
            shares[split.strip()] = float(share)
        except ValueError:
            fix = "Write for example selection=0.4,test=0.6."
            raise RecipeError(Problem(f"--shares {words.shortened(part)}", "is no split with its share", fix)) from None
    return shares


def _told(suite: DeclaredSuite, workspace: Workspace) -> dict[str, Any]:
    """A suite as one flat object; nothing is fetched for it."""
    told: dict[str, Any] = {
        **suite.model_dump(
            include={"name", "title", "role", "metric", "encoder", "judge", "licence", "citation", "note"}
        ),
        "found": False,
        "get": suite.how_to_get(workspace),
    }
    if suite.role == "academic":
        return told | {"judge": "", "why": f"lm-evaluation-harness, task {suite.harness.task if suite.harness else ''}"}
    try:
        found = prepare.prepare(suite, workspace, fetch=False)
    except DataError as error:
        return told | {"why": "; ".join(problem.fault for problem in error.problems)}
    about = {"origin": found.origin, "path": str(found.path), "n": found.n, "splits": found.splits}
    return told | {"found": True, **about, "sha256": found.sha256, "dropped": found.dropped}


def _cells(told: dict[str, Any]) -> list[str]:
    splits = told.get("splits", {})
    here = told["origin"] if told["found"] else ("by the harness" if told["role"] == "academic" else "not here")
    judge = told["judge"] if told["metric"] == "refusal" else "–"
    counts = [str(splits.get(split, "–")) for split in SPLITS]
    licence = textwrap.shorten(told["licence"], 30, placeholder=" …")
    return [told["name"], told["role"], str(told.get("n", "–")), *counts, told["metric"], judge, licence, here]


def _show(told: dict[str, Any]) -> None:
    print(f"{told['title']} ({told['name']}, {told['role']})")
    if told["found"]:
        splits = ", ".join(f"{split or 'no split'} {n}" for split, n in told["splits"].items())
        repeats = f"; {words.count(told['dropped'], 'repeated prompt')} left out" if told["dropped"] else ""
        print(f"rows: {told['n']} from {told['origin']}: {splits}{repeats}")
        print(f"file: {told['path']}\nSHA-256: {told['sha256']}")
    else:
        print(f"rows: {told['why']}\nget: {told['get']}")
    encoder = f" ({told['encoder']})" if told["encoder"] else ""
    print(f"metric: {told['metric']}{encoder}: {METRICS[told['metric']]}")
    if told["metric"] == "refusal":
        print(f"judge: {told['judge']}")
    print(f"licence: {told['licence']}")
    for name in ("citation", "note"):
        if told[name]:
            print(f"{name}: {told[name]}")


def _academic(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core.evaluate import academic
    from sstmerge_core.worker import academic as benchmark

    if options.run_id and (options.adapter or options.base):
        raise RecipeError(Problem("--run", "names its own base and adapters", "Leave --adapter and --base out."))
    names = [name.strip() for name in options.tasks.split(",") if name.strip()]
    tasks = academic.harnesses(names, workspace)
    academic.check(tasks, options.execute_code)  # before the base model is converted or hashed
    if options.run_id:
        recipe = benchmark.recipe_of(options.run_id, workspace)
    else:
        base = inputs.base(options.base, workspace)
        adapter = catalog.find(workspace, options.adapter) if options.adapter else None
        recipe = preflight.single_recipe(base, adapter, "facts").model_copy(update={"evaluation": None})
    settings = benchmark.Settings(
        options.limit,
        options.few_shot,
        options.batch_size,
        options.include,
        options.samples,
        options.chat,
        options.execute_code,
    )
    try:
        rows = benchmark.measure(
            recipe,
            workspace,
            tasks,
            settings,
            dtype=options.dtype,
            device=options.device,
            progress=lambda task: line(f"{task} …", True),
        )
    finally:
        ingest(workspace)
    if options.json:
        for row in rows:
            print(json.dumps({"run_id": recipe.run_id} | row, ensure_ascii=False))
        return
    shown = [
        (
            row["suite"],
            row["metric"],
            f"{row['value']:.3f}",
            "–" if row["ci_low"] is None else f"{row['ci_low']:.3f}–{row['ci_high']:.3f}",
            str(row["n"]),
        )
        for row in rows
    ]
    table(("task", "metric", "value", "95 % interval", "n"), shown)
    print(f"Run {recipe.run_id}, {rows[0]['judge'] if rows else ''}.", file=sys.stderr)
