"""Search: method and parameters by Optuna for several objectives at once, and the front that was predicted before.

The study is never stored: with one seed it asks for the same points again, and what is measured already costs nothing.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field
from scipy import stats

from sstmerge_core import methods
from sstmerge_core.analysis import screening
from sstmerge_core.analysis.front import hypervolume, pareto_front
from sstmerge_core.catalog import Entry
from sstmerge_core.errors import Problem, RecipeError
from sstmerge_core.experiments import choice
from sstmerge_core.experiments.lab import Lab
from sstmerge_core.experiments.result import Result, Table, pick
from sstmerge_core.experiments.settings import Settings
from sstmerge_core.recipe import Recipe

QUESTION = "Which methods and parameters lie on the front, and did the quadratic model foresee it?"
FIGURES = ("resistance", "utility", "over_refusal", "degenerate")
SPACE: dict[str, tuple[float, float, bool]] = {
    "k": (1, 48, False),
    "tau": (1.0, 1000.0, True),
    "density": (0.05, 1.0, False),
    "p": (0.1, 0.9, False),
    "m": (1, 48, False),
}
"""Lowest, highest, and whether on a logarithmic scale, of the parameters searched beside α"""


class SearchSettings(Settings):
    utility: str = Field(default="A5", description="Utility adapter.")
    safety: str = Field(default="A7", description="Safety adapter.")
    methods: list[str] = Field(
        default=["linear", "task_arithmetic", "ties", "dare_linear", "sst_gevp", "sst_soft", "sst_shield"],
        description="Methods to choose among.",
    )
    trials: int = Field(default=40, ge=1, description="Budget: points measured on the selection split.")
    sampler: Literal["nsga2", "tpe"] = Field(default="nsga2", description="Of Optuna.")
    seed: int = Field(default=42, description="Of the sampler.")
    strongest: float = Field(default=3.0, gt=0, le=4, description="Largest α of methods that add with a strength.")
    objectives: list[str] = Field(
        default=["resistance", "utility", "over_refusal"], description="Over-refusal and degenerate fall, others rise."
    )
    screen: int = Field(
        default=0,
        ge=0,
        description="Trials at which the search starts: the best of a grid of α for every method, by screening them "
        "without generation (docs/screening.md). 0 screens nothing.",
    )
    finalists: int = Field(default=4, ge=0, description="Points of the front that are measured on the test split.")


def run(lab: Lab, settings: SearchSettings) -> Result:
    """Predict, search, and measure the finalists. Raises RecipeError, before anything is computed, without Optuna."""
    if importlib.util.find_spec("optuna") is None:
        raise RecipeError(Problem("Optuna", "is not installed", 'Install it: pip install "sstmerge[search]"'))
    utility, safety = lab.adapter(settings.utility), lab.adapter(settings.safety)
    grid = _grid(lab, settings, utility, safety)
    predicted = _predicted(lab, grid, utility, safety)
    start, screened = _screened(lab, grid, settings)
    trials = _trials(lab, settings, utility, safety, start)
    forecast = lab.predict([recipe for recipe, _ in trials], utility, safety, "predicting the trials")
    figures = lab.screen([recipe for recipe, _ in trials], "screening the trials") if settings.screen else []
    rows: list[dict[str, Any]] = [
        {"method": recipe.method, "parameters": recipe.label}
        | pick(one, *FIGURES)
        | {"predicted_benign_cost": guess.benign_cost, "predicted_harm_change": guess.harm_change}
        | {"run_id": recipe.run_id}
        for (recipe, one), guess in zip(trials, forecast, strict=True)
    ]
    for row, found in zip(rows, figures, strict=False):
        row |= found.figures | {"separation": screening.separation(found.figures)}
    measured = [row for row in rows if all(row[name] is not None for name in settings.objectives)]
    points = [[_better(row, name) for name in settings.objectives] for row in measured]
    front = [row for row, on in zip(measured, pareto_front(points), strict=True) if on] if points else []
    finals = _finals(lab, front, {recipe.run_id: recipe for recipe, _ in trials}, settings, utility, safety)
    checked = _check(measured)
    agreed = _agreement(measured) if settings.screen else {}
    return Result(
        "search",
        QUESTION,
        settings.model_dump(mode="json"),
        settings.judge,
        lab.base.name,
        [
            Table("finalists", "Finalists", "Spread over the front of the search, measured on the test split.", finals),
            Table("trials", "Trials", "Every point of the search, selection split, with what was predicted.", rows),
            Table(
                "predicted",
                "Predicted front",
                "From gradients alone, before anything was generated: what each merge would cost benign answers and "
                "how it would move refusals, nats per token.",
                [row | figures for row, figures in zip(predicted, screened, strict=True)],
            ),
        ],
        {
            "best_method": None,
            "why": "A front has no single best method.",
            "front": [row["run_id"] for row in front],
            "hypervolume": hypervolume([row[:2] for row in points]) if points else None,
            "prediction": checked,
        }
        | ({"screening": {name: one._asdict() for name, one in agreed.items()}} if settings.screen else {}),
        [
            _front_sentence(front, measured, settings),
            *_check_sentences(checked),
            *_screening_sentences(agreed, start),
        ],
        [
            "A front has no single best method; its points were found on the selection split.",
            "Predictions see the adapters' core space only: what TIES, DARE and DELLA put outside it is not counted.",
        ],
    )


def _grid(lab: Lab, settings: SearchSettings, utility: Entry, safety: Entry) -> list[Recipe]:
    """α for every method, defaults elsewhere."""
    recipes = []
    for name in settings.methods:
        axis = methods.get(name).axis
        top = settings.strongest if axis == "strength" else 1.0
        steps = [top * step / 10 for step in range(1, 11)] if axis else []
        recipes += [lab.merge([utility], safety, name, {"alpha": round(alpha, 6)}) for alpha in steps]
        recipes += [] if axis else [lab.merge([utility], safety, name, {})]
    return recipes


def _screened(
    lab: Lab, grid: Sequence[Recipe], settings: SearchSettings
) -> tuple[list[Recipe], list[dict[str, float]]]:
    """The best of the grid by screening, and the figures of all of it; nothing where it is not wanted."""
    if not settings.screen:
        return [], [{} for _ in grid]
    found = lab.screen(grid, "screening the grid")
    record = screening.choose(
        [one.setting for one in found], screening.Screening(min(settings.screen, settings.trials))
    )
    best = [one.run_id for one in record.settings if one.generated and one.place]
    by_id = {recipe.run_id: recipe for recipe in grid}
    return [by_id[run_id] for run_id in best], [one.figures for one in found]


def _predicted(lab: Lab, recipes: Sequence[Recipe], utility: Entry, safety: Entry) -> list[dict[str, Any]]:
    """The quadratic model's figures over the grid."""
    found = lab.predict(recipes, utility, safety, "predicting the front")
    return [
        {"method": recipe.method, "alpha": recipe.parameters.get("alpha"), **one._asdict()}
        for recipe, one in zip(recipes, found, strict=True)
    ]


