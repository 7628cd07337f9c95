"""The Safety Tax where methods resist alike: read along each one's α at the resistance levels that its curve reaches.

Taxes of merges of different resistance are not comparable, nor are their reductions; see `analysis.tax.matched_tax`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from sstmerge_core import documents, methods
from sstmerge_core.analysis.tax import Curve, Matched, matched_tax

LEVELS = (0.3, 0.5, 0.7, 0.9)
"""Resistances at which curves are read"""
LEAST = 2
"""Settings of a curve, beside the utility adapter alone"""
RESAMPLES = 1_000
"""Each fits every curve anew"""


@dataclass(frozen=True)
class Series:
    """One method's settings that differ in α alone, by α."""

    method: str
    name: str
    settings: tuple[str, ...]
    alphas: tuple[float, ...]
    run_ids: tuple[str, ...]
    from_u: bool
    """Whether α = 0 is the utility adapter alone, with which the curve then begins"""


@dataclass(frozen=True)
class MatchedTaxes:
    series: Mapping[str, Series] = field(default_factory=dict)
    """By name"""
    linear: str = ""
    """Name of linear's; empty where it has none"""
    taxes: Mapping[float, Mapping[str, tuple[Matched, Matched]]] = field(default_factory=dict)
    """Resistance → name → tax and reduction against linear in percent; only what a curve reaches"""
    n: tuple[int, int] = (0, 0)
    """Harmful and utility prompts; 1 and 1 for figures without answers"""

    @property
    def level(self) -> float | None:
        """The resistance that most curves reach, linear's among them; of several that nearest to one half."""
        known = {at: found for at, found in self.taxes.items() if not self.linear or self.linear in found}
        return min(known, key=lambda at: (-len(known[at]), abs(at - 0.5)), default=None)


def matched_taxes(
    found: pd.DataFrame,
    references: Mapping[str, Mapping[str, Any]],
    axes: Mapping[str, pd.DataFrame],
    topics: Mapping[str, Sequence[str] | None],
) -> MatchedTaxes:
    """Of a chapter's settings (`points.points`), its references, tables of prompts × settings and their topics.

    Without tables the curves are of the figures alone, and no figure has an interval. Nothing where the utility adapter
    alone was not measured on the same prompts.
    """
    alone = references.get("utility")
    if alone is None or found.empty or "alpha" not in found:
        return MatchedTaxes()
    tables = [axes.get(name) for name in ("resistance", "utility")]
    answered = all(table is not None and alone["setting"] in table for table in tables)
    if not answered:
        if axes:
            return MatchedTaxes()
        both = pd.concat([found, pd.DataFrame([dict(alone)])], ignore_index=True).set_index("setting")
        tables = [both[[name]].T.astype(float) for name in ("resistance", "utility")]
    resistance, utility = (table for table in tables if table is not None)
    first = str(alone["setting"])
    known = found[found["setting"].isin(resistance.columns) & found["setting"].isin(utility.columns)]
    known = known.dropna(subset=["alpha", "resistance", "utility"])
    series = {one.name: one for one in _series(known)}
    if not series:
        return MatchedTaxes()
    curves = {}
    for name, one in series.items():
        columns = [first, *one.settings] if one.from_u else list(one.settings)
        curves[name] = Curve(resistance[columns], utility[columns])
    linear = max(
        (one for one in series.values() if one.method == "linear"), key=lambda one: len(one.settings), default=None
    )
    own = (topics.get("resistance"), topics.get("utility")) if answered else (None, None)
    taxes = {}
    for at in LEVELS:
        read = matched_tax(
            curves,
            utility[first].tolist(),
            resistance[first].tolist(),
            at,
            linear=linear.name if linear else "",
            topics=own,
            resamples=RESAMPLES if answered else 2,
        )
        reached = {name: pair for name, pair in read.items() if pair[0].value is not None}
        if reached:
            taxes[at] = reached if answered else {name: _bare(pair) for name, pair in reached.items()}
    return MatchedTaxes(series, linear.name if linear else "", taxes, (len(resistance), len(utility)))


def _series(found: pd.DataFrame) -> list[Series]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in found.to_dict("records"):
        groups.setdefault((str(row["method"]), _rest(row)), []).append({str(key): value for key, value in row.items()})
    result = []
    for (method, _), rows in groups.items():
        rows.sort(key=lambda row: float(row["alpha"]))
        alphas = tuple(float(row["alpha"]) for row in rows)
        if len(set(alphas)) < max(LEAST, len(rows)):
            continue
        ids = tuple(str(run) for row in rows for run in row["run_ids"])
        settings = tuple(str(row["setting"]) for row in rows)
        name = " ".join(
            part for part in str(rows[0].get("recipe_label") or rows[0]["label"]).split() if not part.startswith("α=")
        )
        from_u = alphas[0] > 0 and _begins_with_u(method)
        result.append(Series(method, name or method, settings, alphas, ids, from_u))
    return result


def _rest(row: Mapping[str, Any]) -> str:
    """What tells one curve of a method from its others: every parameter but α and the seed."""
    recipe = row.get("recipe")
    if isinstance(recipe, str) and recipe:
        own = documents.from_json(recipe)
        parameters = {k: v for k, v in (own.get("parameters") or {}).items() if k not in ("alpha", "seed")}
        calibration = {k: v for k, v in (own.get("calibration") or {}).items() if k != "seed"}
        return json.dumps([parameters, calibration], sort_keys=True)
    return f"{row.get('k')} {row.get('layerwise')}"


def _begins_with_u(method: str) -> bool:
    """Held by a test of the merges: what drops weights, or takes out of ΔU, does not give it back at α = 0."""
    if method not in methods.names():
        return method == "sst_reported"  # its α is a strength too
    own = methods.get(method)
    return own.axis in ("share", "strength") and own.keeps_utility and own.kind != "elementwise"


def _bare(pair: tuple[Matched, Matched]) -> tuple[Matched, Matched]:
    tax, reduction = (Matched(one.value, None, None) for one in pair)
    return tax, reduction
