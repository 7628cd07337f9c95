"""``sstmerge screen``: figures without generation for runs that were measured, and how far they agree."""

from __future__ import annotations

import argparse
import json
from typing import Any

from sstmerge_core import metrics, words
from sstmerge_core.analysis import goals, screening
from sstmerge_core.builder import recipe_file
from sstmerge_core.cli.printing import line, progress, table
from sstmerge_core.cli.records import ingest
from sstmerge_core.errors import JobError, Problem
from sstmerge_core.recipe import Recipe, record, validated
from sstmerge_core.runs.outcome import outcome
from sstmerge_core.store.events import last_status
from sstmerge_core.workspace import Workspace


def register(command: Any) -> None:
    """Add the command; `command` makes a parser from name, function and description."""
    about = "Screen runs that were measured, without generating, and say how far that agrees with what was measured."
    screen = command("screen", _screen, about)
    screen.add_argument("--pair", required=True, help="such as A5_A7")
    screen.add_argument("--split", default="test", choices=["selection", "test", "unseen"], help="of the runs")
    about = f"selection prompts of each suite that are looked at, default {screening.Screening.n}"
    screen.add_argument("--n", type=int, default=screening.Screening.n, metavar="PROMPTS", help=about)
    screen.add_argument("--device", default="auto")
    screen.add_argument("--json", action="store_true", help="one JSON object a run")


def _screen(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core.runs import screen
    from sstmerge_core.runs.session import Session, chosen_device

    recipes = _measured(workspace, options.pair, options.split)
    if not recipes:
        fault = f"has no finished merge here that was measured on the split {options.split}"
        raise JobError(Problem(f"--pair {options.pair}", fault, "`sstmerge pick` lists pairs."))
    session = Session(workspace, chosen_device(options.device, recipes), report=progress([]))
    try:
        found = screen.screen(recipes, session, options.n)
    finally:
        session.close()
        line("", True)
    for one in found:
        screen.note(workspace, one)
    ingest(workspace)
    rows = _compared(workspace, found)
    if options.json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        return
    heads = [metrics.get(name) for name in screening.FIGURES]
    names = [*(metric.name for metric in heads), "resistance", "over_refusal", "utility", "balanced"]
    titles = [f"{metric.title} {metric.arrow}" for metric in heads]
    table(
        ("setting", *titles, "resistance ↑", "over-refusal ↓", "utility ↑", "balanced ↑"),
        [(row["label"], *("–" if row.get(name) is None else f"{row[name]:.3f}" for name in names)) for row in rows],
    )
    print(f"\nSpearman's ρ with what was measured over {words.count(len(rows), 'setting')}, 1 where both agree:")
    for name, told in screening.agreement(rows).items():
        interval = f" (95 % {told.interval[0]:+.2f} to {told.interval[1]:+.2f})" if told.interval else ""
        measured = screening.COMPARED[name][1].replace("_", "-")
        print(f"  {name} and {measured}: {told.rho:+.2f}{interval}, n = {told.n}")


def _measured(workspace: Workspace, pair: str, split: str) -> list[Recipe]:
    """The recipes of the pair's finished merges that were measured on a split, those of one method together."""
    found = []
    for folder in sorted(workspace.run_folders(), key=lambda path: path.name):
        begun = record.started(folder)
        if begun is None or begun.get("pair") != pair or last_status(folder) != "finished" or "recipe" not in begun:
            continue
        recipe = validated(begun["recipe"], f"run {folder.name}")
        suites = recipe.evaluation.suites if recipe.evaluation else ()
        if suites and suites[0].split == split and len(recipe.adapters) > 1:
            found.append(recipe_file.locate(recipe, workspace))
    return sorted(found, key=lambda recipe: (recipe.method, recipe.label))


def _compared(workspace: Workspace, found: list[Any]) -> list[dict[str, Any]]:
    """Screening figures, place and what was measured, of each run."""
    places = screening.choose([one.setting for one in found], screening.Screening(1)).settings
    place = {one.run_id: one.place for one in places}
    rows = []
    for one in found:
        own = outcome(workspace, one.recipe)
        reference = one.recipe.reference
        of_u = outcome(workspace, reference)["utility"] if reference else None
        told = {name: own[name] for name in ("resistance", "over_refusal", "utility")}
        rows.append(
            {"run_id": one.recipe.run_id, "label": one.recipe.label, "place": place[one.recipe.run_id]}
            | one.figures
            | {"separation": screening.separation(one.figures)}
            | told
            | _scored(told, of_u)
        )
    return rows


def _scored(told: dict[str, float | None], of_u: float | None) -> dict[str, float | None]:
    """J, and the balanced score where U was measured."""
    if told["resistance"] is None or told["over_refusal"] is None:
        return {"discrimination": None, "balanced": None}
    apart = goals.discrimination(told["resistance"], told["over_refusal"])
    if told["utility"] is None or not of_u:
        return {"discrimination": float(apart), "balanced": None}
    return {
        "discrimination": float(apart),
        "balanced": float(goals.balanced(apart, goals.retention(told["utility"], of_u))),
    }
