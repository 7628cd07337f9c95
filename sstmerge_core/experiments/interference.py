"""Experiment 2: how much of each expert's own task is left when many are merged with safety (ALGORITHMS §9.2)."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from sstmerge_core import methods, metrics
from sstmerge_core.analysis.statistics import bootstrap_mean
from sstmerge_core.catalog import Entry
from sstmerge_core.demo import adapters as demo
from sstmerge_core.errors import RecipeError
from sstmerge_core.experiments.lab import Lab
from sstmerge_core.experiments.result import Result, Table, mean, pick
from sstmerge_core.experiments.settings import Settings
from sstmerge_core.recipe import Recipe
from sstmerge_core.runs.outcome import samples
from sstmerge_core.suites import bundled as demo_suites
from sstmerge_core.train import TrainingSettings

QUESTION = "How much of every expert's own task is left when many experts are merged with a safety adapter?"


class InterferenceSettings(Settings):
    counts: list[int] = Field(default=[8, 12, 16, 20], description="How many experts are merged with the safety one.")
    safety: str = Field(default="A7", description="Safety adapter.")
    methods: dict[str, list[dict[str, Any]]] = Field(
        default={
            "linear": [{"alpha": 0.5}],
            "task_arithmetic": [{"alpha": 1.0, "experts": "sum"}, {"alpha": 1.0, "experts": "mean"}],
            "ties": [{"alpha": 0.5}],
            "dare_linear": [{"alpha": 0.5}],
            "sst_gevp": [{"alpha": 1.0, "experts": "sum"}, {"alpha": 1.0, "experts": "mean"}],
        },
        description="Methods, each with one or several settings of its parameters.",
    )
    rank: int = Field(default=4, description="Of the experts that are trained.")
    epochs: float = Field(default=15, description="Of their training.")
    learning_rate: float = Field(default=2e-3, description="Of their training.")

    @field_validator("methods", mode="before")
    @classmethod
    def _one_or_several(cls, given: Any) -> Any:
        """``linear: {alpha: 0.5}`` is one setting."""
        if not isinstance(given, dict):
            return given
        return {name: [one] if isinstance(one, dict) else one for name, one in given.items()}

    @field_validator("methods")
    @classmethod
    def _usable(cls, given: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
        """Before twenty experts are trained, and not after."""
        for name, several in given.items():
            if not several:
                raise ValueError(f"{name} has no setting: give {{}} for its defaults, or leave it out")
            problems = [problem for one in several for problem in methods.get(name).problems(one)]
            if problems:
                raise RecipeError(problems)
        return given


def run(lab: Lab, settings: InterferenceSettings) -> Result:
    worlds = _worlds()[: max(settings.counts)]
    safety = lab.adapter(settings.safety)
    variants = [(name, given) for name, several in settings.methods.items() for given in several]
    lab.expected = len(worlds) * 2 + len(settings.counts) * len(variants)
    experts = [_expert(lab, settings, world, rows) for world, rows in worlds]
    own = [_own(lab, expert, rows) for expert, (_, rows) in zip(experts, worlds, strict=True)]
    lab.measure(own, "experts alone")
    alone = {
        world: mean(list(_scores(lab, recipe)[1].values())) for (world, _), recipe in zip(worlds, own, strict=True)
    }
    rows: list[dict[str, Any]] = []
    for count in settings.counts:
        suite = lab.file(f"worlds-{count}", [row for _, found in worlds[:count] for row in found])
        options = lab.options(utility_suite=str(suite), n=10_000)
        recipes = [lab.merge(experts[:count], safety, name, given, options) for name, given in variants]
        outcomes = lab.measure(recipes, f"{count} experts")
        rows += [
            _row(lab, count, name, _told(settings, name, given), recipe, outcomes[recipe.run_id], alone)
            for (name, given), recipe in zip(variants, recipes, strict=True)
        ]
    own_rows = [
        {"expert": world, "utility": alone[world], "run_id": recipe.run_id}
        for (world, _), recipe in zip(worlds, own, strict=True)
    ]
    most = max(settings.counts)
    ranked = sorted((row for row in rows if row["experts"] == most), key=lambda row: -(row["retention"] or 0))
    about = (
        "Retention: mean over the experts of merged ÷ own utility on the expert's own five test questions; "
        "its interval is a bootstrap over the experts."
    )
    return Result(
        "interference",
        QUESTION,
        settings.model_dump(mode="json"),
        settings.judge,
        lab.base.name,
        [
            Table("retention", "Retention", about, rows),
            Table("experts", "Experts alone", "ROUGE-L on their own test questions.", own_rows),
        ],
        {"best_method": _clear_winner(ranked), "most_experts": most},
        [_sentence(ranked, most)] if ranked else [],
        ["Parameters of the methods are not searched: retention at the strength given, with resistance beside it."],
    )


def _worlds() -> list[tuple[str, list[dict[str, Any]]]]:
    """Tiny fact worlds: topics of the bundled facts that have test questions, each with rows of its own.

    Of three paraphrases of a fact two are learnt and one gives the Fisher matrix; a fourth is the test question.
    """
    rows = demo.rows(("facts",), "train")
    tests = demo.rows(("facts",), "test")
    found = []
    for topic in dict.fromkeys(row["topic"] for row in tests):
        own = [
            row | {"split": "fisher" if row["id"].endswith("-3") else "train"} for row in rows if row["topic"] == topic
        ]
        found.append((topic, [*own, *(row for row in tests if row["topic"] == topic)]))
    return found


def _expert(lab: Lab, settings: InterferenceSettings, world: str, rows: list[dict[str, Any]]) -> Entry:
    name = "".join(letter for letter in world.title() if letter.isalnum())
    pairs = [(row["prompt"], row["response"]) for row in rows if row["split"] == "train"]
    training = TrainingSettings(
        r=settings.rank,
        lora_alpha=2 * settings.rank,
        learning_rate=settings.learning_rate,
        epochs=settings.epochs,
        batch_size=len(pairs),
    )
    suite = lab.file(name, rows)
    return lab.train(
        name, pairs, training, role="utility", suite=str(suite), description=f"{len(pairs)} statements about {world}"
    )


def _own(lab: Lab, expert: Entry, rows: list[dict[str, Any]]) -> Recipe:
    """The expert alone on its own test questions only."""
    recipe = lab.alone(expert, expert.suite, lab.options(n=10_000))
    assert recipe.evaluation is not None
    suite = demo_suites.suite(expert.suite, "utility", "test", 10_000)
    return recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"suites": (suite,)})})


def _told(settings: InterferenceSettings, name: str, given: dict[str, Any]) -> str | None:
    """What tells a setting of a method from its others; None where it has one only."""
    several = settings.methods[name]
    if len(several) == 1:
        return None
    return " ".join(f"{key}={value}" for key, value in given.items() if any(value != one.get(key) for one in several))


def _row(
    lab: Lab,
    count: int,
    name: str,
    parameters: str | None,
    recipe: Recipe,
    outcome: dict[str, Any],
    alone: dict[str, float | None],
) -> dict[str, Any]:
    answers, scores = _scores(lab, recipe)
    shares = []
    for world, own in alone.items():
        merged = mean([scores[row["prompt_id"]] for row in answers if row["topic"] == world])
        if merged is not None and own:
            shares.append(merged / own)
    interval = bootstrap_mean(shares) if shares else (None, None)
    return (
        {"experts": count, "method": name, "parameters": parameters, "retention": mean(shares)}
        | {"retention_low": interval[0], "retention_high": interval[1], "retention_n": len(shares)}
        | pick(outcome, "resistance", "utility", "over_refusal", "degenerate")
        | {"run_id": recipe.run_id}
    )


def _scores(lab: Lab, recipe: Recipe) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The answers to the recipe's last suite, its task, and each one's score by the metric that the suite declares."""
    assert recipe.evaluation is not None
    suite = recipe.evaluation.suites[-1]
    answers = samples(lab.workspace, recipe, suite.name)
    return answers, metrics.outcomes(metrics.default_utility(suite.metric), answers)


def _clear_winner(ranked: list[dict[str, Any]]) -> str | None:
    """The first where its interval lies above every other's."""
    if not ranked or ranked[0]["retention"] is None:
        return None
    rest = [row["retention_high"] for row in ranked[1:] if row["retention_high"] is not None]
    return ranked[0]["method"] if not rest or ranked[0]["retention_low"] > max(rest) else None


def _sentence(ranked: list[dict[str, Any]], count: int) -> str:
    parts = [
        " ".join(
            filter(
                None,
                [
                    methods.get(row["method"]).title,
                    row["parameters"],
                    f"{row['retention']:.2f} ({row['retention_low']:.2f}–{row['retention_high']:.2f})",
                    f"at resistance {row['resistance']:.2f}",
                ],
            )
        )
        for row in ranked
        if row["retention"] is not None and row["resistance"] is not None
    ]
    if not parts:
        return "No expert scores anything on its own task, so there is nothing to retain."
    return f"Retention with {count} experts and the safety adapter: {'; '.join(parts)}."
