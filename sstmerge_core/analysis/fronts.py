"""How high a method's front lies, and whether one lies above another, given the prompts' uncertainty.

A front here is the union of what a method's runs reach: at each safety the greatest utility of any run that is at
least that safe. Outcomes are tables of prompts × runs, one table an axis, higher is better, as `wide` makes them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sstmerge_core.analysis.front import hypervolume, pareto_front
from sstmerge_core.analysis.statistics import RESAMPLES, SEED, holm, p_text, resampled_columns

CONFIDENCE = 0.95


class Hypervolume(NamedTuple):
    value: float
    low: float
    high: float


def wide(outcomes: pd.DataFrame, suite: str, runs: Sequence[str] | None = None) -> pd.DataFrame:
    """Prompts × runs of one suite from rows (run_id, suite, prompt_id, value), over the prompts most runs share.

    Runs that did not answer exactly those prompts are left out: a column less, never a prompt less.
    """
    rows = outcomes[outcomes["suite"] == suite]
    if runs is not None:
        rows = rows[rows["run_id"].isin(list(runs))]
    table = rows.pivot(index="prompt_id", columns="run_id", values="value")
    if table.empty:
        return table
    answered = {run: tuple(table.index[table[run].notna()]) for run in table}
    usual = max(Counter(answered.values()).items(), key=lambda item: (item[1], len(item[0])))[0]
    return table.loc[list(usual), [run for run in table if answered[run] == usual]]


def average_seeds(outcomes: pd.DataFrame, setting_of: Mapping[str, str]) -> pd.DataFrame:
    """Outcomes of runs as outcomes of settings: runs that differ in their seed alone are averaged prompt by prompt."""
    rows = outcomes.assign(run_id=outcomes["run_id"].map(setting_of)).dropna(subset=["run_id"])
    return rows.groupby(["run_id", "suite", "prompt_id"], sort=False, as_index=False)["value"].mean()


def hypervolume_interval(
    axes: Sequence[pd.DataFrame],
    runs: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    confidence: float = CONFIDENCE,
) -> Hypervolume:
    """Hypervolume of `runs` (reference point 0) with its bootstrap interval over prompts.

    `axes`: two or three tables of prompts × runs with values in 0–1. Each table's prompts are resampled by themselves,
    the same for all its runs. The interval is the basic one (Davison & Hinkley 1997, §2.4: 2·estimate − quantile),
    because the best of several noisy points lies too high, in the sample as in each resample; clipped to 0–1.
    """
    value, resampled = _hypervolumes(axes, {"all": list(runs)}, resamples, seed)
    low, high = _basic(value["all"], resampled["all"], confidence)
    return Hypervolume(value["all"], max(low, 0.0), min(high, 1.0))


def compare_fronts(
    axes: Sequence[pd.DataFrame],
    groups: Mapping[str, Sequence[str]],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    confidence: float = CONFIDENCE,
) -> pd.DataFrame:
    """Every two groups' fronts (group name → run ids) compared, one row a pair, the higher one as `first`.

    Columns: first, second, first_hypervolume, second_hypervolume, difference, low, high (basic bootstrap interval over
    prompts, the same resamples for both), p_value, p_holm (over all pairs), covers (no point of the second's front is
    beyond the first's), answer (``yes``, ``not shown``), sentence.
    """
    value, resampled = _hypervolumes(axes, groups, resamples, seed)
    rows = []
    for pair in combinations(groups, 2):
        first, second = sorted(pair, key=lambda name: -value[name])
        difference = value[first] - value[second]
        moved = resampled[first] - resampled[second]
        low, high = _basic(difference, moved, confidence)
        rows.append(_row(first, second, value, covers=_covers(axes, groups[first], groups[second])) | {
            "low": low, "high": high, "p_value": _p_value(difference, moved),
        })  # fmt: skip
    return _answered(pd.DataFrame(rows))


def compare_figures(points: Mapping[str, NDArray[np.float64]]) -> pd.DataFrame:
    """As `compare_fronts` for figures without answers (group name → points (n, d)): no interval and no test."""
    value = {name: hypervolume(rows) for name, rows in points.items()}
    rows = []
    for pair in combinations(points, 2):
        first, second = sorted(pair, key=lambda name: -value[name])
        nothing = {"low": np.nan, "high": np.nan, "p_value": np.nan}
        rows.append(_row(first, second, value, covers=covers(points[first], points[second])) | nothing)
    return _answered(pd.DataFrame(rows))


def covers(first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    """Whether every point of `second` (m, d) is reached or passed on every axis by some point of `first` (n, d)."""
    return all(bool((first >= point).all(axis=1).any()) for point in second)


def front_above(row: Mapping[str, Any] | pd.Series, names: Mapping[str, str] | None = None) -> str:
    """One row of `compare_fronts` in words: is the first's front above the second's?"""
    titles = dict(names or {})
    first, second = (titles.get(row[side], row[side]) for side in ("first", "second"))
    volumes = f"hypervolume {row['first_hypervolume']:.3f} against {row['second_hypervolume']:.3f}"
    where = f"and {first} covers every point of {second}" if row["covers"] else f"while {second} has points beyond it"
    if pd.isna(row["low"]):
        relation = "the higher front" if row["difference"] > 0 else "no higher front"
        return f"By the figures alone {first} has {relation} than {second}: {volumes}, {where}; nothing to test with."
    spread = f"difference {row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
    tested = f"{spread}, p = {p_text(row['p_holm'])} after Holm"
    if row["answer"] == "yes" and row["covers"]:
        return f"Yes: the front of {first} is above that of {second} ({volumes}; {tested}), {where}."
    if row["answer"] == "yes":
        more = f"the front of {first} encloses more than that of {second}"
        return f"On the whole, not everywhere: {more} ({volumes}; {tested}), {where}."
    return f"Not shown: {first} and {second} are not told apart by these prompts ({volumes}; {tested})."


def _row(first: str, second: str, value: Mapping[str, float], *, covers: bool) -> dict[str, Any]:
    return {
        "first": first,
        "second": second,
        "first_hypervolume": value[first],
        "second_hypervolume": value[second],
        "difference": value[first] - value[second],
        "covers": covers,
    }


def _answered(rows: pd.DataFrame) -> pd.DataFrame:
    if rows.empty:
        return rows
    tested = rows["p_value"].notna()
    rows["p_holm"] = holm(rows["p_value"]) if tested.all() else np.nan
    shown = (rows["p_holm"] < 1 - CONFIDENCE) & (rows["low"] > 0)
    rows["answer"] = np.where(shown, "yes", "not shown")
    rows["sentence"] = [front_above(row) for row in rows.to_dict("records")]
    return rows


def _covers(axes: Sequence[pd.DataFrame], first: Sequence[str], second: Sequence[str]) -> bool:
    ours, theirs = (np.column_stack([axis[list(runs)].mean() for axis in axes]) for runs in (first, second))
    return covers(ours, theirs[pareto_front(theirs)])


def _hypervolumes(
    axes: Sequence[pd.DataFrame], groups: Mapping[str, Sequence[str]], resamples: int, seed: int
) -> tuple[dict[str, float], dict[str, NDArray[np.float64]]]:
    """Of each group the hypervolume, and that of each resample (resamples,)."""
    runs = list(dict.fromkeys(run for group in groups.values() for run in group))
    tables = [axis[runs].to_numpy(dtype=np.float64) for axis in axes]
    place = {run: index for index, run in enumerate(runs)}
    columns = {name: [place[run] for run in group] for name, group in groups.items()}
    points = np.column_stack([table.mean(axis=0) for table in tables])
    moved = np.stack(
        [resampled_columns(table, resamples, seed + number) for number, table in enumerate(tables)], axis=2
    )
    value = {name: hypervolume(points[index]) for name, index in columns.items()}
    return value, {name: volumes(moved[:, index]) for name, index in columns.items()}


def volumes(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hypervolumes (r,) of r sets of points (r, n, d), d 2 or 3, over the reference point 0: `hypervolume`, at once."""
    points = np.clip(points, 0.0, None)
    if points.shape[2] == 2:
        return _areas(points)
    order = np.argsort(-points[:, :, 2], axis=1)
    points = np.take_along_axis(points, order[:, :, None], axis=1)
    levels = np.concatenate([points[:, :, 2], np.zeros((len(points), 1))], axis=1)
    thickness = levels[:, :-1] - levels[:, 1:]
    # the slab below level i is as wide as the area of all points at least that high
    slabs = (thickness[:, i] * _areas(points[:, : i + 1, :2]) for i in range(points.shape[1]))
    return np.sum(list(slabs), axis=0)


def _areas(points: NDArray[np.float64]) -> NDArray[np.float64]:
    order = np.argsort(-points[:, :, 0], axis=1)
    x = np.take_along_axis(points[:, :, 0], order, axis=1)
    highest = np.maximum.accumulate(np.take_along_axis(points[:, :, 1], order, axis=1), axis=1)
    widths = x - np.concatenate([x[:, 1:], np.zeros((len(x), 1))], axis=1)
    return (widths * highest).sum(axis=1)


def _basic(estimate: float, resampled: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return float(2 * estimate - high), float(2 * estimate - low)


def _p_value(difference: float, resampled: NDArray[np.float64]) -> float:
    """Two-sided: how often a resample strays from the estimate as far as the estimate lies from 0, on either side."""
    strayed = resampled - difference
    # so that it is below 1 − confidence just where the basic interval excludes 0
    above, below = (np.count_nonzero(side) + 1 for side in (strayed >= difference, strayed <= difference))
    return float(min(1.0, 2 * min(above, below) / (len(resampled) + 1)))
