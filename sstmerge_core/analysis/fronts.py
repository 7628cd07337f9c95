"""How high a method's front lies, and whether one lies above another, given the prompts' and the settings' uncertainty.

A front here is the union of what a method's runs reach: at each safety the greatest utility of any run that is at
least that safe. Outcomes are tables of prompts × runs, one table an axis, higher is better, as `wide` makes them.

The best of several noisy points lies too high: with 18 settings of equal quality by 0.12 of a hypervolume of 0.36. So
the front is chosen on four fifths of the prompts and told on the last, each fifth in turn (cross-fitting): which run
leads where is settled by prompts other than those that say how far it reaches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from sstmerge_core import words
from sstmerge_core.analysis.front import hypervolume, pareto_front
from sstmerge_core.analysis.statistics import SEED, holm, p_text

CONFIDENCE = 0.95
RESAMPLES = 1_000
"""Enough for a standard error, which is all that is taken from them"""
LEAST = 4
"""Settings of each method from which anything is said of the methods: Student's t of two or three is so wide that only
settings without any spread would be told apart"""
FEW = "too few settings"
FOLDS, REPEATS = 5, 3
Array = NDArray[np.float64]


class Hypervolume(NamedTuple):
    value: float
    """Told on other prompts than those that chose the front: lower than the area that a picture shows"""
    low: float
    high: float


@dataclass(frozen=True)
class Axis:
    """Outcomes of one measure, 0 to 1, higher is better."""

    table: pd.DataFrame
    """Prompts × runs"""
    topics: Sequence[str] | None = None
    """Of each prompt; drawn whole"""
    of: str | None = None
    """The run of `table` whose mean the others' are shares of, at most 1: U alone, for retention"""


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
    axes: Sequence[pd.DataFrame | Axis],
    runs: Sequence[str],
    *,
    settings: bool = False,
    count: int | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    confidence: float = CONFIDENCE,
) -> Hypervolume:
    """Hypervolume of `runs` (reference point 0) with its interval over prompts; with `settings` over these as well.

    `axes`: two or three tables of prompts × runs with values in 0–1. Each table's prompts are resampled by themselves,
    the same for all its runs, and the front is chosen anew in each resample. `count`: of how many of the runs, drawn
    without replacement and averaged; all by default. The interval is Student's with the resamples' deviation, over the
    topics or prompts of the smallest table, clipped to 0–1; without two of them its ends are NaN.
    """
    found = _Refitted(axes, list(runs), resamples, seed)
    parts = found.parts(list(runs), count or len(runs), settings)
    value, low, high, _ = _told(*parts, found.units, len(runs), confidence)
    return Hypervolume(float(np.clip(value, 0.0, 1.0)), max(low, 0.0), min(high, 1.0))


def compare_fronts(
    axes: Sequence[pd.DataFrame | Axis],
    groups: Mapping[str, Sequence[str]],
    *,
    settings: bool = True,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    confidence: float = CONFIDENCE,
) -> pd.DataFrame:
    """Every two groups' fronts (group name → run ids) compared, one row a pair, the higher one as `first`.

    More settings give a front more chances to be high, so both fronts are of as many settings as the smaller group
    has. Columns: first, second, settings (that number), first_hypervolume, second_hypervolume, difference, low, high
    (interval over prompts, the same resamples for both, and over settings), p_value, p_holm (over all pairs), covers
    (no point of the second's front is beyond the first's), answer (``yes``, ``not shown``, or `FEW` of fewer than
    `LEAST`), sentence; and runs_low, runs_high, runs_p_value, runs_p_holm, runs_answer: for these runs alone, over
    prompts. Without `settings` all is for these runs alone.
    """
    found = _Refitted(axes, list(dict.fromkeys(run for group in groups.values() for run in group)), resamples, seed)
    known: dict[tuple[str, int], tuple[Array, Array]] = {}
    rows = []
    for pair in combinations(groups, 2):
        count = min(len(groups[name]) for name in pair)
        for name in pair:
            if (name, count) not in known:
                known[name, count] = found.parts(list(groups[name]), count, settings)
        value = {name: float(np.clip(_centre(known[name, count][0]), 0.0, 1.0)) for name in pair}
        first, second = sorted(pair, key=lambda name: -value[name])
        alone, both = (known[first, count][part] - known[second, count][part] for part in (0, 1))
        _, low, high, p_value = _told(alone, both if settings else alone, found.units, count, confidence)
        of_runs = _told(alone, alone, found.units, count, confidence)[1:]
        own = dict(zip(("runs_low", "runs_high", "runs_p_value"), of_runs, strict=True))
        rows.append(_row(first, second, value, covers=_covers(found, groups[first], groups[second])) | own | {
            "settings": count, "of": "settings" if settings else "runs", "low": low, "high": high, "p_value": p_value,
        })  # fmt: skip
    return _answered(pd.DataFrame(rows))


