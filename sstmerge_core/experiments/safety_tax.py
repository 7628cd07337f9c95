"""Experiment 1: what safety costs along α, and at equal resistance, per pair (ALGORITHMS §9.1; CONTESTS §1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from pydantic import Field, field_validator

from sstmerge_core import methods, words
from sstmerge_core.analysis.contest import Range
from sstmerge_core.analysis.tax import Curve, Matched, matched_tax
from sstmerge_core.experiments import choice
from sstmerge_core.experiments.lab import Lab
from sstmerge_core.experiments.result import Result, Table, pick
from sstmerge_core.experiments.settings import Settings
from sstmerge_core.metrics.safety_tax import REASONS
from sstmerge_core.recipe import Recipe

QUESTION = "What does safety cost: how much utility is lost per safety gained, at equal resistance?"
FIGURES = ("resistance", "over_refusal", "utility", "degenerate", "safety_tax")


class SafetyTaxSettings(Settings):
    pairs: list[tuple[str, str]] = Field(
        default=[("A5", "A7"), ("A5", "A7_balanced")],
        description="Utility and safety adapter of each pair.",
    )
    methods: list[str] = Field(
        default=["linear", "task_arithmetic", "sst_gevp", "sst_shield"],
        description="Measured along α, other parameters at their defaults: nothing is chosen.",
    )
    count: int = Field(default=5, ge=2, description="Values of α of each method.")
    shares: tuple[float, float] = Field(default=(0.1, 0.9), description="α of methods that share out weights, ends.")
    strengths: tuple[float, float] = Field(default=(0.5, 4.0), description="α of methods that add, ends of the range.")
    at: list[float] = Field(default=[0.25, 0.5, 0.75], description="Resistances at which the methods are compared.")

    @field_validator("methods")
    @classmethod
    def _along_alpha(cls, given: list[str]) -> list[str]:
        lacking = [name for name in given if methods.get(name).axis is None]
        if lacking:
            raise ValueError(f"{lacking[0]} has no α: a tax at equal resistance is read along it")
        return given


def run(lab: Lab, settings: SafetyTaxSettings) -> Result:
    rows: list[dict[str, Any]] = []
    matched: list[dict[str, Any]] = []
    findings = []
    for utility_name, safety_name in settings.pairs:
        utility, safety = lab.adapter(utility_name), lab.adapter(safety_name)
        pair = f"{utility.name}_{safety.name}"
        alone = choice.parents(lab, [utility], safety, "test")
        lines = {
            name: [lab.merge([utility], safety, name, {"alpha": alpha}) for alpha in _alphas(name, settings)]
            for name in settings.methods
        }
        every = [*alone.values(), *(one for own in lines.values() for one in own)]
        outcomes = lab.measure(every, f"measuring {pair}")
        for name, recipe in [(choice.PARENTS[side], one) for side, one in alone.items()] + [
            (one.label, one) for own in lines.values() for one in own
        ]:
            one = outcomes[recipe.run_id]
            status = REASONS.get(one.get("safety_tax_status", "ok"), "") if recipe.parameters else "reference"
            rows.append(
                {"base": lab.base.name, "pair": pair, "model": name, "alpha": recipe.parameters.get("alpha")}
                | pick(one, *FIGURES)
                | {"status": status, "run_id": recipe.run_id}
            )
        own_rows = _matched(lab, pair, alone, lines, settings)
        matched += own_rows
        findings += [_sentence(pair, at, own_rows) for at in settings.at]
    about = (
        "Safety Tax at one resistance: utility of the adapter alone − utility of the merge there, ÷ the resistance "
        "gained. Resistance along α is made to rise, both are interpolated between the measured α; topics are drawn "
        "anew. Reduction: by what percent the tax is below linear's at the same resistance. Test prompts; nothing is "
        "chosen. Empty: the curve does not reach that resistance."
    )
    return Result(
        "safety-tax",
        QUESTION,
        settings.model_dump(mode="json"),
        settings.judge,
        lab.base.name,
        [
            Table("matched", "At equal resistance", about, matched),
            Table("tax", "Along α", "Every run behind it, with the tax against U alone on the same prompts.", rows),
        ],
        {"best_method": None, "why": "A tax is a ratio of two uncertain differences; see its intervals."},
        findings,
        ["Other parameters than α stay at their defaults; the contest of experiment 4 chooses them."],
    )


def _alphas(name: str, settings: SafetyTaxSettings) -> list[float]:
    strength = methods.get(name).axis == "strength"
    ends = settings.strengths if strength else settings.shares
    return Range(*ends, "log" if strength else "linear").values(settings.count)


def _matched(
    lab: Lab,
    pair: str,
    alone: Mapping[str, Recipe],
    lines: Mapping[str, list[Recipe]],
    settings: SafetyTaxSettings,
) -> list[dict[str, Any]]:
    recipes = {"U": alone["utility"]} | {one.run_id: one for own in lines.values() for one in own}
    tables, topics = choice.answers(lab.workspace, recipes)
    resistance, utility = tables["resistance"], tables["utility"]
    curves = {name: Curve(_columns(resistance, own), _columns(utility, own)) for name, own in lines.items()}
    rows = []
    for at in settings.at:
        found = matched_tax(
            curves,
            utility["U"].tolist(),
            resistance["U"].tolist(),
            at,
            topics=(topics["resistance"], topics["utility"]),
        )
        rows += [
            {"pair": pair, "at": at, "method": name}
            | _ends("tax", tax)
            | _ends("reduction_percent", reduction)
            | {"n": len(resistance), "run_ids": [one.run_id for one in lines[name]]}
            for name, (tax, reduction) in found.items()
        ]
    return rows


def _columns(table: pd.DataFrame, recipes: list[Recipe]) -> pd.DataFrame:
    """The adapter alone first, at α 0, then the runs along α."""
    return table[["U", *(one.run_id for one in recipes)]]


def _ends(name: str, figure: Matched) -> dict[str, float | None]:
    return {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}


def _sentence(pair: str, at: float, rows: list[dict[str, Any]]) -> str:
    own = [row for row in rows if row["at"] == at]
    known = sorted((row for row in own if row["tax"] is not None), key=lambda row: row["tax"])
    said = [f"{methods.get(row['method']).title} {row['tax']:.2f}{_interval(row)}" for row in known]
    rest = [methods.get(row["method"]).title for row in own if row["tax"] is None]
    where = f"{pair}, utility lost per safety gained at resistance {at:.0%} ({own[0]['n']} harmful test prompts)"
    if not known:
        return f"{where}: no method reaches it."
    return f"{where}: {', '.join(said)}" + (f"; not reached by {', '.join(rest)}." if rest else ".")


def _interval(row: Mapping[str, Any]) -> str:
    low, high = row["tax_low"], row["tax_high"]
    return "" if low is None else f" ({low:.2f} to {words.upper(high, 2)})"
