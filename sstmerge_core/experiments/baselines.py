"""Experiment 3: methods compared over training seeds of the adapters (ALGORITHMS §9.3)."""

from __future__ import annotations

from typing import Any

import pandas as pd
from pydantic import Field

from sstmerge_core import methods
from sstmerge_core.analysis.best import best_method
from sstmerge_core.demo import adapters as demo
from sstmerge_core.errors import Problem, RecipeError
from sstmerge_core.experiments import choice
from sstmerge_core.experiments.lab import Lab
from sstmerge_core.experiments.result import Result, Table, pick

QUESTION = "Which method is best when the adapters are trained again with other seeds?"
FIGURES = ("resistance", "utility", "over_refusal", "degenerate", "safety_tax")


class BaselinesSettings(choice.GridSettings):
    utility: str = Field(default="A5", description="Utility adapter of the first training seed.")
    safety: str = Field(default="A7", description="Safety adapter of the first training seed.")
    seed: int = Field(default=42, description="The training seed of these two.")
    retrain: list[int] = Field(
        default=[43, 44], description="Training seeds with which the two bundled adapters are trained again."
    )
    others: dict[int, tuple[str, str]] = Field(
        default={}, description="Your own: seed → utility and safety adapter trained with it, in place of `retrain`."
    )
    methods: list[str] = Field(
        default=["sst_gevp", "sst_shield", "task_arithmetic", "linear", "ties", "dare_linear", "alignguard"],
        description="Each with the parameters chosen on the selection split of the first seed.",
    )


def run(lab: Lab, settings: BaselinesSettings) -> Result:
    pairs = {settings.seed: (lab.adapter(settings.utility), lab.adapter(settings.safety))}
    utility, safety = pairs[settings.seed]
    grid, found = choice.search(lab, [utility], safety, settings.methods, settings)
    chosen = {name: point for name, (point, _) in choice.best(grid, found, settings.goal).items()}
    if settings.others:
        pairs |= {seed: (lab.adapter(u), lab.adapter(s)) for seed, (u, s) in settings.others.items()}
    else:
        pairs |= {
            seed: (_again(lab, settings.utility, seed), _again(lab, settings.safety, seed)) for seed in settings.retrain
        }
    recipes = {
        (name, seed): lab.merge([pair[0]], pair[1], name, _seeded(name, point, seed))
        for name, point in chosen.items()
        for seed, pair in pairs.items()
    }
    outcomes = lab.measure(list(recipes.values()), "testing over training seeds")
    rows: list[dict[str, Any]] = []
    scores = []
    for (name, seed), recipe in recipes.items():
        one = outcomes[recipe.run_id]
        value = choice.score(one, settings.goal)
        rows.append(
            {"method": name, "seed": seed, "parameters": recipe.label}
            | pick(one, *FIGURES)
            | {"score": value, "run_id": recipe.run_id}
        )
        if value is not None:
            scores.append({"method": name, "seed": seed, "value": value})
    titles = {name: methods.get(name).title for name in chosen}
    best = best_method(pd.DataFrame(scores), measure=choice.GOALS[settings.goal].split(",")[0], titles=titles)
    runs = {name: [recipe.run_id for (own, _), recipe in recipes.items() if own == name] for name in chosen}
    summary = [row | {"run_ids": runs[row["method"]]} for row in best.summary.to_dict("records")]
    about = "The reports' score of each method over the training seeds, test split."
    return Result(
        "baselines",
        QUESTION,
        settings.model_dump(mode="json"),
        settings.judge,
        lab.base.name,
        [
            Table("summary", "Over training seeds", about, _plain(summary)),
            Table(
                "tests",
                "Every two methods",
                "Paired over seeds, all pairs together; Hedges' g.",
                _plain(best.tests),
            ),
            Table("runs", "Runs", "One row a method and seed, test split.", rows),
        ],
        {"best_method": best.best, "goal": settings.goal, "seeds": list(pairs)},
        [best.sentence],
        [f"{len(pairs)} training seeds give little power; a difference not shown is not shown to be absent."],
    )


def _again(lab: Lab, name: str, seed: int) -> Any:
    """The bundled adapter `name` trained with another seed."""
    if name not in demo.ADAPTERS:
        fix = "Name your adapters of the other seeds under `others`, or set `retrain` to []."
        raise RecipeError(Problem(f"adapter {name}", "only bundled adapters can be trained again", fix))
    own = demo.get(name)
    rows = [(row["prompt"], row["response"]) for row in demo.rows(own.files, "train")]
    return lab.train(
        f"{name}@{seed}",
        rows,
        own.settings.model_copy(update={"seed": seed}),
        role=own.role,
        suite=own.suite,
        description=f"{own.description}; trained with seed {seed}",
    )


def _seeded(method: str, point: choice.Point, seed: int) -> choice.Point:
    """A random merge takes the training seed for its own too."""
    random = any(parameter.name == "seed" for parameter in methods.get(method).parameters)
    return point | {"seed": seed} if random else point


def _plain(table: Any) -> list[dict[str, Any]]:
    """Rows that JSON can hold."""
    records = table.to_dict("records") if isinstance(table, pd.DataFrame) else table
    return [{key: _value(value) for key, value in row.items()} for row in records]


def _value(value: Any) -> Any:
    if isinstance(value, list | dict | str | bool) or value is None:
        return value
    return None if pd.isna(value) else value.item() if hasattr(value, "item") else value
