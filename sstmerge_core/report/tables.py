"""The tables of the 2026-01 report and the statements drawn from them: points in, tables and plain values out.

`found` is what `points.points` gives, merges only; nothing here knows how it is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from sstmerge_core.analysis.tax import SafetyTax, distance_to_ideal, safety_tax

SERIES = ["method", "k", "layerwise"]
"""What makes one line of points over α"""
TOP = 10


def top(found: pd.DataFrame, n: int = TOP) -> pd.DataFrame:
    """The `n` points with the greatest resistance + utility, with their `rank`; equal ones in the order given."""
    ranked = found.dropna(subset=["total"]).sort_values("total", ascending=False, kind="stable").head(n)
    return ranked.assign(rank=range(1, len(ranked) + 1))


def by_series(found: pd.DataFrame) -> pd.DataFrame:
    """Mean, least and greatest resistance and utility of each method, k and layer-wise choice over its own α grid.

    Columns: method, k, layerwise, n, alphas (list), run_ids (list), and `<measure>_mean`, `_min`, `_max`.
    """
    rows = []
    for _, group in found.groupby(SERIES, sort=False, dropna=False):
        row: dict[str, Any] = {name: group[name].iloc[0] for name in SERIES}
        row |= {"n": len(group), "alphas": sorted(group["alpha"].dropna().unique())}
        row["run_ids"] = [run for runs in group["run_ids"] for run in runs]
        for measure in ("resistance", "utility"):
            for name in ("mean", "min", "max"):
                row[f"{measure}_{name}"] = getattr(group[measure], name)()
        rows.append(row)
    return pd.DataFrame(rows)


def k_layerwise(found: pd.DataFrame) -> pd.DataFrame:
    """Points of methods that were run with several k or both layer-wise choices, in the order method, α, k."""
    kept = []
    for _, group in found.dropna(subset=["k"]).groupby("method", sort=False):
        if group["k"].nunique() > 1 or group["layerwise"].dropna().nunique() > 1:
            kept.append(group.sort_values(["alpha", "k", "layerwise"], kind="stable"))
    return pd.concat(kept, ignore_index=True) if kept else found.head(0)


@dataclass(frozen=True)
class KComparison:
    """Two k of one method: what their means over their own α grids say, and what the α they share says."""

    method: str
    layerwise: bool | None
    measure: str
    low_k: int
    high_k: int
    alphas: tuple[tuple[float, ...], tuple[float, ...]]
    means: tuple[float, float]
    shared: tuple[float, ...]
    shared_means: tuple[float, float] | None
    run_ids: tuple[str, ...]
    """Of the points at shared α, else of all."""

    @property
    def same_grid(self) -> bool:
        return self.alphas[0] == self.alphas[1]

    @property
    def own(self) -> float:
        """Higher k − lower k, each over its own grid."""
        return self.means[1] - self.means[0]

    @property
    def at_shared(self) -> float | None:
        """Higher k − lower k over the α that both have; None where there is none."""
        return None if self.shared_means is None else self.shared_means[1] - self.shared_means[0]


def k_comparisons(found: pd.DataFrame) -> list[KComparison]:
    """Every two k of each method and layer-wise choice, for resistance and utility."""
    result = []
    known = found.dropna(subset=["k", "alpha"])
    for (method, layerwise), group in known.groupby(["method", "layerwise"], sort=False, dropna=False):
        by_k = {int(k): rows for k, rows in group.groupby("k")}
        for low, high in combinations(sorted(by_k), 2):
            for measure in ("resistance", "utility"):
                choice = None if pd.isna(layerwise) else bool(layerwise)
                result.append(_k_comparison(str(method), choice, measure, (low, high), (by_k[low], by_k[high])))
    return result


def _k_comparison(
    method: str, layerwise: bool | None, measure: str, ks: tuple[int, int], rows: tuple[pd.DataFrame, pd.DataFrame]
) -> KComparison:
    curves = [part.groupby("alpha")[measure].mean() for part in rows]
    shared = sorted(set(curves[0].index) & set(curves[1].index))
    behind = [part[part["alpha"].isin(shared)] if shared else part for part in rows]
    return KComparison(
        method=method,
        layerwise=layerwise,
        measure=measure,
        low_k=ks[0],
        high_k=ks[1],
        alphas=(tuple(sorted(curves[0].index)), tuple(sorted(curves[1].index))),
        means=(float(curves[0].mean()), float(curves[1].mean())),
        shared=tuple(shared),
        shared_means=(float(curves[0][shared].mean()), float(curves[1][shared].mean())) if shared else None,
        run_ids=tuple(run for part in behind for runs in part["run_ids"] for run in runs),
    )


def differences(found: pd.DataFrame, reference: Mapping[str, Any]) -> pd.DataFrame:
    """`found` with `<measure>_change` against a reference row, by the figures alone."""
    return found.assign(
        **{f"{name}_change": found[name] - reference[name] for name in ("resistance", "utility", "over_refusal")}
    )


def best_of_each_method(found: pd.DataFrame) -> pd.DataFrame:
    """Each method's point that lies closest to resistance 1 and utility 1, with that `distance`; closest first."""
    known = found.dropna(subset=["resistance", "utility"])
    distances = [distance_to_ideal(s, u) for s, u in zip(known["resistance"], known["utility"], strict=True)]
    ranked = known.assign(distance=distances).sort_values("distance", kind="stable")
    return ranked.drop_duplicates("method").reset_index(drop=True)


