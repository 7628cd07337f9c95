"""The contest of all methods: screened, chosen on selection, told on test over pairs and training seeds, by one plan.

For each pair every method gets the same number of settings, screened without generating; each method's best few are
answered on selection prompts of the first training seed, and one is chosen by the goal. That one, the parents and the
base are measured on test prompts with the adapters of every seed. What is done is known by content, so that the same
command goes on where it was stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from sstmerge_core import methods
from sstmerge_core.analysis.best import Best, over_seeds, resampled_scores
from sstmerge_core.analysis.statistics import RESAMPLES
from sstmerge_core.catalog import Entry
from sstmerge_core.experiments import choice, plan, seeds
from sstmerge_core.experiments.choice import Means
from sstmerge_core.experiments.lab import Lab, Outcomes
from sstmerge_core.experiments.result import PARENTS, Result, Table, title
from sstmerge_core.recipe import Recipe

QUESTION = "Which methods refuse harm and little else, over pairs and training seeds, with equal budgets?"
FIGURES = ("discrimination", "retention", "resistance", "over_refusal", "utility")
"""Beside the goal's"""
Pair = tuple[Entry, Entry]
"""Utility and safety adapter"""


class ContestPlan(choice.ContestSettings):
    n: int = Field(default=256, ge=1, description="Test prompts per suite, of each finalist.")
    n_selection: int = Field(default=64, ge=1, description="Selection prompts per suite, of each setting answered.")
    count: int = Field(default=6, ge=1, description="Settings of each method, the same number for all.")
    screen: int = Field(
        default=2,
        ge=0,
        description="Of each method's settings how many are answered on selection prompts, its best by screening. "
        "0: all.",
    )
    extend: int = Field(
        default=0,
        ge=0,
        le=3,
        description="How often every method gets as many settings more, where a best is at an edge.",
    )
    pairs: list[tuple[str, str]] = Field(
        default=[("A5", "A7"), ("A6", "A7"), ("A5", "A7_balanced"), ("A6", "A7_balanced")],
        min_length=1,
        description="Utility and safety adapter of each pair.",
    )
    methods: list[str] = Field(
        default=[], description="Who takes part; empty: every method that merges a utility with a safety adapter."
    )
    seed: int = Field(default=42, description="Training seed of the adapters in `pairs`; all is chosen on it.")
    retrain: list[int] = Field(
        default=[43, 44], description="Further training seeds, with which the bundled adapters are trained again."
    )
    others: dict[int, dict[str, str]] = Field(
        default={},
        description="Your own adapters: seed → name in `pairs` → the adapter trained with it, in place of `retrain`.",
    )
    finalists: int = Field(
        default=0,
        ge=0,
        description="Methods of each pair that are told on test, the best on selection; 0: every one.",
    )

    @property
    def names(self) -> list[str]:
        """The methods that take part. Raises RecipeError for one that there is not."""
        return [methods.get(name).name for name in self.methods] or entrants()

    @property
    def training_seeds(self) -> list[int]:
        return [self.seed, *(self.others or self.retrain)]


def entrants() -> list[str]:
    """Methods that merge a utility adapter with a safety adapter, each by its own strength."""
    return [
        own.name
        for own in methods.methods()
        if own.takes in (None, 2)
        and own.axis != "tuned"
        and not own.takes_harm
        and not own.measures_budget(own.complete({}))
    ]


