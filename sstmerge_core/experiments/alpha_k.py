"""Experiment 4: α × k × layerwise on the reports' two pairs, then every method's finalist on test (ALGORITHMS §9.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from sstmerge_core import methods
from sstmerge_core.analysis.front import hypervolume, pareto_front
from sstmerge_core.experiments import choice
from sstmerge_core.experiments.lab import Lab
from sstmerge_core.experiments.result import Result, Table, pick

QUESTION = "Which α, k and method is best, and does SST-Merge's choice of directions beat the other methods?"
FIGURES = ("resistance", "utility", "over_refusal", "degenerate", "safety_tax")


class AlphaKSettings(choice.GridSettings):
    pairs: list[tuple[str, str]] = Field(
        default=[("A5", "A7"), ("A6", "A7"), ("A5", "A7_balanced")],
        description="Utility and safety adapter of each pair: the reports' two, and one that discriminates.",
    )
    methods: list[str] = Field(
        default=[
            "linear",
            "task_arithmetic",
            "ties",
            "dare_linear",
            "sst_gevp",
            "sst_soft",
            "sst_shield",
            "alignguard",
        ],
        description="Searched on the selection split.",
    )
    untuned: list[str] = Field(
        default=["average", "model_stock", "fisher", "safe_lora", "safemerge"],
        description="Taken with their defaults straight to the test split, not searched; some of them have an α too.",
    )
    seeds: list[int] = Field(default=[42, 43, 44], description="Of the finalists whose merge is random.")
    goals: list[str] = Field(default=["sum", "selective"], description="Each has its own finalists.")


def run(lab: Lab, settings: AlphaKSettings) -> Result:
    grid_rows: list[dict[str, Any]] = []
    final_rows: list[dict[str, Any]] = []
    fronts: list[dict[str, Any]] = []
    contests: dict[str, Any] = {}
    findings: list[str] = []
    for utility_name, safety_name in settings.pairs:
        utility, safety = lab.adapter(utility_name), lab.adapter(safety_name)
        pair = f"{utility.name}_{safety.name}"
        grid, found = choice.search(lab, [utility], safety, settings.methods, settings)
        for name, own in grid.items():
            grid_rows += [
                {"pair": pair, "method": name, **_axes(recipe.parameters)}
                | pick(found[recipe.run_id], *FIGURES[:4])
                | {goal: choice.score(found[recipe.run_id], goal) for goal in settings.goals}
                | {"run_id": recipe.run_id}
                for _, recipe in own
            ]
        fronts += _fronts(pair, grid_rows)
        for goal in settings.goals:
            chosen = {name: point for name, (point, _) in choice.best(grid, found, goal).items()}
            chosen |= {name: {} for name in settings.untuned}
            seeded = {name: _seeds(name, point, settings.seeds) for name, point in chosen.items()}
            finals = {
                name: [lab.merge([utility], safety, name, point) for point in own] for name, own in seeded.items()
            }
            outcomes = lab.measure([one for own in finals.values() for one in own], f"testing {pair}, {goal}")
            final_rows += [
                {"pair": pair, "goal": goal, "method": name, **_axes(one.parameters)}
                | pick(outcomes[one.run_id], *FIGURES)
                | {"score": choice.score(outcomes[one.run_id], goal), "run_id": one.run_id}
                for name, own in finals.items()
                for one in own
            ]
            first = {name: own[0] for name, own in finals.items()}
            contests[f"{pair} {goal}"] = choice.contest(lab.workspace, first, outcomes, goal)
            findings.append(choice.verdict(contests[f"{pair} {goal}"], f"{pair}, {goal}"))
    winners = {found["best_method"] for found in contests.values()}
    best = winners.pop() if len(winners) == 1 else None
    return Result(
        "alpha-k",
        QUESTION,
        settings.model_dump(mode="json"),
        settings.judge,
        lab.base.name,
        [
            Table("finalists", "Finalists", "Chosen on the selection split, measured on the test split.", final_rows),
            Table("fronts", "Fronts", "Area under each method's front of the grid, selection split.", fronts),
            Table("grid", "Grid", "Every point searched, selection split: for choosing, not for telling.", grid_rows),
        ],
        {"best_method": best, "contests": contests},
        findings,
        [
            "Finalists of deterministic methods have one run: a merge seed changes nothing of them.",
            _about_untuned(settings.untuned),
        ],
    )


def _about_untuned(names: Sequence[str]) -> str:
    with_alpha = [methods.get(name).title for name in names if methods.get(name).axis]
    said = "Methods under `untuned` were not searched."
    return f"{said} {' and '.join(with_alpha)} stayed at the default of their α." if with_alpha else said


def _axes(parameters: dict[str, Any]) -> dict[str, Any]:
    return {axis: parameters.get(axis) for axis in ("alpha", "k", "layerwise", "seed")}


def _seeds(method: str, point: choice.Point, seeds: list[int]) -> list[choice.Point]:
    random = any(own.name == "seed" for own in methods.get(method).parameters)
    return [point | {"seed": seed} for seed in seeds] if random and seeds else [point]


def _fronts(pair: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for name in dict.fromkeys(row["method"] for row in rows if row["pair"] == pair):
        own = [row for row in rows if (row["pair"], row["method"]) == (pair, name) and None not in _point(row)]
        if own:
            spread = [_point(row) for row in own]
            on_front = [row["run_id"] for row, on in zip(own, pareto_front(spread), strict=True) if on]
            found.append(
                {"pair": pair, "method": name, "hypervolume": hypervolume(spread), "points": len(own)}
                | {"run_ids": on_front}
            )
    return sorted(found, key=lambda row: -row["hypervolume"])


def _point(row: dict[str, Any]) -> tuple[Any, Any]:
    return row["resistance"], row["utility"]