def compare_figures(points: Mapping[str, NDArray[np.float64]]) -> pd.DataFrame:
    """As `compare_fronts` for figures without answers (group name → points (n, d)): no interval and no test."""
    value = {name: hypervolume(rows) for name, rows in points.items()}
    rows = []
    for pair in combinations(points, 2):
        first, second = sorted(pair, key=lambda name: -value[name])
        nothing = dict.fromkeys(("settings", "low", "high", "p_value", "runs_low", "runs_high", "runs_p_value"), np.nan)
        rows.append(_row(first, second, value, covers=covers(points[first], points[second])) | nothing | {"of": "runs"})
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
    if row["answer"] == FEW:
        own = {name: row[f"runs_{name}"] for name in ("low", "high", "p_holm", "answer")}
        few = f"Too few settings to tell {first} and {second} apart: {row['settings']:.0f} of at least {LEAST}."
        return f"{few} {front_above({**row, **own, 'of': 'runs'}, names)}"
    spread = f"difference {row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
    tested = f"{spread}, p {p_text(row['p_holm'])} after Holm, {words.count(int(row['settings']), 'setting')} each"
    front, both = f"the front of {first}", f"{first} and {second}"
    if row["of"] == "runs":
        front, both = f"for these runs {front}", f"the runs of {both}"
    if row["answer"] == "yes" and row["covers"]:
        return f"Yes: {front} is above that of {second} ({volumes}; {tested}), {where}."
    if row["answer"] == "yes":
        return (
            f"On the whole, not everywhere: {front} encloses more than that of {second} ({volumes}; {tested}), {where}."
        )
    return f"Not shown: {both} are not told apart by these prompts ({volumes}; {tested})."


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
    for scope in ("", "runs_"):
        tested = rows[f"{scope}p_value"].notna().all()
        rows[f"{scope}p_holm"] = holm(rows[f"{scope}p_value"]) if tested else np.nan
        shown = (rows[f"{scope}p_holm"] < 1 - CONFIDENCE) & (rows[f"{scope}low"] > 0)
        rows[f"{scope}answer"] = np.where(shown, "yes", "not shown")
    few = rows["of"].eq("settings") & (rows["settings"] < LEAST)
    rows["answer"] = rows["answer"].where(~few, FEW)
    rows["sentence"] = [front_above(row) for row in rows.to_dict("records")]
    return rows


def _covers(found: _Refitted, first: Sequence[str], second: Sequence[str]) -> bool:
    ours, theirs = (found.points[[found.place[run] for run in runs]] for runs in (first, second))
    return covers(ours, theirs[pareto_front(theirs)])


class _Refitted:
    """Means of every run in every resample, on the prompts that choose and on those that tell, for each fold.

    The first "resample" is the sample itself.
    """

    def __init__(self, axes: Sequence[pd.DataFrame | Axis], runs: list[str], resamples: int, seed: int):
        given = [axis if isinstance(axis, Axis) else Axis(axis) for axis in axes]
        self.place = {run: index for index, run in enumerate(runs)}
        self.generator = np.random.default_rng((seed, len(given)))
        parts = [_folds(axis, runs, resamples, (seed, number)) for number, axis in enumerate(given)]
        self.units = min(units for *_, units in parts)
        self.points = np.column_stack([whole[0] for _, _, whole, _ in parts])  # (runs, axes)
        self.choosing = np.stack([part[0] for part in parts], axis=3)  # (folds, 1 + resamples, runs, axes)
        self.telling = np.stack([part[1] for part in parts], axis=3)

    def parts(self, runs: list[str], count: int, settings: bool) -> tuple[Array, Array]:
        """`volumes` with prompts resampled, and with the settings too; twice the same without `settings`."""
        alone = self.volumes(runs, count, False)
        return alone, self.volumes(runs, count, True) if settings and len(runs) > 1 else alone

    def volumes(self, runs: list[str], count: int, settings: bool) -> Array:
        """Cross-fitted hypervolume of `count` of `runs` in the sample and in each resample, (1 + resamples,)."""
        columns = np.array([self.place[run] for run in runs])
        folds, rows = self.choosing.shape[:2]
        drawn = np.tile(np.arange(len(columns)), (rows, 1))
        if settings:
            drawn[1:] = self.generator.integers(len(columns), size=(rows - 1, len(columns)))
        total = np.zeros(rows)
        for fold in range(folds):
            # another subset in each fold, so that their mean hangs on none of them
            own = drawn if count == len(columns) else self.generator.permuted(drawn, axis=1)[:, :count]
            index = columns[own][:, :, None]
            chosen, told = (np.take_along_axis(of[fold], index, axis=1) for of in (self.choosing, self.telling))
            total += volumes(chosen, told)
        return total / folds


