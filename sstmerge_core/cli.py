"""The command line: ``sstmerge demo|merge|evaluate|sweep|train|adapters|jobs|query|db``.

Exit codes: 0 done; 2 wrong usage, method or parameter; 3 adapter; 4 data or base model; 5 database; 6 job; 130 stopped.
Errors go to standard error, one line each; results go to standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sstmerge_core import __version__, catalog, grid, methods, preflight, words
from sstmerge_core.demo.runs import DEMO_PAIR
from sstmerge_core.errors import JobError, Problem, RecipeError, SSTMergeError
from sstmerge_core.recipe import Recipe
from sstmerge_core.store.events import read_events
from sstmerge_core.workspace import Workspace

DEMO_METHODS = ("linear", "task_arithmetic", "sst_gevp")
DEMO_ALPHA = 0.6
SUMMARY = ("resistance", "asr", "over_refusal", "degenerate", "rouge_l")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    workspace = Workspace.default()
    try:
        return options.run(options, workspace.create()) or 0
    except SSTMergeError as error:
        for problem in error.problems:
            print(f"sstmerge: {' '.join(str(problem).split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("sstmerge: stopped; launch it again to go on where it stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sstmerge", description="Merge safety adapters and measure what they cost.")
    parser.add_argument("--version", action="version", version=f"sstmerge {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[..., Any], about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about)
        added.set_defaults(run=run)
        return added

    demo = command("demo", _demo, "Merge the bundled adapters three ways, measure, store, and print a table.")
    demo.add_argument("--prepare", action="store_true", help="only convert the base model and import what ships")
    demo.add_argument("--pair", default=DEMO_PAIR, help=f"two bundled adapters, default {DEMO_PAIR}")
    demo.add_argument("--alpha", default=DEMO_ALPHA, help=f"default {DEMO_ALPHA}")
    _measuring(demo)

    merge = command("merge", _merge, "Merge a utility and a safety adapter into a PEFT adapter.")
    _trio(merge)
    merge.add_argument("--method", required=True, help=", ".join(methods.names()))
    merge.add_argument("--alpha", required=True)
    merge.add_argument("--k")
    merge.add_argument("--seed")
    merge.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", action="extend", help="further parameters")
    merge.add_argument("--out", required=True, type=Path, help="folder of the merged adapter")
    merge.add_argument("--suite", default="", help="utility prompts for the benign Fisher: a bundled suite or a JSONL")
    merge.add_argument("--device", default="auto")

    evaluate = command("evaluate", _evaluate, "Measure an adapter, or the base model, on its own.")
    evaluate.add_argument("--base", help="base model folder; default: the bundled one")
    evaluate.add_argument("--adapter", help="name or folder; without it the base model is measured")
    evaluate.add_argument("--suite", default="", help="utility suite: facts, instructions, or a JSONL file")
    _measuring(evaluate)

    sweep = command("sweep", _sweep, "Run a grid of methods, α, k and seeds; finished points are skipped.")
    _trio(sweep)
    sweep.add_argument("--methods", required=True, help="names with commas")
    sweep.add_argument("--alphas", required=True, help="such as 0.1,0.3 or 0.1:1.0:0.1")
    sweep.add_argument("--strengths", help="α of the strength methods; default: as --alphas")
    sweep.add_argument("--ks", default="", help="such as 5,10,20")
    sweep.add_argument("--seeds", default="", help="such as 42,43,44")
    sweep.add_argument("--detach", action="store_true", help="put it into the queue and return its job id")
    sweep.add_argument("--dry-run", action="store_true", help="only say what would run and how long it would take")
    _measuring(sweep)

    train = command("train", _train, "Train a LoRA adapter on a JSONL or CSV file of prompts and responses.")
    train.add_argument("--demo", metavar="NAME", help="make a bundled adapter again: A5, A6, A7, A7_balanced")
    train.add_argument("--base", help="base model folder; default: the bundled one")
    train.add_argument("--data", nargs="+", help="files with the columns prompt and response")
    train.add_argument("--split", help="take only the rows of this split")
    train.add_argument("--out", required=True, type=Path)
    train.add_argument("--name", default="")
    train.add_argument("--role", choices=["utility", "safety", ""], default="")
    train.add_argument("--rank", type=int, default=8)
    train.add_argument("--epochs", type=float, default=4)
    train.add_argument("--learning-rate", type=float, default=1e-3)
    train.add_argument("--batch-size", type=int, default=16)
    train.add_argument("--seed", type=int, default=42)
    train.add_argument("--device", default="auto")

    shelf = command("adapters", _adapters, "List, add, remove and check adapters.")
    actions = shelf.add_subparsers(dest="action", metavar="list|add|remove|check|add-base")
    actions.add_parser("list", help="the known adapters")
    add = actions.add_parser("add", help="register a folder")
    add.add_argument("path")
    add.add_argument("--name")
    add.add_argument("--role", choices=["utility", "safety"])
    add.add_argument("--suite", default="", help="what measures its task: facts, instructions, or a JSONL file")
    actions.add_parser("remove", help="take one off the list").add_argument("name")
    _trio(actions.add_parser("check", help="whether two adapters and a base fit together"))
    actions.add_parser("add-base", help="register a base model's folder").add_argument("path")

    queue = command("jobs", _jobs, "List, watch, cancel and resume queued jobs.")
    queue.add_argument("action", nargs="?", choices=["list", "log", "cancel", "resume"], default="list")
    queue.add_argument("job", nargs="?")

    query = command("query", _query, "Run one SELECT over the accumulated database.")
    query.add_argument("sql")
    query.add_argument("--format", choices=["table", "csv", "json"], default="table")
    query.add_argument("--limit", type=int, default=1000)

    db = command("db", _db, "Maintain the database.")
    db.add_argument("action", choices=["rebuild", "ingest"])
    return parser


def _trio(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", help="base model folder; default: the bundled one")
    parser.add_argument("--utility", required=True, help="name or folder")
    parser.add_argument("--safety", required=True, help="name or folder")


def _measuring(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--split", default="test", choices=["selection", "test"], help="which held-out prompts")
    parser.add_argument("--n", type=int, default=64, help="prompts per suite, default 64")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true", help="one JSON object per run")


def _demo(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core.demo import model, runs

    if not model.is_ready(workspace):
        print("Converting the bundled base model once (about half a minute) …", file=sys.stderr)
        model.prepare(workspace)
    runs.install(workspace)
    base = catalog.bases(workspace)[0]
    if options.prepare:
        _store(workspace)
        return
    names = options.pair.split("_", 1)
    if len(names) < 2:
        raise RecipeError(Problem(f"pair {options.pair}", "does not name two adapters", "For example A5_A7."))
    utility, safety = (catalog.find(workspace, name) for name in names)
    plans = [
        preflight.plan(
            workspace,
            base=base,
            utility=utility,
            safety=safety,
            method=method,
            parameters={"alpha": options.alpha},
            options=_options(options),
        )
        for method in DEMO_METHODS
    ]
    _raise(problem for plan in plans for problem in plan.problems)
    _execute([plan.recipe for plan in plans if plan.recipe], workspace, options)


def _merge(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core.jobs import execute

    base, utility, safety = _inputs(options, workspace)
    given = {"alpha": options.alpha, "k": options.k, "seed": options.seed}
    parameters = {name: value for name, value in given.items() if value is not None} | _assignments(options.set)
    wanted = preflight.Options(utility_suite=options.suite)
    plan = preflight.plan(
        workspace,
        base=base,
        utility=utility,
        safety=safety,
        method=options.method,
        parameters=parameters,
        evaluate=False,
        options=wanted,
    )
    _raise(plan.problems)
    for warning in plan.warnings:
        print(f"sstmerge: note: {warning}", file=sys.stderr)
    assert plan.recipe is not None
    written, errors = execute.merge_to(plan.recipe, workspace, options.out, device=options.device, report=_progress([]))
    weights = plan.recipe.label
    print(f"{written.path}: {weights}, {words.size(written.bytes)}, SHA-256 {written.sha256[:16]}, read back and equal")
    for row in errors:
        if row["module"] == "":
            print(f"The element-wise result is not low-rank: relative error of the adapter {row['value']:.3f}.")


def _evaluate(options: argparse.Namespace, workspace: Workspace) -> None:
    base = _base(options.base, workspace)
    adapter = catalog.find(workspace, options.adapter) if options.adapter else None
    suite = options.suite or (adapter.suite if adapter and adapter.role == "utility" else "") or "facts"
    _execute([preflight.single_recipe(base, adapter, suite, _options(options))], workspace, options)


def _sweep(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core import jobs

    base, utility, safety = _inputs(options, workspace)
    plan = preflight.plan_sweep(
        workspace,
        base,
        utility,
        safety,
        methods=[name.strip() for name in options.methods.split(",") if name.strip()],
        alphas=grid.numbers(options.alphas, where="--alphas"),
        strengths=grid.numbers(options.strengths, where="--strengths") if options.strengths else None,
        ks=[int(k) for k in grid.numbers(options.ks, where="--ks", whole=True)],
        seeds=[int(seed) for seed in grid.numbers(options.seeds, where="--seeds", whole=True)],
        options=_options(options),
    )
    _raise(plan.problems)
    print(
        f"{words.count(plan.points, 'point')}, {plan.skipped} known already, about {words.duration(plan.seconds)}.",
        file=sys.stderr,
    )
    if options.dry_run or not plan.recipes:
        return
    if options.detach:
        name = f"Sweep {utility.name}_{safety.name}: {words.count(len(plan.recipes), 'run')}"
        print(jobs.submit(workspace, plan.recipes, name=name, kind="sweep"))
        return
    _execute(plan.recipes, workspace, options)


def _train(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core import adapters
    from sstmerge_core.demo import adapters as demo
    from sstmerge_core.device import best_device
    from sstmerge_core.evaluate import suites
    from sstmerge_core.train import TrainingSettings, train

    device = best_device() if options.device == "auto" else options.device
    base = _base(options.base, workspace)
    name = adapters.read_base(base.path).name
    begun = time.monotonic()

    def progress(step: int, steps: int, loss: float) -> None:
        left = (time.monotonic() - begun) / step * (steps - step)
        _line(f"step {step}/{steps}, loss {loss:.3f}, {words.duration(left)} left", step == steps)

    if options.demo:
        demo.make(demo.get(options.demo), base.path, options.out, base_name=name, device=device, progress=progress)
    else:
        if not options.data:
            raise RecipeError(Problem("--data", "is missing", "Give a file with prompt and response, or --demo NAME."))
        rows = [row for path in options.data for row in suites.load_rows(path, options.split)]
        settings = TrainingSettings(
            r=options.rank,
            lora_alpha=2 * options.rank,
            learning_rate=options.learning_rate,
            epochs=options.epochs,
            batch_size=options.batch_size,
            seed=options.seed,
        )
        record = {"name": options.name or options.out.name, "role": options.role}
        pairs = [(row.prompt, row.response) for row in rows]
        train(base.path, pairs, options.out, settings, base_name=name, record=record, device=device, progress=progress)
    print(options.out)


def _adapters(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core import adapters

    if options.action == "add":
        added = catalog.add(workspace, options.path, options.name, options.role, options.suite)
        print(f"{added.name}: rank {added.rank}, {added.modules} modules, SHA-256 {added.sha256[:16]}")
    elif options.action == "add-base":
        print(catalog.add_base(workspace, options.path).name)
    elif options.action == "remove":
        catalog.remove(workspace, catalog.find(workspace, options.name).sha256)
    elif options.action == "check":
        base, utility, safety = _inputs(options, workspace)
        report = adapters.check_pair(base.path, utility.path, safety.path)
        for name, value in report.facts.items():
            print(f"{name}: {value}")
        for warning in report.warnings:
            print(f"note: {warning}")
        _raise(report.problems)
        print("The three fit together.")
    else:
        found = catalog.entries(workspace)
        rows = [(e.name, e.role or "–", e.suite or "–", str(e.rank), e.base_name, e.description) for e in found]
        _table(("name", "role", "suite", "rank", "base", "description"), rows)


def _jobs(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core import jobs

    if options.action == "list":
        rows = [
            (job.job_id, job.state, f"{job.progress:.0%}", words.duration(job.eta_seconds), job.name, job.error or "")
            for job in jobs.jobs(workspace)
        ]
        _table(("job", "state", "done", "left", "name", "error"), rows)
        return
    if not options.job:
        raise JobError(Problem("job", "no id was given", "`sstmerge jobs` lists them."))
    if jobs.job(workspace, options.job) is None:
        raise JobError(Problem(f"job {options.job}", "there is no such job", "`sstmerge jobs` lists them."))
    if options.action == "log":
        print(jobs.log_tail(workspace, options.job, 400))
    else:
        {"cancel": jobs.cancel, "resume": jobs.resume}[options.action](workspace, options.job)


def _query(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core import store

    _store(workspace)
    result = store.run_sql(workspace, options.sql, limit=options.limit)
    if options.format == "json":
        for row in result.rows:
            print(json.dumps(dict(zip(result.columns, row, strict=True)), default=str, ensure_ascii=False))
    elif options.format == "csv":
        import csv

        writer = csv.writer(sys.stdout)
        writer.writerow(result.columns)
        writer.writerows(result.rows)
    else:
        _table(result.columns, [["" if value is None else str(value) for value in row] for row in result.rows])
    if result.truncated:
        print(f"Only the first {options.limit:,} rows are shown; --limit gives more.", file=sys.stderr)


def _db(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core import store

    if options.action == "rebuild":
        store.rebuild(workspace)
    _store(workspace)


def _base(path: str | None, workspace: Workspace) -> catalog.Base:
    """The base model in a folder, or the bundled one, made ready where it is not."""
    if path:
        known = {base.name: base for base in catalog.bases(workspace)}
        return known.get(path) or catalog.base_at(path, workspace)
    from sstmerge_core.demo import model

    model.prepare(workspace)
    return catalog.bases(workspace)[0]


def _inputs(options: argparse.Namespace, workspace: Workspace) -> tuple[catalog.Base, catalog.Entry, catalog.Entry]:
    """Base and both adapters; the problems of all three at once."""
    problems: list[Problem] = []
    found: list[Any] = []
    code: type[SSTMergeError] = RecipeError
    for look, value in (
        (_base, options.base),
        (lambda name, place: catalog.find(place, name), options.utility),
        (lambda name, place: catalog.find(place, name), options.safety),
    ):
        try:
            found.append(look(value, workspace))
        except SSTMergeError as error:
            problems += error.problems
            code = type(error)
    if problems:
        raise code(problems)
    return tuple(found)


def _options(options: argparse.Namespace) -> preflight.Options:
    if options.n < 1:
        raise RecipeError(Problem("--n", f"{options.n} prompts measure nothing", "Give at least 1."))
    return preflight.Options(split=options.split, n=options.n, dtype=options.dtype)


def _assignments(texts: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    _raise(Problem(f"--set {name}", "has no value", "Write KEY=VALUE.") for name, equals, _ in pairs if not equals)
    return {name: value for name, _, value in pairs}


def _raise(problems: Any) -> None:
    """Raise what preflight found, under the exit code of its kind."""
    found = list(dict.fromkeys(problems))
    if found:
        from sstmerge_core.errors import AdapterError, DataError

        about = found[0].where
        kind = RecipeError if about.startswith(("parameter", "method", "--")) else AdapterError
        raise (DataError if about.startswith("base model") else kind)(found)


def _execute(recipes: list[Recipe], workspace: Workspace, options: argparse.Namespace) -> None:
    """Carry out recipes in the foreground, store them, and print them."""
    if not all(preflight.is_finished(workspace, recipe) for recipe in recipes):
        from sstmerge_core.jobs.execute import execute

        try:
            execute(recipes, workspace, report=_progress(recipes), device=options.device)
        finally:
            _line("", True)
            _store(workspace)
    else:
        _store(workspace)
    found = [summary(workspace, recipe) for recipe in recipes]
    if options.json:
        for row in found:
            print(json.dumps(row, ensure_ascii=False))
        return
    rows = [
        (
            row["label"],
            *(f"{row[name]:.3f}" if row[name] is not None else "–" for name in SUMMARY),
            str(row["resistance_n"] or ""),
            row["run_id"],
        )
        for row in found
    ]
    _table(("run", "resistance ↑", "ASR ↓", "over-refusal ↓", "degenerate ↓", "ROUGE-L ↑", "n", "id"), rows)
    judge = recipes[0].evaluation.judge if recipes and recipes[0].evaluation else ""
    print(f"Judge {judge}; a lexical judge cannot tell harm, so it gives no ASR. Intervals: `sstmerge query`.")


def summary(workspace: Workspace, recipe: Recipe) -> dict[str, Any]:
    """A finished run as one flat object: identity, the main metrics with their n, dtype and seconds."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    seconds = None
    for event in read_events(workspace.run(recipe.run_id)):
        if event["event"] == "metrics":
            rows |= {(row["metric"], row["suite"]): row for row in event["rows"]}
        elif event["event"] == "run_finished":
            seconds = event["seconds"]
    evaluation = recipe.evaluation
    suites = {suite.role: suite.name for suite in evaluation.suites} if evaluation else {}
    places = {
        "resistance": suites.get("harmful"),
        "asr": suites.get("harmful"),
        "over_refusal": suites.get("benign"),
        "degenerate": "all",
        "rouge_l": suites.get("utility"),
    }
    found: dict[str, Any] = {
        "run_id": recipe.run_id,
        "pair": recipe.pair,
        "method": recipe.method,
        "label": recipe.label,
        "alpha": recipe.parameters.get("alpha"),
    }
    for metric, suite in places.items():
        row = rows.get((metric, suite or ""), {})
        found |= {metric: row.get("value"), f"{metric}_n": row.get("n")}
        if row.get("ci_low") is not None:
            found[f"{metric}_ci"] = [row["ci_low"], row["ci_high"]]
        if row.get("status", "ok") != "ok":
            found[f"{metric}_status"] = row["status"]
    return found | {"dtype": evaluation.dtype if evaluation else None, "seconds": seconds}


def _store(workspace: Workspace) -> None:
    """Take new events into DuckDB and publish them; where a server owns the database it does that itself."""
    from sstmerge_core import store

    connection = store.connect(workspace)
    try:
        connection.ingest()
        connection.publish()
    finally:
        connection.close()


def _progress(recipes: Sequence[Recipe]) -> Callable[[int, str, float, float], None]:
    from sstmerge_core.jobs.model import stage_text

    def report(point: int, stage: str, done: float, total: float) -> None:
        label = f"{point + 1}/{len(recipes)} {recipes[point].label}: " if recipes else ""
        _line(f"{label}{stage_text(stage, done, total)}", False)

    return report


def _line(text: str, last: bool) -> None:
    """One line that is written over on a terminal, and a line each in a log."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="\n" if last and text else "", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(str(row[index])) for row in [columns, *rows]) for index in range(len(columns))]
    for row in [columns, ["─" * width for width in widths], *rows]:
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
