"""Experiment 1: what safety costs, before and after the merge, per base model and pair (ALGORITHMS §9.1)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from sstmerge_core import methods, words
from sstmerge_core.analysis.tax import SafetyTax, safety_tax_reduction
from sstmerge_core.experiments import choice
from sstmerge_core.experiments.lab import Lab
from sstmerge_core.experiments.result import Result, Table, pick
from sstmerge_core.metrics.safety_tax import REASONS

QUESTION = "What does safety cost: how much utility is lost per safety gained, before and after each merge?"
FIGURES = ("resistance", "utility", "over_refusal", "degenerate", "safety_tax")


class SafetyTaxSettings(choice.GridSettings):
    pairs: list[tuple[str, str]] = Field(
        default=[("A5", "A7"), ("A6", "A7"), ("A5", "A7_balanced")],
        description="Utility and safety adapter of each pair.",
    )
    methods: list[str] = Field(
        default=["linear", "task_arithmetic", "sst_gevp", "sst_shield"],
        description="Merged with the α chosen on the selection split.",
    )


def run(lab: Lab, settings: SafetyTaxSettings) -> Result:
    rows: list[dict[str, Any]] = []
    findings = []
    lowest: list[tuple[float, str]] = []
    for utility_name, safety_name in settings.pairs:
        utility, safety = lab.adapter(utility_name), lab.adapter(safety_name)
        grid, found = choice.search(lab, [utility], safety, settings.methods, settings)
        chosen = {name: point for name, (point, _) in choice.best(grid, found, settings.goal).items()}
        suite = lab.merge([utility], safety, "linear", {}).evaluation.suites[-1].name  # type: ignore[union-attr]
        before = {
            "base": lab.alone(None, suite),
            "adapter": lab.alone(utility, suite),
            "safety": lab.alone(safety, suite),
        }
        merged = {name: lab.merge([utility], safety, name, point) for name, point in chosen.items()}
        outcomes = lab.measure([*before.values(), *merged.values()], f"testing {utility.name}_{safety.name}")
        titles = {"base": "Base model", "adapter": f"{utility.name} alone", "safety": f"{safety.name} alone"}
        taxes = {}
        for name, recipe in (before | merged).items():
            one = outcomes[recipe.run_id]
            taxes[name] = SafetyTax(one["safety_tax"], one.get("safety_tax_status", "ok"))
            rows.append(
                {
                    "base": lab.base.name,
                    "pair": f"{utility.name}_{safety.name}",
                    "model": titles.get(name, recipe.label),
                }
                | pick(one, *FIGURES)
                | {"status": REASONS.get(taxes[name].status, "") if name in merged else "reference"}
                | {"run_id": recipe.run_id}
            )
        for name in merged:
            reduction = safety_tax_reduction(taxes[name], taxes["linear"]) if "linear" in taxes else None
            row = next(row for row in rows if row["run_id"] == merged[name].run_id)
            row["reduction_percent"] = reduction
            if taxes[name].value is not None:
                lowest.append((taxes[name].value or 0.0, name))
        own = {name: taxes[name] for name in merged}
        intervals = {name: outcomes[recipe.run_id].get("safety_tax_ci") for name, recipe in merged.items()}
        findings.append(_sentence(f"{utility.name}_{safety.name}", own, intervals))
    about = (
        "Tax: ROUGE-L lost per resistance gained against the utility adapter alone, with α chosen on the selection "
        "split; reduction: by how much it is below linear's."
    )
    analysis = {"best_method": None, "why": "A tax is a ratio of two uncertain differences; see its intervals."}
    if len({name for _, name in lowest}) == 1 and len(settings.methods) == 1:
        analysis["best_method"] = lowest[0][1]
    return Result(
        "safety-tax",
        QUESTION,
        settings.model_dump(mode="json"),
        settings.judge,
        lab.base.name,
        [Table("tax", "Before and after the merge", about, rows)],
        analysis,
        findings,
    )


def _sentence(
    pair: str, taxes: dict[str, SafetyTax], intervals: dict[str, tuple[float | None, float | None] | None]
) -> str:
    known = sorted((tax.value, name) for name, tax in taxes.items() if tax.value is not None)
    parts = []
    for value, name in known:
        parts.append(f"{methods.get(name).title} {value:.2f}" + _interval(intervals[name]))
    rest = [f"{methods.get(name).title}: {REASONS[tax.status]}" for name, tax in taxes.items() if tax.value is None]
    text = f"{', '.join(parts)}{'; ' if parts and rest else ''}{'; '.join(rest)}"
    return f"{pair}: {text} (utility lost per safety gained, 95 % intervals)."


def _interval(ends: tuple[float | None, float | None] | None) -> str:
    low, high = ends or (None, None)
    return "" if low is None else f" ({low:.2f} to {words.upper(high, 2)})"
