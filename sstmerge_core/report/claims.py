"""Claims as data: each published figure recomputed from the tables it is about, confirmed or contradicted.

The quantities: ``count_top10_sst``, ``best_sum``, ``best_extended_sum``, ``mean_jailbreak_sst_k5`` (also min, max,
utility, linear, ties, dare), ``pareto_sst_LOW_HIGH``, ``k10_over_k5_utility_points`` and
``sst_safety_at_ALPHA_vs_ADAPTER``. All in percent, as published.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sstmerge_core.analysis.front import pareto_front
from sstmerge_core.errors import DataError, Problem
from sstmerge_core.report.points import is_merge
from sstmerge_core.report.tables import k_comparisons, points_at_tenths, top
from sstmerge_core.store.reported import REFERENCE

CLAIMS = REFERENCE / "sst_merge_report_claims.csv"
CONFIRMED, CONTRADICTION, UNKNOWN = "confirmed", "contradiction", "not checkable"
METHODS = {"sst": "sst_reported", "linear": "linear", "ties": "ties", "dare": "dare_linear"}
MEASURES = {"jailbreak": "resistance", "utility": "utility"}


@dataclass(frozen=True)
class Claim:
    pair: str
    text: str
    quantity: str
    value: float
    where: str


@dataclass(frozen=True)
class Checked:
    claim: Claim
    verdict: str
    """`CONFIRMED`, `CONTRADICTION` or `UNKNOWN`."""
    computed: float | None
    why: str
    """What was computed from what, with the figures."""
    run_ids: tuple[str, ...] = ()
    """The rows behind the computed figure."""


def read(path: Path = CLAIMS) -> list[Claim]:
    """The claims of a CSV file; none where there is no such file. Raises DataError for an unusable row."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [_claim(row, f"{path} row {number}") for number, row in enumerate(csv.DictReader(file), start=1)]


def check(claims: Sequence[Claim], runs: pd.DataFrame) -> list[Checked]:
    """Each claim against `runs`: `points.points` of the reported runs of all tables, single adapters among them."""
    return [_check(claim, runs) for claim in claims]


def _claim(row: dict[str, str], where: str) -> Claim:
    try:
        return Claim(row["pair"], row["claim"], row["quantity"], float(row["claimed_value"]), row.get("where") or "")
    except (KeyError, TypeError, ValueError) as error:
        fix = "Give the columns pair, claim, quantity, claimed_value (a number) and where."
        raise DataError(Problem(where, f"is no claim: {error}", fix)) from error


Rule = Callable[[Claim, pd.DataFrame, re.Match[str]], Checked]


def _check(claim: Claim, runs: pd.DataFrame) -> Checked:
    rows = runs[(runs["pair"] == claim.pair) & is_merge(runs)]
    if rows.empty:
        return Checked(claim, UNKNOWN, None, f"There are no figures of {claim.pair}.")
    for pattern, rule in _RULES:
        if found := re.fullmatch(pattern, claim.quantity):
            return rule(claim, runs, found)
    return Checked(claim, UNKNOWN, None, f"No rule computes the quantity {claim.quantity}.")


def _main(runs: pd.DataFrame, pair: str) -> pd.DataFrame:
    return runs[(runs["pair"] == pair) & is_merge(runs) & (runs["reported_table"] == "detail")]


def _agrees(claim: Claim, percent: float) -> bool:
    """To the decimals of the claim: half a unit of its last one, and a hair for the rounding of halves."""
    decimals = len(f"{claim.value:g}".partition(".")[2])
    return abs(percent - claim.value) <= 0.5 * 10 ** -max(decimals, 2) + 1e-9


def _verdict(agrees: bool) -> str:
    return CONFIRMED if agrees else CONTRADICTION


def _ids(rows: pd.DataFrame) -> tuple[str, ...]:
    return tuple(run for runs in rows["run_ids"] for run in runs)


