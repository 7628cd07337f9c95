"""``sstmerge experiment``: the experiments of the reports, each as one command that goes on where it was stopped."""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sstmerge_core import experiments, words
from sstmerge_core.cli.printing import line, table
from sstmerge_core.cli.records import ingest
from sstmerge_core.errors import Cancelled, Problem, RecipeError
from sstmerge_core.jobs.history import NOTICED
from sstmerge_core.workspace import Workspace


def register(command: Any) -> None:
    """Add the command; `command` makes a parser from name, function and description."""
    experiment = command("experiment", _experiment, "Run one of the reports' experiments; without a name, list them.")
    experiment.add_argument("name", nargs="?", help=", ".join(experiments.EXPERIMENTS))
    experiment.add_argument("--recipe", type=Path, help="YAML file of settings; default: the bundled model's")
    experiment.add_argument("--write-recipe", action="store_true", help="print the settings as YAML and stop")
    about = "say what is still to do, how many answers and about how long it takes, and stop (the contest)"
    experiment.add_argument("--dry-run", action="store_true", help=about)
    about = "stop after so long, at the next batch; the same command goes on from there"
    experiment.add_argument("--budget-minutes", type=_minutes, metavar="MINUTES", help=about)
    experiment.add_argument("--device", default="auto")
    experiment.add_argument("--json", action="store_true", help="print the result as one JSON object")


def _experiment(options: argparse.Namespace, workspace: Workspace) -> None:
    if not options.name:
        rows = [(one.name, one.title, one.question) for one in experiments.EXPERIMENTS.values()]
        table(("name", "experiment", "question"), rows)
        return
    chosen = experiments.get(options.name)
    settings = chosen.read(options.recipe)
    if options.write_recipe:
        print(experiments.write(settings), end="")
        return
    from sstmerge_core.demo import model

    if not settings.base and not model.is_ready(workspace):
        fix = "Run `sstmerge demo --prepare`, or name another one as `base` in the recipe."
        raise RecipeError(Problem("base model", "the bundled one is not prepared here yet", fix))

    if options.dry_run:
        _print_steps(*experiments.steps(workspace, chosen.name, settings, device=options.device))
        return

    told = ""
    begun = time.monotonic()
    over = math.inf if options.budget_minutes is None else begun + 60 * options.budget_minutes

    def report(what: str, done: float, total: float) -> None:
        nonlocal told
        if (now := f"{done:.0f}/{total:.0f} {what}") != told:
            line(now, False)
            told = now

    try:
        found = experiments.run(
            workspace,
            chosen.name,
            settings,
            report=report,
            should_cancel=lambda: time.monotonic() > over,
            device=options.device,
        )
    except Cancelled:
        if time.monotonic() <= over:
            raise
        line("", True)
        print(f"Stopped after {options.budget_minutes:g} minutes at {told}. The same command goes on from there.")
        return
    finally:
        line("", True)
        ingest(workspace)
    if options.json:
        print(json.dumps(asdict(found), ensure_ascii=False))
        return
    if found.experiment == "contest":
        from sstmerge_core.plots.experiment_tables import summaries

        for summary in summaries(found):
            print(f"{summary.title}. {summary.note}")
            table(list(summary.rows.columns), summary.rows.to_numpy().tolist())
    for one in found.tables[:1] if found.experiment != "contest" else ():
        print(f"{one.title}. {one.about}")
        shown = [key for key in one.columns if not key.endswith(("_low", "_high", "_n", "run_ids"))]
        table(shown, [[_cell(row.get(key)) for key in shown] for row in one.rows])
    for finding in found.findings:
        print(finding)
    for missing in found.left_out:
        print(f"Note: {missing}")


def _print_steps(steps: list[experiments.Step], slower: float) -> None:
    heads = ("step", "left", "answers", "samples, steps and passes to learn from", "minutes")
    told = [
        (one.what, f"{one.left} of {one.total}", f"{one.answers:,}", f"{one.learnt:,}", f"{one.minutes:.0f}")
        for one in steps
    ]
    table(heads, told)
    screened = sum(one.left for one in steps if one.kind == "screen")
    runs = sum(one.left for one in steps if one.kind == "measure")
    trained = sum(one.left for one in steps if one.kind == "train")
    minutes = sum(one.minutes for one in steps)
    print(
        f"Left: {words.count(screened, 'setting')} to screen, {words.count(runs, 'run')} with "
        f"{sum(one.answers for one in steps):,} answers, {words.count(trained, 'adapter')} to train: about "
        f"{minutes:,.0f} minutes ({minutes / 60:.1f} hours) by the speed of earlier jobs here, else a guess."
    )
    if slower > NOTICED:
        print(f"This machine is busy: everything takes {slower:.1f} times as long now.")


def _minutes(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0.0 < found < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give minutes above 0")
    return found


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