def _trials(
    lab: Lab, settings: SearchSettings, utility: Entry, safety: Entry, start: Sequence[Recipe] = ()
) -> list[tuple[Recipe, dict[str, Any]]]:
    """What the sampler asked for, each point once, with its outcome on the selection split; `start` comes first."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = (
        optuna.samplers.NSGAIISampler(seed=settings.seed, population_size=max(4, settings.trials // 4))
        if settings.sampler == "nsga2"
        else optuna.samplers.TPESampler(seed=settings.seed)
    )
    falling = ("over_refusal", "degenerate")
    kinds = optuna.study.StudyDirection
    directions = [kinds.MINIMIZE if name in falling else kinds.MAXIMIZE for name in settings.objectives]
    study = optuna.create_study(directions=directions, sampler=sampler)
    for recipe in start:
        own = {f"{recipe.method}.{name}": value for name, value in recipe.parameters.items() if value is not None}
        study.enqueue_trial({"method": recipe.method, **own})
    options = lab.options("selection")
    lab.expected = settings.trials + settings.finalists
    found: dict[str, tuple[Recipe, dict[str, Any]]] = {}
    asked = 0
    while len(found) < settings.trials and asked < 5 * settings.trials:  # a small space is exhausted sooner
        asked += 1
        trial = study.ask()
        name = trial.suggest_categorical("method", settings.methods)
        recipe = lab.merge([utility], safety, name, _suggest(trial, name, settings), options)
        outcome = lab.measure([recipe], "searching")[recipe.run_id]
        found.setdefault(recipe.run_id, (recipe, outcome))
        values = [value for name in settings.objectives if (value := outcome.get(name)) is not None]
        if len(values) < len(settings.objectives):
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, values)
    return list(found.values())


def _suggest(trial: Any, name: str, settings: SearchSettings) -> choice.Point:
    """Parameters of one trial, rounded so that equal points meet."""
    entry = methods.get(name)
    point: choice.Point = {}
    for parameter in entry.parameters:
        label = f"{name}.{parameter.name}"
        if parameter.name == "alpha":
            strength = entry.axis == "strength"
            low, high = (0.1, settings.strongest) if strength else (0.05, 1.0)
            point["alpha"] = round(trial.suggest_float(label, low, high), 2)
        elif parameter.name in ("k", "m"):
            low, high, _ = SPACE[parameter.name]
            point[parameter.name] = trial.suggest_int(label, int(low), int(high))
        elif parameter.name in SPACE:
            low, high, log = SPACE[parameter.name]
            value = trial.suggest_float(label, low, high, log=log)
            point[parameter.name] = float(f"{value:.2g}") if log else round(value, 2)
    return point


def _finals(
    lab: Lab,
    front: Sequence[dict[str, Any]],
    trials: dict[str, Recipe],
    settings: SearchSettings,
    utility: Entry,
    safety: Entry,
) -> list[dict[str, Any]]:
    """Some of the front, evenly along resistance, on the test split."""
    ordered = sorted(front, key=lambda row: row["resistance"] or 0.0)
    count = min(settings.finalists, len(ordered))
    places = sorted({round(index * (len(ordered) - 1) / max(1, count - 1)) for index in range(count)})
    recipes = []
    for place in places:
        searched = trials[ordered[place]["run_id"]]
        recipes.append(lab.merge([utility], safety, searched.method, searched.parameters))
    outcomes = lab.measure(recipes, "testing the front")
    return [
        {"method": recipe.method, "parameters": recipe.label}
        | pick(outcomes[recipe.run_id], *FIGURES, "safety_tax")
        | {"run_id": recipe.run_id}
        for recipe in recipes
    ]


def _check(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Spearman's ρ between what was predicted and what was measured, over the trials."""
    found: dict[str, Any] = {"n": len(rows)}
    for label, guess, measure in (
        ("utility", "predicted_benign_cost", "utility"),
        ("safety", "predicted_harm_change", "resistance"),
    ):
        known = [(-row[guess], row[measure]) for row in rows if row.get(measure) is not None]
        if len(known) >= 4 and len({value for _, value in known}) > 1 and len({value for value, _ in known}) > 1:
            rho = stats.spearmanr([one for one, _ in known], [other for _, other in known])
            found[label] = {"spearman": float(rho.statistic), "p_value": float(rho.pvalue)}
    return found