def _top_count(claim: Claim, runs: pd.DataFrame, found: re.Match[str]) -> Checked:
    """The ten greatest sums, in the report's own ranking, on its grid of tenths, and over all its rows."""
    n, method = int(found[1]), METHODS[found[2]]
    main = _main(runs, claim.pair)
    printed = runs[(runs["pair"] == claim.pair) & (runs["reported_table"] == f"top{n}")]
    scopes = {
        f"the report's own top-{n} table": printed,
        "α 0.1, 0.2 … 1.0": top(points_at_tenths(main), n),
        "all rows": top(main, n),
    }
    counts = {name: int((rows["method"] == method).sum()) for name, rows in scopes.items() if len(rows)}
    told = ", ".join(f"{count} of {len(scopes[name])} in {name}" for name, count in counts.items())
    agrees = all(count == claim.value for count in counts.values())
    return Checked(claim, _verdict(agrees), float(counts["all rows"]), f"{told}.", _ids(scopes["all rows"]))


def _best_sum(claim: Claim, runs: pd.DataFrame, found: re.Match[str]) -> Checked:
    rows = _main(runs, claim.pair)
    scope = "of all rows"
    if found[1]:
        of_sst = rows[rows["method"] == METHODS["sst"]]
        rows = of_sst[~of_sst["alpha"].isin(points_at_tenths(of_sst)["alpha"])]
        scope = "of the extended experiment (SST at α between the tenths)"
    best = top(rows, 1)
    value = 100 * float(best["total"].iloc[0])
    why = f"The greatest sum {scope} is {value:.2f}, by {best['label'].iloc[0]}."
    named = rows[(100 * rows["total"] - claim.value).abs() < 0.005]
    if len(named) and value - claim.value > 0.005:
        rank = int((rows["total"] > named["total"].iloc[0] + 1e-9).sum()) + 1
        why += f" {named['label'].iloc[0]} with {claim.value:.2f} is number {rank}."
    return Checked(claim, _verdict(_agrees(claim, value)), value, why, _ids(best))


def _summary(claim: Claim, runs: pd.DataFrame, found: re.Match[str]) -> Checked:
    statistic, measure, method = found[1], MEASURES[found[2]], METHODS[found[3]]
    own = runs[(runs["pair"] == claim.pair) & (runs["method"] == method)]
    if found[4]:
        own = own[(own["k"] == int(found[4])) & ~own["layerwise"].fillna(False).astype(bool)]
    between = re.search(r"alpha (\d\S*)-(\d[\d.]*)", claim.text)
    scoped = points_at_tenths(own[own["alpha"].between(float(between[1]), float(between[2]))]) if between else own
    values = {
        str(table): 100 * float(getattr(rows[measure], statistic)()) for table, rows in scoped.groupby("reported_table")
    }
    main = scoped[scoped["reported_table"] == "detail"]
    if main.empty:
        return Checked(claim, UNKNOWN, None, "The main table has no such rows.")
    value = values.pop("detail")
    why = f"{statistic.capitalize()} of {len(main)} rows, {alpha_grid(main['alpha'])}: {value:.2f}."
    if between and len(every := own[own["alpha"].between(float(between[1]), float(between[2]))]) > len(scoped):
        every = every[every["reported_table"] == "detail"]
        if len(every) > len(main):
            whole = 100 * float(getattr(every[measure], statistic)())
            why += f" Over all {len(every)} rows of that range, the α between the tenths too, it is {whole:.2f}."
    second = {name: other for name, other in values.items() if name != "top10" and not _agrees(claim, other)}
    for name, other in second.items():
        why += f" The table {name} of the same settings gives {other:.2f}."
    return Checked(claim, _verdict(_agrees(claim, value)), value, why, _ids(main))


def _pareto(claim: Claim, runs: pd.DataFrame, found: re.Match[str]) -> Checked:
    rows = _main(runs, claim.pair).reset_index(drop=True)
    own = points_at_tenths(rows[rows["method"] == METHODS["sst"]])
    own = own[own["alpha"].between(float(found[1]), float(found[2])) & (own["k"] == own["k"].min())]
    own = own[~own["layerwise"].fillna(False).astype(bool)]
    front = pareto_front(rows[["resistance", "utility"]].to_numpy(dtype=float))
    dominated = [row for index, row in own.iterrows() if not front[int(str(index))]]
    told = []
    for row in dominated:
        better = rows[(rows["resistance"] >= row["resistance"]) & (rows["utility"] >= row["utility"])]
        better = better[better["run_id"] != row["run_id"]]
        told.append(f"α={row['alpha']:g} is dominated by {better.sort_values('total').iloc[-1]['label']}")
    why = f"{len(own) - len(dominated)} of {len(own)} are on the front" + (f": {'; '.join(told)}." if told else ".")
    agrees = bool(claim.value) == (not dominated)
    return Checked(claim, _verdict(agrees), float(not dominated), why, _ids(own))


