"""Experiment 2: how much of each expert's own task is left when many are merged with safety (ALGORITHMS §9.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from sstmerge_core import methods, metrics
from sstmerge_core.analysis.best import Best, with_the_best
from sstmerge_core.analysis.statistics import RESAMPLES, SEED, count_units, paired_ratio, resampled_columns
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
    lab.expected = len(worlds) * 2 + len(settings.counts) * (len(variants) + 2)
    experts = [_expert(lab, settings, world, rows) for world, rows in worlds]
    own = [_own(lab, expert, rows) for expert, (_, rows) in zip(experts, worlds, strict=True)]
    lab.measure(own, "experts alone")
    alone = {world: _scores(lab, recipe) for (world, _), recipe in zip(worlds, own, strict=True)}
    rows: list[dict[str, Any]] = []
    compared: dict[str, dict[str, float]] = {}
    for count in settings.counts:
        suite = lab.file(f"worlds-{count}", [row for _, found in worlds[:count] for row in found])
        options = lab.options(utility_suite=str(suite), n=10_000)
        told = [
            ("base", None, lab.alone(None, str(suite), options)),
            ("adapter", safety.name, lab.alone(safety, str(suite), options)),
        ]
        told += [
            (name, _told(settings, name, given), lab.merge(experts[:count], safety, name, given, options))
            for name, given in variants
        ]
        outcomes = lab.measure([recipe for *_, recipe in told], f"{count} experts")
        by_expert = _Own({world: alone[world] for world, _ in worlds[:count]})
        for name, parameters, recipe in told:
            scores = _scores(lab, recipe)
            row = {"experts": count, "method": name, "parameters": parameters, **by_expert.retention(scores)}
            row |= pick(outcomes[recipe.run_id], "resistance", "utility", "over_refusal", "degenerate")
            rows.append(row | {"run_id": recipe.run_id})
            if count == max(settings.counts) and name not in ("base", "adapter"):
                compared[recipe.run_id] = scores
    own_rows = [
        {"expert": world, "utility": mean(list(alone[world].values())), "run_id": recipe.run_id}
        for (world, _), recipe in zip(worlds, own, strict=True)
    ]
    most = max(settings.counts)
    ranked = sorted((row for row in rows if row["experts"] == most), key=lambda row: -(row["retention"] or 0))
    about = (
        "Retention: merged ÷ the experts' own utility, both over the experts' own five test questions each; its 95 % "
        "interval is Fieller's over the experts, whose questions belong together. The base and the safety adapter "
        "alone answered the same questions: what they have, no merge has retained."
    )
    best = _Own({world: alone[world] for world, _ in worlds[:most]}).best(compared, _titles(ranked))
    methods_of = {row["run_id"]: row["method"] for row in ranked}
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
        {
            "best_method": methods_of[best.best] if best and best.best else None,
            "best_run": best.best if best else None,
            "with_the_best": list(best.with_the_best) if best else [],
            "most_experts": most,
        },
        [
            _sentence(ranked, most, settings.judge),
            *([f"With {most} experts, by retention alone: {best.sentence}"] if best else []),
        ],
        [
            "Parameters of the methods are not searched: retention at the strength given, with resistance beside it.",
            "One training seed an expert and one of each merge: what other seeds would change is not in the intervals.",
        ],
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


class _Own:
    """The experts' own scores on their own questions, and what others score on the same."""

    def __init__(self, alone: Mapping[str, Mapping[str, float]]):
        self.asked = [(world, question) for world, scores in alone.items() for question in scores]
        self.worlds = [world for world, _ in self.asked]
        self.own = np.array([alone[world][question] for world, question in self.asked])

    def retention(self, scores: Mapping[str, float]) -> dict[str, Any]:
        """Share of the experts' own utility with its interval; None where they have none, or one expert."""
        values = self._values(scores)
        if values is None or not self.own.mean() > 0:
            return dict.fromkeys(("retention", "retention_low", "retention_high")) | {"retention_n": 0}
        n = count_units(self.own, self.worlds)
        low, high = paired_ratio(values, self.own, self.worlds) if n > 1 else (np.nan, np.nan)
        ends = {"retention_low": low, "retention_high": high} if np.isfinite([low, high]).all() else {}
        nothing: dict[str, Any] = {"retention_low": None, "retention_high": None}
        return {"retention": float(values.mean() / self.own.mean()), **nothing, **ends, "retention_n": n}

    def best(self, scores: Mapping[str, Mapping[str, float]], titles: Mapping[str, str]) -> Best | None:
        """The merges (run id → scores) compared with the best of the others by retention, experts drawn whole."""
        columns = {run: self._values(own) for run, own in scores.items()}
        known = {run: values for run, values in columns.items() if values is not None}
        if not known or not self.own.mean() > 0:
            return None
        table = np.column_stack([*known.values(), self.own])
        means = np.vstack([table.mean(axis=0), resampled_columns(table, RESAMPLES, SEED, self.worlds)])
        shares = means[:, :-1] / np.maximum(means[:, -1:], 1e-9)
        values = dict(zip(known, shares[0].tolist(), strict=True))
        units = count_units(self.own, self.worlds)
        return with_the_best(values, shares[1:], units, measure="retention", titles=titles)

    def _values(self, scores: Mapping[str, float]) -> np.ndarray | None:
        if any(question not in scores for _, question in self.asked):
            return None
        return np.array([scores[question] for _, question in self.asked])


def _titles(ranked: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {row["run_id"]: _title(row) for row in ranked}


def _title(row: Mapping[str, Any]) -> str:
    """``SST-Merge (GEVP) experts=sum``, ``the base model``, ``A7 alone``"""
    if row["method"] == "base":
        return "the base model"
    if row["method"] == "adapter":
        return f"{row['parameters']} alone"
    return " ".join(filter(None, [methods.get(row["method"]).title, row["parameters"]]))


def _scores(lab: Lab, recipe: Recipe) -> dict[str, float]:
    """Question → score of the answer to the recipe's last suite, its task, by the metric that the suite declares."""
    assert recipe.evaluation is not None
    suite = recipe.evaluation.suites[-1]
    return metrics.outcomes(metrics.default_utility(suite.metric), samples(lab.workspace, recipe, suite.name))


def _sentence(ranked: Sequence[Mapping[str, Any]], count: int, judge: str) -> str:
    known = [row for row in ranked if row["retention"] is not None and row["resistance"] is not None]
    if not known:
        return "No expert scores anything on its own task, so there is nothing to retain."
    parts = [f"{_title(row)} {_interval(row)} at resistance {row['resistance']:.2f}" for row in known]
    n = f"{known[0]['utility_n']} test questions, {known[0]['resistance_n']} harmful test prompts"
    return f"Retention with {count} experts and the safety adapter ({n}, judge {judge}, one seed): {'; '.join(parts)}."


def _interval(row: Mapping[str, Any]) -> str:
    if row["retention_low"] is None:
        return f"{row['retention']:.2f}"
    return f"{row['retention']:.2f} ({row['retention_low']:.2f}–{row['retention_high']:.2f})"