def _folds(axis: Axis, runs: list[str], resamples: int, seed: tuple[int, int]) -> tuple[Array, Array, Array, int]:
    """Means (folds, 1 + resamples, runs) that choose, those that tell, those of all prompts, and the units drawn."""
    own = runs if axis.of is None else [*runs, axis.of]
    values = axis.table[own].to_numpy(dtype=np.float64)
    codes = (
        np.arange(len(values)) if axis.topics is None else np.unique(np.asarray(axis.topics), return_inverse=True)[1]
    )
    units = int(codes.max()) + 1
    sums, sizes = np.zeros((units, len(own))), np.bincount(codes).astype(np.float64)
    np.add.at(sums, codes, values)
    generator = np.random.default_rng(seed)
    times = np.vstack([np.ones((1, units)), generator.multinomial(units, np.full(units, 1 / units), size=resamples)])
    whole = times @ sums / (times @ sizes)[:, None]
    choosing: list[Array] = []
    telling: list[Array] = []
    for _ in range(REPEATS):
        fold = generator.permutation(units) % FOLDS
        for number in range(FOLDS):  # of fewer units some folds are empty: what chose then tells as well
            tells = fold == number
            choosing.append(_mean(times, sums, sizes, ~tells, whole))
            telling.append(_mean(times, sums, sizes, tells, choosing[-1]))
    best = whole if axis.of is None else np.maximum(whole[:, :-1], whole[:, -1:])
    # mean ÷ max(own mean, U's mean) is min(mean ÷ U's mean, 1), without cutting the noise of a single fold at 1
    scale = 1.0 if axis.of is None else 1.0 / np.where(best > 0, best, 1.0)
    kept = slice(None) if axis.of is None else slice(-1)
    chosen, told, all_of_them = (np.asarray(part)[..., kept] * scale for part in (choosing, telling, whole))
    return chosen, told, all_of_them, units


def _mean(times: Array, sums: Array, sizes: Array, which: NDArray[np.bool_], otherwise: Array) -> Array:
    """Weighted means over the units of `which`; where a resample holds none of them, those of `otherwise`."""
    n = (times[:, which] @ sizes[which])[:, None]
    return np.where(n > 0, times[:, which] @ sums[which] / np.maximum(n, 1.0), otherwise)


def _centre(volumes: Array) -> float:
    """The sample's, less half the bias that the bootstrap shows.

    Choosing on noisy prompts misses a little of a front whose points lie close together, and nothing of one whose
    points are equal; the whole bias would be too much for these, none too little for those (``benchmarks.simulate``).
    """
    return float(volumes[0] - 0.5 * (volumes[1:].mean() - volumes[0]))


def _told(
    prompts: Array, both: Array, units: int, settings: int, confidence: float
) -> tuple[float, float, float, float]:
    """Value, interval and two-sided p-value of it being 0, from resamples of the prompts and of prompts and settings.

    What the settings add to the variance has the smaller group's settings less one as its degrees of freedom; the sum's
    are Satterthwaite's (1946).
    """
    value = _centre(prompts)
    if units < 2:
        return value, np.nan, np.nan, np.nan
    own = float(prompts[1:].var(ddof=1)) * units / (units - 1)
    added, degrees = 0.0, float(units - 1)
    if both is not prompts and settings > 1:
        added = max(float(both[1:].var(ddof=1)) - own, 0.0) * settings / (settings - 1)
    if added > 0:
        degrees = (own + added) ** 2 / (own**2 / (units - 1) + added**2 / (settings - 1))
    error = np.sqrt(own + added)
    half = float(special.stdtrit(degrees, 0.5 + confidence / 2)) * error
    p_value = float(2 * special.stdtr(degrees, -abs(value) / error)) if error > 0 else float(value == 0)
    return value, value - half, value + half, p_value


def volumes(points: Array, told: Array | None = None) -> Array:
    """Hypervolumes (r,) of r sets of points (r, n, d), d 2 or 3, over the reference point 0: `hypervolume`, at once.

    With `told`, of the same shape, `points` only choose: which of them bounds the front where; `told` says how far each
    reaches there. Told by the points that chose, it is the hypervolume; told by others it may be less.
    """
    points = np.clip(points, 0.0, None)
    told = points if told is None else np.clip(told, 0.0, None)
    if points.shape[2] == 2:
        return _areas(points, told)
    order = np.argsort(-points[:, :, 2], axis=1, kind="stable")[:, :, None]
    points, told = np.take_along_axis(points, order, axis=1), np.take_along_axis(told, order, axis=1)
    levels = np.concatenate([told[:, :, 2], np.zeros((len(told), 1))], axis=1)
    thickness = levels[:, :-1] - levels[:, 1:]
    # the slab below level i is as wide as the area of all points at least that high
    slabs = (thickness[:, i] * _areas(points[:, : i + 1], told[:, : i + 1]) for i in range(points.shape[1]))
    return np.sum(list(slabs), axis=0)


def _areas(points: Array, told: Array) -> Array:
    order = np.argsort(-points[:, :, 0], axis=1, kind="stable")
    heights = np.take_along_axis(points[:, :, 1], order, axis=1)
    x, y = (np.take_along_axis(told[:, :, axis], order, axis=1) for axis in (0, 1))
    risen = np.concatenate([np.ones((len(x), 1), bool), heights[:, 1:] > np.maximum.accumulate(heights, 1)[:, :-1]], 1)
    highest = np.maximum.accumulate(np.where(risen, np.arange(x.shape[1]), 0), axis=1)
    widths = x - np.concatenate([x[:, 1:], np.zeros((len(x), 1))], axis=1)
    return (widths * np.take_along_axis(y, highest, axis=1)).sum(axis=1)