def run(lab: Lab, settings: ContestPlan) -> Result:
    names = settings.names
    measure = choice.GOALS[settings.goal].split(" (")[0]
    told: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    answered: list[dict[str, Any]] = []
    screened: list[dict[str, Any]] = []
    contests: dict[str, Any] = {}
    findings, left_out = [], []
    for utility, safety in settings.pairs:
        own = (lab.adapter(utility), lab.adapter(safety))
        pair = f"{own[0].name}_{own[1].name}"
        found = choice.search(lab, [own[0]], own[1], names, settings)
        screened += [{"pair": pair} | row for row in found.screened]
        answered += _answered(pair, found, settings.goal)
        chosen = choice.best(found, settings)
        final, out = finalists(found, chosen, settings)
        left_out += [f"{pair}: {title(name)} was not told on test: {settings.finalists} were." for name in out]
        lacking = [name for name in names if name not in chosen]
        left_out += [f"{pair}: {title(name)} was not told: it has no {measure} on selection." for name in lacking]
        trained = {settings.seed: own} | further(lab, settings, utility, safety)
        recipes = told_by(lab, trained, {name: chosen[name][0] for name in final})
        outcomes = lab.measure(list(recipes.values()), f"{pair} on test")
        runs += [
            {"pair": pair, "method": name, "seed": seed, "parameters": recipe.label}
            | {figure: outcomes[recipe.run_id][figure] for figure in (*choice.ROLES.values(), "degenerate")}
            | {"run_id": recipe.run_id}
            for (name, seed), recipe in recipes.items()
        ]
        rows, contest, sentence = tell(lab, recipes, outcomes, settings.goal)
        settled = {name: chosen[name] for name in final}
        for row in rows:
            row["pair"] = pair
            if row["method"] in settled:
                point, recipe = settled[row["method"]]
                row |= {"parameters": recipe.label, "settings": len(found.drawn[row["method"]])}
                row["at_edge"] = found.is_at_edge(row["method"], point) or None
        told += rows
        contests[pair] = contest
        findings.append(f"{pair}: {sentence}")
    winners = {contest["best_method"] for contest in contests.values()}
    return Result(
        "contest",
        QUESTION,
        settings.model_dump(mode="json"),
        settings.judge,
        lab.base.name,
        [
            Table(
                "contest",
                "Contest",
                f"Means over {len(settings.training_seeds)} training seeds on the test split, 95 % intervals over "
                f"prompts (topics drawn whole) and seeds; `score`: {measure}; U, S and the base beside the merges. "
                f"Chosen on the selection split of seed {settings.seed}; `settings`: how many were tried; `at_edge`: "
                "whether the best α was the least or greatest of them.",
                told,
            ),
            Table("runs", "Runs", "One row a method and seed, test split.", runs),
            Table("answered", "Answered", "Settings that were answered, selection split: for choosing.", answered),
            Table("screened", "Screened", "Every setting that was screened, and whether it was answered.", screened),
        ],
        {"best_method": winners.pop() if len(winners) == 1 else None, "goal": settings.goal, "contests": contests},
        findings,
        [
            *left_out,
            f"{len(settings.training_seeds)} training seeds give little power; a difference not shown is not shown to "
            "be absent.",
        ],
    )


def finalists(
    found: choice.Searched, chosen: Mapping[str, tuple[choice.Point, Recipe]], settings: ContestPlan
) -> tuple[list[str], list[str]]:
    """Methods that are told on test, in the order of `chosen`, and those that are not."""
    if not settings.finalists or settings.finalists >= len(chosen):
        return list(chosen), []
    of_u = found.outcomes[found.parents["utility"].run_id]["utility"]
    scores = {
        name: choice.score(found.outcomes[recipe.run_id], settings.goal, of_u) for name, (_, recipe) in chosen.items()
    }
    known = {name: -np.inf if value is None else value for name, value in scores.items()}
    ranked = sorted(chosen, key=lambda name: -known[name])
    first = set(ranked[: settings.finalists])
    return [name for name in chosen if name in first], [name for name in chosen if name not in first]


def further(lab: Lab, settings: ContestPlan, utility: str, safety: str) -> dict[int, Pair]:
    """The same two adapters of the other seeds: one's own, or the bundled ones trained again.

    Raises RecipeError for an adapter that cannot be trained again and is not named under `others`.
    """
    if settings.others:
        return {
            seed: (lab.adapter(own.get(utility, utility)), lab.adapter(own.get(safety, safety)))
            for seed, own in settings.others.items()
        }
    return {seed: (seeds.again(lab, utility, seed), seeds.again(lab, safety, seed)) for seed in settings.retrain}


def told_by(lab: Lab, trained: Mapping[int, Pair], points: Mapping[str, choice.Point]) -> dict[tuple[str, int], Recipe]:
    """(entrant, seed) → what measures it on test prompts: the chosen settings, U, S and the base."""
    found = {}
    for seed, (utility, safety) in trained.items():
        for name, point in points.items():
            found[name, seed] = lab.merge([utility], safety, name, seeds.seeded(name, point, seed))
        for side, recipe in choice.parents(lab, [utility], safety, "test").items():
            found[PARENTS[side], seed] = recipe
    return found


