"""``sstmerge experiment``: the experiments of the reports, each as one command that goes on where it was stopped."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sstmerge_core import experiments
from sstmerge_core.cli.printing import line, table
from sstmerge_core.cli.records import ingest
from sstmerge_core.errors import Problem, RecipeError
from sstmerge_core.workspace import Workspace


def register(command: Any) -> None:
    """Add the command; `command` makes a parser from name, function and description."""
    experiment = command("experiment", _experiment, "Run one of the reports' experiments; without a name, list them.")
    experiment.add_argument("name", nargs="?", help=", ".join(experiments.EXPERIMENTS))
    experiment.add_argument("--recipe", type=Path, help="YAML file of settings; default: the bundled model's")
    experiment.add_argument("--write-recipe", action="store_true", help="print the settings as YAML and stop")
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

    told = ""

    def report(what: str, done: float, total: float) -> None:
        nonlocal told
        if (now := f"{done:.0f}/{total:.0f} {what}") != told:
            line(now, False)
            told = now

    try:
        found = experiments.run(workspace, chosen.name, settings, report=report, device=options.device)
    finally:
        line("", True)
        ingest(workspace)
    if options.json:
        print(json.dumps(asdict(found), ensure_ascii=False))
        return
    for one in found.tables[:1]:
        print(f"{one.title}. {one.about}")
        shown = [key for key in one.columns if not key.endswith(("_low", "_high", "_n", "run_ids"))]
        table(shown, [[_cell(row.get(key)) for key in shown] for row in one.rows])
    for finding in found.findings:
        print(finding)
    for missing in found.left_out:
        print(f"Note: {missing}")


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
