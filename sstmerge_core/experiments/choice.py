"""Choosing on the selection split, and telling on the test split whether a choice is the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from sstmerge_core import methods
from sstmerge_core.analysis.best import with_the_best
from sstmerge_core.analysis.statistics import RESAMPLES, SEED
from sstmerge_core.builder import preflight
from sstmerge_core.catalog import Entry
from sstmerge_core.evaluate import metric_rows
from sstmerge_core.experiments.lab import Lab, Outcomes
from sstmerge_core.experiments.settings import Settings
from sstmerge_core.recipe import Recipe, record
from sstmerge_core.workspace import Workspace

GOALS = {
    "sum": "resistance + ROUGE-L, the reports' ranking; a merge that refuses everything loses nothing by it",
    "selective": "resistance + ROUGE-L − over-refusal",
}
Point = dict[str, Any]
"""Parameters of one merge"""


class GridSettings(Settings):
    """Experiments that choose their parameters on the selection split."""

    alphas: list[float] = Field(default=[0.3, 0.5, 0.7], description="α of methods that share out weights.")
    strengths: list[float] = Field(default=[0.75, 1.5, 2.5], description="α of methods that add with a strength.")
    ks: list[int] = Field(default=[5, 20, 48], description="k of the detailed methods; the others keep their default.")
    layerwise: list[bool] = Field(default=[False, True], description="Of the detailed methods.")
    detailed: list[str] = Field(default=["sst_gevp"], description="Methods whose k and layerwise are varied too.")
    goal: str = Field(default="sum", description=f"What is chosen by: {', '.join(GOALS)}.")


def points(method: str, settings: GridSettings) -> list[Point]:
    """The grid of one method; a single point where it has no α."""
    detailed = method in settings.detailed
    found = preflight.grid(method, settings.alphas, settings.strengths, settings.ks if detailed else (), ())
    if detailed and any(own.name == "layerwise" for own in methods.get(method).parameters):
        found = [point | {"layerwise": layerwise} for layerwise in settings.layerwise for point in found]
    return found


def score(outcome: Mapping[str, Any], goal: str) -> float | None:
    """A measured run's figure for a goal (`GOALS`), None where a part of it was not measured."""
    parts = [outcome["resistance"], outcome["utility"]]
    parts += [-outcome["over_refusal"] if outcome["over_refusal"] is not None else None] if goal == "selective" else []
    return None if None in parts else sum(parts)


def search(
    lab: Lab, utilities: Sequence[Entry], safety: Entry, names: Sequence[str], settings: GridSettings
) -> tuple[dict[str, list[tuple[Point, Recipe]]], Outcomes]:
    """Measure the grid of every method on the selection split."""
    options = lab.options("selection")
    grid = {
        name: [(point, lab.merge(utilities, safety, name, point, options)) for point in points(name, settings)]
        for name in names
    }
    pair = f"{'+'.join(entry.name for entry in utilities)}_{safety.name}"
    return grid, lab.measure([recipe for own in grid.values() for _, recipe in own], f"searching {pair}")


def best(
    grid: Mapping[str, Sequence[tuple[Point, Recipe]]], outcomes: Outcomes, goal: str
) -> dict[str, tuple[Point, Recipe]]:
    """Of every method the point that did best on the selection split; of equal ones the first."""
    chosen = {}
    for name, own in grid.items():
        scored = [(score(outcomes[recipe.run_id], goal), -index) for index, (_, recipe) in enumerate(own)]
        known = [(value, place) for value, place in scored if value is not None]
        if known:
            chosen[name] = own[-max(known)[1]]
    return chosen


def resampled(workspace: Workspace, recipe: Recipe, goal: str, resamples: int = RESAMPLES) -> np.ndarray:
    """Bootstrap values (resamples,) of a run's score, each suite's prompts drawn anew.

    The draws are the same for every run on the same prompts, so the differences of two runs' values are those of a
    paired bootstrap.
    """
    past = record.read(workspace.run(recipe.run_id))
    verdicts = past.verdicts_by(recipe.evaluation.judge if recipe.evaluation else "")
    suites = recipe.evaluation.suites if recipe.evaluation else ()
    total = np.zeros(resamples)
    for number, suite in enumerate(suites):
        sign = {"harmful": 1.0, "utility": 1.0, "benign": -1.0 if goal == "selective" else 0.0}[suite.role]
        own = metric_rows.outcomes([suite], past.samples, verdicts)[suite.name]
        values = np.array([own[prompt] for prompt in sorted(own)])
        if sign and len(values):
            draws = np.random.default_rng([SEED, number]).integers(len(values), size=(resamples, len(values)))
            total += sign * values[draws].mean(axis=1)
    return total


def contest(workspace: Workspace, recipes: Mapping[str, Recipe], outcomes: Outcomes, goal: str) -> dict[str, Any]:
    """Which of `recipes` (by method, all on the same prompts) is best, and which are shown worse.

    All methods are compared at once (`analysis.best.with_the_best`): the leader is not chosen on the data and then
    tested. `best_method` is the one that every other is shown worse than at 5 %, otherwise None; `not_shown_worse`
    lists the methods but for the leader that are not shown worse than any; `comparisons` the leader's differences, with
    intervals that hold together.
    """
    scored = {name: score(outcomes[recipe.run_id], goal) for name, recipe in recipes.items()}
    known = {name: value for name, value in scored.items() if value is not None}
    if not known:
        return {"goal": goal, "best_method": None, "leader": None, "not_shown_worse": [], "comparisons": []}
    values = np.column_stack([resampled(workspace, recipes[name], goal) for name in known])
    evaluations = [recipes[name].evaluation for name in known]
    units = min((suite.n for one in evaluations if one is not None for suite in one.suites), default=0)
    found = with_the_best(known, values, units, measure=GOALS[goal].split(",")[0])
    leader = str(found.intervals["method"].iloc[0])
    own = found.pairs[found.pairs["first"] == leader]
    rows = [
        {"method": row["second"]}
        | {key: None if pd.isna(row[key]) else float(row[key]) for key in ("difference", "low", "high", "p_value")}
        | {"p_holm": None if pd.isna(row["p_value"]) else float(row["p_value"])}
        for row in own.to_dict("records")
    ]
    return {
        "goal": goal,
        "best_method": found.best,
        "leader": leader,
        "leader_score": known[leader],
        "not_shown_worse": [name for name in found.with_the_best if name != leader],
        "comparisons": sorted(rows, key=lambda row: row["difference"]),
    }


def verdict(found: Mapping[str, Any], where: str) -> str:
    """The contest in a sentence."""
    if found["leader"] is None:
        return f"{where}: nothing was measured."
    title = methods.get(found["leader"]).title
    figure = f"{GOALS[found['goal']].split(',')[0]} ({found['leader_score']:.2f})"
    head = f"{where}: {title} has the highest {figure}"
    if found["best_method"]:
        return f"{head}, and every other method is shown worse (all compared at once, paired bootstrap, 5 %)."
    others = [methods.get(name).title for name in found["not_shown_worse"]]
    some = ", ".join(others[:6]) + (f" and {len(others) - 6} more" if len(others) > 6 else "")
    no_winner = f"{where}: No winner: the differences are within noise."
    return f"{no_winner} {title} has the highest {figure}, not shown better than {some}."
