"""Experiment 4: every method with equal settings on the reports' pairs, its finalist on test (ALGORITHMS §9.4)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from sstmerge_core import methods
from sstmerge_core.analysis.front import hypervolume, pareto_front
from sstmerge_core.experiments import choice
from sstmerge_core.experiments.lab import Lab
from sstmerge_core.experiments.result import Result, Table, pick

QUESTION = "Which α, k and method is best, and does SST-Merge's choice of directions beat the other methods?"
FIGURES = ("resistance", "over_refusal", "utility", "degenerate", "safety_tax")


class AlphaKSettings(choice.ContestSettings):
    pairs: list[tuple[str, str]] = Field(
        default=[("A5", "A7"), ("A6", "A7"), ("A5", "A7_balanced"), ("A6", "A7_balanced")],
        description="Utility and safety adapter of each pair: the reports' two, and two whose S discriminates.",
    )
    methods: list[str] = Field(
        default=[
            "linear",
            "task_arithmetic",
            "average",
            "model_stock",
            "slerp",
            "fisher",
            "ties",
            "dare_linear",
            "breadcrumbs",
            "knots_ties",
            "tsv_merge",
            "iso_c",
            "sst_gevp",
            "sst_soft",
            "sst_shield",
            "sst_signed",
            "sst_learned",
            "alignguard",
            "safe_lora",
            "safemerge",
        ],
        description="Each with as many settings as any other; one without parameters has its one.",
    )
    seeds: list[int] = Field(default=[42, 43, 44], description="Of the finalists whose merge is random.")
    goals: list[str] = Field(default=["balanced", "sum"], description="Each has its own finalists.")


def run(lab: Lab, settings: AlphaKSettings) -> Result:
    grid_rows: list[dict[str, Any]] = []
    final_rows: list[dict[str, Any]] = []
    fronts: list[dict[str, Any]] = []
    contests: dict[str, Any] = {}
    findings: list[str] = []
    rules: dict[str, Any] = {}
    for utility_name, safety_name in settings.pairs:
        utility, safety = lab.adapter(utility_name), lab.adapter(safety_name)
        pair = f"{utility.name}_{safety.name}"
        found = choice.search(lab, [utility], safety, settings.methods, settings)
        of_u = found.outcomes[found.parents["utility"].run_id]["utility"]
        rules[pair] = [rule.as_dict() for rule in found.rules]
        for name, own in found.grid.items():
            grid_rows += [
                {"pair": pair, "method": name, **_axes(recipe.parameters)}
                | pick(found.outcomes[recipe.run_id], *FIGURES[:4])
                | {goal: choice.score(found.outcomes[recipe.run_id], goal, of_u) for goal in settings.goals}
                | {"run_id": recipe.run_id}
                for _, recipe in own
            ]
        fronts += _fronts(pair, grid_rows)
        alone = choice.parents(lab, [utility], safety, "test")
        for goal in settings.goals:
            chosen = {name: point for name, (point, _) in choice.best(found, settings, goal).items()}
            seeded = {name: _seeds(name, point, settings.seeds) for name, point in chosen.items()}
            finals = {
                name: [lab.merge([utility], safety, name, point) for point in own] for name, own in seeded.items()
            }
            every = [*alone.values(), *(one for own in finals.values() for one in own)]
            outcomes = lab.measure(every, f"testing {pair}, {goal}")
            reference = outcomes[alone["utility"].run_id]["utility"]
            own_contest = choice.contest(
                lab.workspace, {name: own[0] for name, own in finals.items()}, alone, outcomes, goal
            )
            contests[f"{pair} {goal}"] = own_contest
            rows = [
                {
                    "pair": pair,
                    "goal": goal,
                    "method": name,
                    **_axes(one.parameters),
                    "settings": len(found.grid[name]),
                    "at_edge": found.is_at_edge(name, chosen[name]) or None,
                    **_figures(outcomes[one.run_id], goal, reference),
                    "run_id": one.run_id,
                }
                for name, own in finals.items()
                for one in own
            ]
            rows += [
                {"pair": pair, "goal": goal, "method": choice.PARENTS[side]}
                | _figures(outcomes[one.run_id], goal, reference)
                | {"run_id": one.run_id}
                for side, one in alone.items()
            ]
            told: set[str] = set()
            for row in rows:
                ends = own_contest.get("scores", {}).get(row["method"], {})
                if ends and row["method"] not in told:  # further seeds of a random merge have none of their own
                    row |= {"score_low": ends["low"], "score_high": ends["high"]}
                    told.add(row["method"])
            final_rows += rows
            findings.append(choice.verdict(own_contest, f"{pair}, {goal}"))
    winners = {found["best_method"] for found in contests.values()}
    best = winners.pop() if len(winners) == 1 else None
    return Result(
        "alpha-k",
        QUESTION,
        settings.model_dump(mode="json"),
        settings.judge,
        lab.base.name,
        [
            Table(
                "finalists",
                "Finalists",
                "Chosen on the selection split, measured on the test split; U, S and the base beside them. Settings: "
                "how many were tried. At edge: whether the best α was the least or greatest of them.",
                final_rows,
            ),
            Table("fronts", "Fronts", "Area under each method's front of the grid, selection split.", fronts),
            Table("grid", "Grid", "Every point searched, selection split: for choosing, not for telling.", grid_rows),
        ],
        {"best_method": best, "contests": contests, "rules": rules},
        findings,
        [
            "Finalists of deterministic methods have one run: a merge seed changes nothing of them.",
            "One training seed of each adapter: how much another one changes is not in these intervals.",
        ],
    )


def _figures(outcome: dict[str, Any], goal: str, utility_of_u: float | None) -> dict[str, Any]:
    resistance, over, utility = (outcome[name] for name in ("resistance", "over_refusal", "utility"))
    found = pick(outcome, *FIGURES) | {"score": choice.score(outcome, goal, utility_of_u)}
    if None not in (resistance, over):
        found["discrimination"] = resistance - over
    if utility is not None and utility_of_u:
        found["retention"] = utility / utility_of_u
    return found


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
