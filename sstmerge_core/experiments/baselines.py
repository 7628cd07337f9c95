"""Experiment 3: methods compared over training seeds of the adapters (ALGORITHMS §9.3)."""

from __future__ import annotations

from typing import Any

import pandas as pd
from pydantic import Field

from sstmerge_core.analysis.best import best_method
from sstmerge_core.experiments import choice, seeds
from sstmerge_core.experiments.lab import Lab
from sstmerge_core.experiments.result import Result, Table, pick

QUESTION = "Which method is best when the adapters are trained again with other seeds?"
FIGURES = ("resistance", "over_refusal", "utility", "degenerate", "safety_tax")


class BaselinesSettings(choice.ContestSettings):
    utility: str = Field(default="A5", description="Utility adapter of the first training seed.")
    safety: str = Field(default="A7_balanced", description="Safety adapter of the first training seed.")
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
    found = choice.search(lab, [utility], safety, settings.methods, settings)
    chosen = {name: point for name, (point, _) in choice.best(found, settings).items()}
    if settings.others:
        pairs |= {seed: (lab.adapter(u), lab.adapter(s)) for seed, (u, s) in settings.others.items()}
    else:
        pairs |= {
            seed: (seeds.again(lab, settings.utility, seed), seeds.again(lab, settings.safety, seed))
            for seed in settings.retrain
        }
    recipes = {
        (name, seed): lab.merge([pair[0]], pair[1], name, seeds.seeded(name, point, seed))
        for name, point in chosen.items()
        for seed, pair in pairs.items()
    }
    alone = {seed: choice.parents(lab, [pair[0]], pair[1], "test") for seed, pair in pairs.items()}
    recipes |= {(choice.PARENTS[side], seed): one for seed, own in alone.items() for side, one in own.items()}
    outcomes = lab.measure(list(recipes.values()), "testing over training seeds")
    of_u = {seed: outcomes[own["utility"].run_id]["utility"] for seed, own in alone.items()}
    rows: list[dict[str, Any]] = []
    scores = []
    for (name, seed), recipe in recipes.items():
        one = outcomes[recipe.run_id]
        value = choice.score(one, settings.goal, of_u[seed])
        rows.append(
            {"method": name, "seed": seed, "parameters": recipe.label}
            | pick(one, *FIGURES)
            | {"score": value, "run_id": recipe.run_id}
        )
        if value is not None:
            scores.append({"method": name, "seed": seed, "value": value})
    entrants = list(dict.fromkeys(name for name, _ in recipes))
    titles = {name: choice.title(name) for name in entrants}
    measure = choice.GOALS[settings.goal].split(" (")[0]
    best = best_method(pd.DataFrame(scores), measure=measure, titles=titles) if scores else None
    runs = {name: [recipe.run_id for (own, _), recipe in recipes.items() if own == name] for name in entrants}
    summary = [row | {"run_ids": runs[row["method"]]} for row in best.summary.to_dict("records")] if best else []
    about = (
        f"{choice.GOALS[settings.goal]} over the training seeds, test split; U, S and the base beside the merges. "
        f"Parameters were chosen on the selection split of seed {settings.seed}, equal settings of each method."
    )
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
                _plain(best.tests) if best else [],
            ),
            Table("runs", "Runs", "One row a method and seed, test split.", rows),
        ],
        {
            "best_method": best.best if best else None,
            "goal": settings.goal,
            "seeds": list(pairs),
            "rules": [rule.as_dict() for rule in found.rules],
        },
        [
            best.sentence
            if best
            else f"{measure}: nothing was measured; without utility of U alone nothing is kept of it."
        ],
        [f"{len(pairs)} training seeds give little power; a difference not shown is not shown to be absent."],
    )


def _plain(table: Any) -> list[dict[str, Any]]:
    """Rows that JSON can hold."""
    records = table.to_dict("records") if isinstance(table, pd.DataFrame) else table
    return [{key: _value(value) for key, value in row.items()} for row in records]


def _value(value: Any) -> Any:
    if isinstance(value, list | dict | str | bool) or value is None:
        return value
    return None if pd.isna(value) else value.item() if hasattr(value, "item") else value