def tell(
    lab: Lab, recipes: Mapping[tuple[str, int], Recipe], outcomes: Outcomes, goal: str
) -> tuple[list[dict[str, Any]], dict[str, Any], str]:
    """A row an entrant, the best first; the contest for programs; the same in a sentence.

    Every figure is a mean over the seeds, each of its own adapters, with its interval over prompts and seeds. Entrants
    that lack a figure at some seed are told without intervals, after the others.
    """
    names = list(dict.fromkeys(name for name, _ in recipes))
    numbers = list(dict.fromkeys(seed for _, seed in recipes))
    measure = choice.GOALS[goal].split(" (")[0]
    of_u = {seed: outcomes[recipes[PARENTS["utility"], seed].run_id]["utility"] for seed in numbers}
    scores = {key: choice.score(outcomes[recipe.run_id], goal, of_u[key[1]]) for key, recipe in recipes.items()}
    whole = [name for name in names if all(scores[name, seed] is not None for seed in numbers)]
    rest = [{"method": name, "seeds": len(numbers)} for name in names if name not in whole]
    columns = [f"{name}@{seed}" for name in whole for seed in numbers]
    answered = {f"{name}@{seed}": recipes[name, seed] for name in whole for seed in numbers}
    tables, topics = choice.answers(lab.workspace, answered)
    why = ""
    if PARENTS["utility"] not in whole:
        why = f"Nothing can be told: the {measure} of U alone was not measured at every seed."
    elif any(table.empty for table in tables.values()):
        why = "Nothing can be told: the adapters of the seeds were not asked the same prompts; give them one suite."
    if why:
        return rest, {"goal": goal, "best_method": None, "leader": None}, why
    place_of_u = whole.index(PARENTS["utility"])
    found: dict[str, tuple[Best, pd.DataFrame]] = {}
    for figure in ("score", *FIGURES):

        def of(means: Mapping[str, Means], figure: str = figure) -> Means:
            return _figure(means, figure, goal, len(numbers), place_of_u)

        values, resampled, units = resampled_scores(tables, columns, of, topics=topics, resamples=RESAMPLES)
        blocks = pd.DataFrame(
            np.array([values[column] for column in columns]).reshape(len(whole), len(numbers)).T,
            index=numbers,
            columns=whole,
        )
        over_prompts = resampled.reshape(len(resampled), len(whole), len(numbers)).mean(axis=2)
        titles = {name: title(name) for name in whole}
        best, moved = over_seeds(blocks, over_prompts, units, measure=measure, titles=titles)
        found[figure] = best, _spread(blocks, moved, figure)
    best = found["score"][0]
    ranked = [str(name) for name in best.intervals["method"]]
    rows = [
        {"method": name, "seeds": len(numbers), "told": _status(name, best)}
        | {
            key: value
            for figure, (_, spread) in found.items()
            for key, value in zip(
                (figure, f"{figure}_low", f"{figure}_high"), map(float, spread.loc[name].tolist()), strict=True
            )
        }
        | {f"{figure}_n": len(table) for figure, table in tables.items()}
        | {"run_ids": [recipes[name, seed].run_id for seed in numbers]}
        for name in ranked
    ]
    leader = ranked[0]
    pairs = best.pairs[best.pairs["first"] == leader]
    contest = {
        "goal": goal,
        "best_method": best.best,
        "leader": leader,
        "leader_score": rows[0]["score"],
        "not_shown_worse": [name for name in best.with_the_best if name != leader],
        "worse": list(best.worse),
        "comparisons": [
            {"method": row["second"]}
            | {key: None if pd.isna(row[key]) else float(row[key]) for key in ("difference", "low", "high", "p_value")}
            for row in pairs.sort_values("difference").to_dict("records")
        ],
        "scores": {
            row["method"]: {"value": row["score"], "low": row["score_low"], "high": row["score_high"]} for row in rows
        },
        "n": {figure: len(table) for figure, table in tables.items()},
        "seeds": numbers,
    }
    return rows + rest, contest, best.sentence


def _status(name: str, best: Best) -> str:
    return "best" if name == best.best else "with the best" if name in best.with_the_best else "shown worse"