def _k_over_k(claim: Claim, runs: pd.DataFrame, found: re.Match[str]) -> Checked:
    high, low, measure = int(found[1]), int(found[2]), MEASURES[found[3]]
    rows = _main(runs, claim.pair)
    rows = rows[rows["method"] == METHODS["sst"]]
    wanted = [
        one
        for one in k_comparisons(rows)
        if (one.high_k, one.low_k, one.measure) == (high, low, measure) and not one.layerwise
    ]
    if not wanted:
        return Checked(claim, UNKNOWN, None, f"k={low} and k={high} were not both reported.")
    one = wanted[0]
    own = 100 * one.own
    why = f"Over each k's own α grid the difference is {own:.2f} points ({100 * one.own / one.means[0]:.0f} %)"
    if one.same_grid:
        return Checked(claim, _verdict(_agrees(claim, own)), own, f"{why}, and the grids are the same.", one.run_ids)
    grids = f"k={low} {alpha_grid(one.alphas[0])}; k={high} {alpha_grid(one.alphas[1])}"
    if one.at_shared is None:
        return Checked(
            claim, CONTRADICTION, None, f"{why}, but the grids differ and share no α ({grids}).", one.run_ids
        )
    shared = 100 * one.at_shared
    why += (
        f", but the grids differ ({grids}); at the α they share ({alpha_list(one.shared)}) it is {shared:.2f} points."
    )
    return Checked(claim, _verdict(_agrees(claim, shared)), shared, why, one.run_ids)


def _safety_beside(claim: Claim, runs: pd.DataFrame, found: re.Match[str]) -> Checked:
    alpha, adapter = float(found[1]), found[2]
    alone = runs[(runs["pair"] == adapter) & (runs["method"] == "adapter")]
    rows = _main(runs, claim.pair)
    rows = rows[(rows["method"] == METHODS["sst"]) & np.isclose(rows["alpha"], alpha)]
    if alone.empty or rows.empty:
        return Checked(claim, UNKNOWN, None, f"There is no figure of {adapter} alone, or none at α={alpha:g}.")
    own, before = 100 * float(rows["resistance"].iloc[0]), 100 * float(alone["resistance"].iloc[0])
    every = _main(runs, claim.pair)
    every = every[every["method"] == METHODS["sst"]]
    below = int((every["resistance"] < alone["resistance"].iloc[0]).sum())
    relation = "below" if own < before else "not below"
    why = f"{rows['label'].iloc[0]} resists {own:.2f} %, {relation} {adapter} alone ({before:.2f} %)"
    why += f"; {below} of {len(every)} SST rows lie below it."
    return Checked(claim, _verdict(own >= before), own, why, (*_ids(rows), *_ids(alone)))


_METHODS = "|".join(METHODS)
_RULES: tuple[tuple[str, Rule], ...] = (
    (rf"count_top(\d+)_({_METHODS})", _top_count),
    (r"best_(extended_)?sum", _best_sum),
    (rf"(mean|min|max)_(jailbreak|utility)_({_METHODS})(?:_k(\d+))?", _summary),
    (r"pareto_sst_([\d.]+)_([\d.]+)", _pareto),
    (r"k(\d+)_over_k(\d+)_(jailbreak|utility)_points", _k_over_k),
    (r"sst_safety_at_([\d.]+)_vs_(\w+)", _safety_beside),
)


def alpha_grid(alphas: Sequence[float] | pd.Series) -> str:
    """``α 0.1, 0.2 … 1 (10 values)``, all of up to six."""
    values = sorted({round(float(alpha), 6) for alpha in alphas})
    return f"α {alpha_list(values)}" + (f" ({len(values)} values)" if len(values) > 6 else "")


def alpha_list(values: Sequence[float]) -> str:
    shown = [f"{value:g}" for value in values]
    return ", ".join(shown) if len(shown) <= 6 else f"{shown[0]}, {shown[1]} … {shown[-1]}"