def taxes(best: pd.DataFrame, utility_adapter: Mapping[str, Any] | None) -> pd.DataFrame:
    """`best` with `tax` (NaN if undefined) and `tax_status`: each at its own resistance, so not to be compared.

    A stored Safety Tax is taken as it is (its status knows the gain's interval); otherwise it is computed from the
    figures against the utility adapter's row.
    """
    found = [_tax(row, utility_adapter) for row in best.to_dict("records")]
    return best.assign(
        tax=[np.nan if tax.value is None else tax.value for tax in found],
        tax_status=[tax.status for tax in found],
    )


def _tax(row: Mapping[str, Any], before: Mapping[str, Any] | None) -> SafetyTax:
    status = row.get("safety_tax_status")
    if isinstance(status, str) and status != "not_measured":
        value = row["safety_tax"]
        return SafetyTax(None if pd.isna(value) else float(value), status)
    if before is None:
        return SafetyTax(None, "not_measured")
    return safety_tax(before["utility"], row["utility"], before["resistance"], row["resistance"])


def disagreements(runs: pd.DataFrame, main: str = "detail") -> pd.DataFrame:
    """Settings that a report gives twice with different figures: one row each, `resistance`/`utility` of both tables.

    `runs` are leaderboard rows of all reported tables. Columns: method, label, k, layerwise, alpha, table, run_id,
    other_run_id, resistance, other_resistance, utility, other_utility, differs. Settings in the main table only are
    left out, those given equally are kept with `differs` False.
    """
    by = ["pair", "method", "k", "layerwise", "alpha"]
    keys = row_keys(runs, by)
    own = runs[runs["reported_table"] == main].assign(key=keys)
    others = runs[runs["reported_table"].notna() & ~runs["reported_table"].isin([main, "paper"])].assign(key=keys)
    both = own.merge(others, on="key", suffixes=("", "_other"))
    found = both[["method", "label", "k", "layerwise", "alpha", "run_id", "resistance", "utility"]].copy()
    found["table"], found["other_run_id"] = both["reported_table_other"], both["run_id_other"]
    for measure in ("resistance", "utility"):
        found[f"other_{measure}"] = both[f"{measure}_other"]
    gaps = (found["resistance"] - found["other_resistance"]).abs(), (found["utility"] - found["other_utility"]).abs()
    return found.assign(resistance_gap=gaps[0], utility_gap=gaps[1], differs=(gaps[0] > 1e-9) | (gaps[1] > 1e-9))


def left_out_of(top_table: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """Points with a greater sum than the last of a published ranking that are not in it, greatest first."""
    if top_table.empty:
        return found.head(0)
    by = ["method", "k", "layerwise", "alpha"]
    missing = ~row_keys(found, by).isin(row_keys(top_table, by))
    least = (top_table["resistance"] + top_table["utility"]).min()
    return found[missing & (found["total"] > least + 1e-9)].sort_values("total", ascending=False, kind="stable")


def points_at_tenths(found: pd.DataFrame) -> pd.DataFrame:
    """The points whose α is a whole number of tenths from 0.1: the main grid of the 2026-01 report."""
    tenths = found["alpha"].astype(float) * 10
    return found[np.isclose(tenths, tenths.round()) & (tenths > 0.5)]


def row_keys(rows: pd.DataFrame, by: list[str]) -> pd.Series:
    """The columns `by` as one text a row, in which missing values are equal."""
    texts = [
        "|".join("" if pd.isna(value) else f"{value}" for value in row) for row in rows[by].itertuples(index=False)
    ]
    return pd.Series(texts, index=rows.index, dtype=object)