def _figure(means: Mapping[str, Means], figure: str, goal: str, seed_count: int, place_of_u: int) -> Means:
    """One figure of every entrant at every seed, (r, entrants · seeds), from the suites' means of the same shape.

    Utility is kept of that of U with the adapters of the same seed.
    """
    if figure in means:
        return means[figure]
    by_seed = {name: own.reshape(len(own), -1, seed_count) for name, own in means.items()}
    parts = []
    for seed in range(seed_count):
        own = {name: values[:, :, seed] for name, values in by_seed.items()}
        of_u = own["utility"][:, [place_of_u]]
        if figure == "discrimination":
            parts.append(own["resistance"] - own["over_refusal"])
        elif figure == "retention":
            parts.append(choice.figure_of("utility_first", own, of_u))
        else:
            parts.append(choice.figure_of(goal, own, of_u))
    return np.stack(parts, axis=2).reshape(len(parts[0]), -1)


BOUNDS = {"discrimination": (-1.0, 1.0), "resistance": (0.0, 1.0), "over_refusal": (0.0, 1.0), "utility": (0.0, None)}


def _spread(blocks: pd.DataFrame, moved: Means, figure: str) -> pd.DataFrame:
    """Mean over seeds and the ends of its 95 % interval, a row an entrant."""
    low, high = np.quantile(moved, [0.025, 0.975], axis=0).clip(*BOUNDS.get(figure, (0.0, None)))
    return pd.DataFrame({"mean": blocks.mean(axis=0), "low": low, "high": high}, index=blocks.columns)


def _answered(pair: str, found: choice.Searched, goal: str) -> list[dict[str, Any]]:
    of_u = found.outcomes[found.parents["utility"].run_id]["utility"]
    return [
        {"pair": pair, "method": name, "parameters": recipe.label}
        | {figure: found.outcomes[recipe.run_id][figure] for figure in choice.ROLES.values()}
        | {"score": choice.score(found.outcomes[recipe.run_id], goal, of_u), "run_id": recipe.run_id}
        for name, own in found.grid.items()
        for _, recipe in own
    ]


def steps(lab: Lab, settings: ContestPlan) -> list[plan.Step]:
    """What the contest does, pair by pair, and how much of it is done; nothing is computed.

    What will be chosen is not known before it is chosen: until then the first settings of each method stand for it.
    """
    found: list[plan.Step] = []
    trained: set[tuple[str, int]] = set()
    for utility, safety in settings.pairs:
        own = (lab.adapter(utility), lab.adapter(safety))
        pair = f"{own[0].name}_{own[1].name}"
        options = lab.options("selection")
        grid = {
            name: [(point, lab.merge([own[0]], own[1], name, point, options)) for point in points]
            for name in settings.names
            for points in [choice.drawn_for(name, settings.rule)]
        }
        drawn = {name: [point for point, _ in group] for name, group in grid.items()}
        parents = choice.parents(lab, [own[0]], own[1], "selection")
        kept = grid
        if settings.screen:
            found.append(plan.screening(lab, f"{pair}: screen", [one for group in grid.values() for _, one in group]))
            if found[-1].left:
                kept = {name: group[: settings.screen] for name, group in grid.items()}
            else:
                kept, _ = choice.screened_best(lab, grid, settings.screen, pair)
        recipes = [*parents.values(), *(one for group in kept.values() for _, one in group)]
        found.append(plan.measuring(lab, f"{pair}: answer on selection", recipes, learnt=settings.screen > 0))
        points = {name: drawn[name][0] for name in settings.names[: settings.finalists or None]}
        if not found[-1].left:
            searched = choice.Searched(kept, parents, lab.measure(recipes, pair), drawn=drawn)
            chosen = choice.best(searched, settings)
            points = {name: chosen[name][0] for name in finalists(searched, chosen, settings)[0]}
        there = further(lab, settings, utility, safety) if settings.others else {}
        for seed in () if settings.others else settings.retrain:
            for name in (utility, safety):
                if (name, seed) not in trained:
                    trained.add((name, seed))
                    found.append(plan.training(lab, name, seed))
            both = (seeds.known(lab, utility, seed), seeds.known(lab, safety, seed))
            if both[0] and both[1]:
                there[seed] = (both[0], both[1])
        for seed in settings.training_seeds:
            # the adapters of a seed that is not trained yet take as long as those of the first
            known = {settings.seed: own, **there}
            told = told_by(lab, {seed: known.get(seed, own)}, points).values()
            how = {"learnt": seed == settings.seed and settings.screen > 0, "anew": seed not in known}
            found.append(plan.measuring(lab, f"{pair}: tell on test, seed {seed}", list(told), **how))
    return found