def _agreement(rows: Sequence[dict[str, Any]]) -> dict[str, screening.Correlation]:
    """Of the trials' screening figures with what was measured on the selection split."""
    told = [
        row | {"discrimination": row["resistance"] - row["over_refusal"]}
        for row in rows
        if row["resistance"] is not None and row["over_refusal"] is not None
    ]
    return screening.agreement(told)


def _screening_sentences(agreed: Mapping[str, screening.Correlation], start: Sequence[Recipe]) -> list[str]:
    if not start:
        return []
    told = [
        f"{name} with {screening.COMPARED[name][1].replace('_', '-')} {one.rho:.2f}"
        + (f" ({one.interval[0]:.2f} to {one.interval[1]:.2f})" if one.interval else "")
        for name, one in agreed.items()
    ]
    first = f"The search started at the {len(start)} best of the grid. {screening.RULE}"
    return [first, f"Spearman of screening with what was measured: {'; '.join(told)}."] if told else [first]


def _better(row: dict[str, Any], objective: str) -> float:
    return 1 - row[objective] if objective in ("over_refusal", "degenerate") else row[objective]


def _front_sentence(
    front: Sequence[Mapping[str, Any]], points: Sequence[Mapping[str, Any]], settings: SearchSettings
) -> str:
    names = list(dict.fromkeys(methods.get(row["method"]).title for row in front))
    n = max((row.get("resistance_n") or 0 for row in points), default=0)
    return (
        f"{len(front)} of {len(points)} points lie on the front of the selection split ({n} harmful prompts, judge "
        f"{settings.judge}, sampler {settings.sampler} with seed {settings.seed}): {', '.join(names) or 'none'}."
    )


def _check_sentences(checked: dict[str, Any]) -> list[str]:
    words = {
        "utility": "a smaller predicted benign cost goes with a higher measured utility",
        "safety": "a larger predicted fall of the refusal loss goes with a higher measured resistance",
    }
    return [
        f"Over {checked['n']} points of the selection split, whether {text}: "
        f"Spearman {one['spearman']:.2f} (p = {one['p_value']:.2g})."
        for label, text in words.items()
        if (one := checked.get(label))
    ]
