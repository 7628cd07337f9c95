"""``sstmerge demo|evaluate|sweep``: run recipes, store them, print what they scored."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from sstmerge_core import catalog, metrics, words
from sstmerge_core.analysis.screening import FIGURES, Screening
from sstmerge_core.builder import grid, preflight
from sstmerge_core.cli import inputs
from sstmerge_core.cli.prepared import prepare_demo
from sstmerge_core.cli.printing import line, progress, raise_found, table, tell_notes
from sstmerge_core.cli.records import ingest
from sstmerge_core.errors import JobError, Problem, RecipeError
from sstmerge_core.jobs.backends import LOCAL
from sstmerge_core.jobs.model import Job
from sstmerge_core.recipe import KEPT, KEPT_OF_MANY, Recipe, kept_of_many, with_kept
from sstmerge_core.runs.outcome import outcome
from sstmerge_core.upkeep.shipped import DEMO_ALPHA, DEMO_METHODS, DEMO_PAIR
from sstmerge_core.workspace import Workspace

FOLLOW_SECONDS = 0.5
"""Between two looks at a job that others carry out"""
SUMMARY = ("resistance", "asr", "over_refusal", "degenerate")


def register(command: Any) -> None:
    """Add the commands; `command` makes a parser from name, function and description."""
    demo = command("demo", _demo, "Merge the bundled adapters three ways, measure, store, and print a table.")
    demo.add_argument("--prepare", action="store_true", help="only convert the base model and import what ships")
    demo.add_argument("--pair", default=DEMO_PAIR, help=f"two bundled adapters, default {DEMO_PAIR}")
    demo.add_argument("--alpha", default=DEMO_ALPHA, help=f"default {DEMO_ALPHA}")
    inputs.add_measuring(demo)

    evaluate = command("evaluate", _evaluate, "Measure an adapter, or the base model, on its own.")
    evaluate.add_argument("--base", help="base model folder; default: the bundled one")
    evaluate.add_argument("--adapter", help="name or folder; without it the base model is measured")
    evaluate.add_argument("--suite", default="", help="utility: a suite of `sstmerge suites`, or a file")
    inputs.add_measuring(evaluate)

    sweep = command("sweep", _sweep, "Run a grid of methods, α, k and seeds; finished points are skipped.")
    inputs.add_trio(sweep)
    sweep.add_argument("--methods", required=True, help="names with commas")
    sweep.add_argument("--alphas", required=True, help="such as 0.1,0.3 or 0.1:1.0:0.1")
    about = "the model that the base was aligned from, for methods that use a safe direction"
    sweep.add_argument("--unaligned", metavar="DIR", help=about)
    sweep.add_argument("--strengths", help="α of the strength methods; default: as --alphas")
    sweep.add_argument("--ks", default="", help="such as 5,10,20")
    sweep.add_argument("--seeds", default="", help="such as 42,43,44")
    sweep.add_argument("--suite", default="", help="utility: a suite of `sstmerge suites`, or a file")
    about = "share the points between up to N workers; default: one for each GPU where --device names none, else one"
    sweep.add_argument("--workers", type=int, metavar="N", help=about)
    about = "of the cluster; without one Ray is started here, and Slurm is the one that this machine belongs to"
    sweep.add_argument("--address", default="", metavar="A", help=about)
    about = "of the queue: higher comes first among what waits of yours, and among jobs whose turn is the same"
    sweep.add_argument("--priority", type=int, default=0, metavar="N", help=about)
    about = "screen every point without generating, on selection prompts, and generate the best N; docs/screening.md"
    sweep.add_argument("--screen", type=int, metavar="N", help=about)
    about = f"selection prompts of each suite that points are screened on, default {Screening.n}"
    sweep.add_argument("--screen-n", type=int, default=Screening.n, metavar="PROMPTS", help=about)
    sweep.add_argument("--detach", action="store_true", help="put it into the queue and return its job id")
    about = (
        "weights of merged adapters that stay: of every point, of those on the front, of none; recipes make the rest"
    )
    sweep.add_argument("--artifacts", choices=KEPT, default="", help=f"{about}; default: front, or {KEPT_OF_MANY}")
    sweep.add_argument("--dry-run", action="store_true", help="only say what would run and how long it would take")
    inputs.add_measuring(sweep, where=True)


def _demo(options: argparse.Namespace, workspace: Workspace) -> None:
    prepare_demo(workspace)
    ingest(workspace)
    if options.prepare:
        return
    base = catalog.bases(workspace)[0]
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
            options=inputs.measuring(options, workspace),
        )
        for method in DEMO_METHODS
    ]
    raise_found(problem for plan in plans for problem in plan.problems)
    tell_notes(note for plan in plans for note in plan.warnings)
    _execute([plan.recipe for plan in plans if plan.recipe], workspace, options)


def _evaluate(options: argparse.Namespace, workspace: Workspace) -> None:
    measuring = inputs.measuring(options, workspace)
    base = inputs.base(options.base, workspace)
    adapter = catalog.find(workspace, options.adapter) if options.adapter else None
    suite = measuring.utility_suite or (adapter.suite if adapter and adapter.role == "utility" else "") or "facts"
    recipe = preflight.single_recipe(base, adapter, suite, measuring)
    tell_notes(preflight.notes([recipe], workspace))
    _execute([recipe], workspace, options)


def _sweep(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core import jobs

    given = inputs.merge_inputs(options, workspace)
    plan = preflight.plan_sweep(
        workspace,
        **given.plan,
        methods=[name.strip() for name in options.methods.split(",") if name.strip()],
        alphas=grid.numbers(options.alphas, where="--alphas"),
        strengths=grid.numbers(options.strengths, where="--strengths") if options.strengths else None,
        unaligned=inputs.base(options.unaligned, workspace) if options.unaligned else None,
        ks=grid.numbers(options.ks, where="--ks", whole=True),
        seeds=grid.numbers(options.seeds, where="--seeds", whole=True),
        options=inputs.measuring(options, workspace),
        screening=None if options.screen is None else Screening(options.screen, options.screen_n),
    )
    raise_found(plan.problems)
    tell_notes(plan.warnings)
    kept = kept_of_many(options.artifacts)
    print(
        f"{words.count(plan.points, 'point')}, {plan.skipped} known already, about {words.duration(plan.seconds)}.",
        file=sys.stderr,
    )
    if plan.screening:
        print(f"{plan.screening.words(plan.points)} {plan.screening.rule}", file=sys.stderr)
    if options.dry_run or not plan.recipes:
        return
    if plan.screening is not None and (options.workers is not None or options.where != LOCAL):
        fix = "Leave out --workers and --backend, or --screen."
        raise RecipeError(Problem("--screen", "is computed by one worker of this machine", fix))
    if options.detach or options.workers is not None or options.where != LOCAL:
        job_id = jobs.submit(
            workspace,
            with_kept(plan.asked, kept),
            name=f"Sweep {given.utility.name}_{given.safety.name}: {words.count(len(plan.recipes), 'run')}",
            kind="sweep",
            screening=plan.screening,
            workers=options.workers,
            priority=options.priority,
            backend=options.where,
            address=options.address,
        )
        if options.detach:
            print(job_id)
            return
        _follow(job_id, workspace)
    if plan.screening is None:
        _execute(with_kept(plan.recipes, kept), workspace, options)
    else:
        _execute(_screened(with_kept(plan.every, kept), plan.screening, workspace, options), workspace, options)


def _screened(
    recipes: list[Recipe], screening: Screening, workspace: Workspace, options: argparse.Namespace
) -> list[Recipe]:
    """Screen and measure in the foreground, and print the screening; those that were measured, the best first."""
    from sstmerge_core.runs.screen import execute_best

    try:
        found = execute_best(recipes, workspace, screening, report=progress(recipes), device=options.device)
    finally:
        line("", True)
    by_id = {recipe.run_id: recipe for recipe in recipes}
    if not options.json:
        heads = [metrics.get(name) for name in FIGURES]
        rows = [
            (
                str(one.place or "–"),
                one.label,
                *(f"{one.figures[metric.name]:.3f}" if metric.name in one.figures else "–" for metric in heads),
                "generated" if one.generated else "left out",
            )
            for one in found.settings
        ]
        table(("place", "setting", *(f"{metric.title} {metric.arrow}" for metric in heads), ""), rows)
        print(f"{found.words()}\n{workspace.screening(found.screening_id)}\n")
    return [by_id[one.run_id] for one in found.settings if one.generated]


def _follow(job_id: str, workspace: Workspace) -> None:
    """Tell how a job goes until it has ended; Ctrl-C cancels it. Raises JobError with its fault where it failed."""
    from sstmerge_core import jobs

    told = ""
    try:
        while (job := _known(jobs.job(workspace, job_id))).active:
            count = jobs.trial_count(workspace, job_id)
            at_work = sum(one.job_id == job_id for one in jobs.workers(workspace))
            left = f", {job.left}" if job.left else ""
            now = f"{count.done} of {count.open + count.done + count.failed} runs, {words.count(at_work, 'worker')}"
            if now != told:
                line(now + left, False)
                told = now
            time.sleep(FOLLOW_SECONDS)
    except KeyboardInterrupt:
        jobs.cancel(workspace, job_id)
        raise
    finally:
        line("", True)
    if job.state != "done":
        ingest(workspace)
        fix = f"`sstmerge jobs log {job_id}` shows its log, `sstmerge jobs resume {job_id}` goes on."
        raise JobError(Problem(f"job {job_id}", job.error or f"it is {job.state}", fix))


def _known(job: Job | None) -> Job:
    assert job is not None, "it was queued a moment ago"
    return job


def _execute(recipes: list[Recipe], workspace: Workspace, options: argparse.Namespace) -> None:
    """Carry out recipes in the foreground, store them, and print them."""
    if not all(preflight.is_finished(workspace, recipe) for recipe in recipes):
        from sstmerge_core.runs.execute import execute

        try:
            execute(recipes, workspace, report=progress(recipes), device=options.device)
        finally:
            line("", True)
            ingest(workspace)
    else:
        ingest(workspace)
    found = [outcome(workspace, recipe) for recipe in recipes]
    if options.json:
        for row in found:
            print(json.dumps(row, ensure_ascii=False))
        return
    measured = {row["utility_metric"] for row in found} - {None}
    attacked = ("resistance_attacked",) if any(row["resistance_attacked"] is not None for row in found) else ()
    rows = [
        (
            row["label"],
            *(f"{row[name]:.3f}" if row[name] is not None else "–" for name in (*SUMMARY, *attacked, "utility")),
            str(row["resistance_n"] or ""),
            row["run_id"],
        )
        for row in found
    ]
    score = f"{metrics.get(measured.pop()).title} ↑" if len(measured) == 1 else "utility ↑"
    under = ("under attack ↑",) if attacked else ()
    table(("run", "resistance ↑", "ASR ↓", "over-refusal ↓", "degenerate ↓", *under, score, "n", "id"), rows)
    judge = recipes[0].evaluation.judge if recipes and recipes[0].evaluation else ""
    print(f"Judge {judge}; a lexical judge cannot tell harm, so it gives no ASR. Intervals: `sstmerge query`.")
