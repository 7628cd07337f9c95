"""Which method is best over several seeds, or the plain statement that none is shown to be (experiment 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sstmerge_core.analysis.effects import hedges_g, paired_d
from sstmerge_core.analysis.paired import compare_sums
from sstmerge_core.analysis.statistics import RESAMPLES, holm, mean_over_seeds, p_text, welch

SIGNIFICANT = 0.05


class BestMethod(NamedTuple):
    summary: pd.DataFrame
    """A row a method, best mean first: method, n, mean, std, min, max, low, high (t interval over seeds)."""
    tests: pd.DataFrame
    """A row for every two methods, the better first: first, second, test, n, difference, low, high, p_value, p_holm,
    effect, effect_kind."""
    best: str | None
    """The method that is better than every other after Holm; None where none is shown to be."""
    sentence: str


def best_method(
    scores: pd.DataFrame,
    *,
    measure: str = "score",
    higher_is_better: bool = True,
    outcomes: Sequence[pd.DataFrame] = (),
    titles: Mapping[str, str] | None = None,
    resamples: int = RESAMPLES,
) -> BestMethod:
    """Compare methods by `scores` with columns method, seed, value (one row a run).

    Every two methods are tested by Welch's t over seeds, all p-values adjusted together after Holm, with Hedges' g.
    Where seeds change nothing (one seed, or deterministic merges on both sides) there is no variance over seeds: the
    test is then the paired bootstrap over `outcomes`, and is not made where there are none. `outcomes` are tables of
    prompts × methods, averaged over seeds, whose column means add up to the score: one for a single measure, which
    then gets the paired d. Raises ValueError without scores.
    """
    if scores.empty:
        raise ValueError("there are no scores to compare")
    sign = 1.0 if higher_is_better else -1.0
    by_method = {str(name): rows["value"].to_numpy(dtype=float) for name, rows in scores.groupby("method", sort=True)}
    ranked = sorted(by_method, key=lambda name: -sign * by_method[name].mean())
    summary = pd.DataFrame([{"method": name, **_spread(by_method[name])} for name in ranked])
    tests = pd.DataFrame([_test(*pair, by_method, outcomes, resamples) for pair in combinations(ranked, 2)])
    if len(tests):
        known = tests["p_value"].notna()
        tests["p_holm"] = np.nan
        tests.loc[known, "p_holm"] = holm(tests.loc[known, "p_value"])
    best = _winner(ranked, tests)
    return BestMethod(summary, tests, best, _sentence(summary, tests, best, measure, titles or {}))


def _spread(values: np.ndarray) -> dict[str, float]:
    try:
        low, high = mean_over_seeds(values)
    except ValueError:
        low = high = np.nan
    std = float(values.std(ddof=1)) if len(values) > 1 else np.nan
    ends = {"min": float(values.min()), "max": float(values.max())}
    return {"n": len(values), "mean": float(values.mean()), "std": std, **ends, "low": low, "high": high}


def _test(
    first: str, second: str, by_method: Mapping[str, np.ndarray], outcomes: Sequence[pd.DataFrame], resamples: int
) -> dict[str, Any]:
    ours, theirs = by_method[first], by_method[second]
    row: dict[str, Any] = {"first": first, "second": second, "difference": float(ours.mean() - theirs.mean())}
    try:
        found = welch(ours, theirs)
    except ValueError:
        return row | _paired(first, second, outcomes, resamples)
    return row | {
        "test": "Welch t over seeds",
        "n": len(ours) + len(theirs),
        "low": found.low,
        "high": found.high,
        "p_value": found.p_value,
        "effect": hedges_g(ours, theirs),
        "effect_kind": "Hedges' g",
    }


def _paired(first: str, second: str, outcomes: Sequence[pd.DataFrame], resamples: int) -> dict[str, Any]:
    nothing = {"n": 0, "low": np.nan, "high": np.nan, "p_value": np.nan, "effect": np.nan, "effect_kind": ""}
    if not outcomes or not all({first, second} <= set(table.columns) for table in outcomes):
        return {"test": "none: no variance over seeds", **nothing}
    found = compare_sums(outcomes, first, second, resamples=resamples)
    single = outcomes[0] if len(outcomes) == 1 else None
    return {
        "test": "paired bootstrap over prompts",
        "n": sum(len(table) for table in outcomes),
        "low": found.low,
        "high": found.high,
        "p_value": found.p_value,
        "effect": np.nan if single is None else paired_d(single[first], single[second]),
        "effect_kind": "" if single is None else "paired d",
    }


def _winner(ranked: list[str], tests: pd.DataFrame) -> str | None:
    if len(ranked) < 2:
        return None
    own = tests[tests["first"] == ranked[0]]  # the best mean stands first in each of its pairs
    return ranked[0] if (own["p_holm"] < SIGNIFICANT).all() else None


def _sentence(
    summary: pd.DataFrame, tests: pd.DataFrame, best: str | None, measure: str, titles: Mapping[str, str]
) -> str:
    def title(name: str) -> str:
        return titles.get(name, name)

    leader = summary.iloc[0]
    figure = f"{title(leader['method'])} has the best mean {measure}, {leader['mean']:.3f}"
    if len(summary) == 1:
        return f"Only {title(leader['method'])} was measured ({measure} {leader['mean']:.3f}): nothing to compare with."
    own = tests[tests["first"] == leader["method"]]
    untested = own["p_value"].isna()
    if best:
        worst = own["p_holm"].max()
        others = f"each of the other {len(own)} methods" if len(own) > 1 else title(own["second"].iloc[0])
        better = f"better than {others} (p ≤ {_up(worst)} after Holm)"
        return f"{title(best)} is best: mean {measure} {leader['mean']:.3f}, {better}."
    if untested.all():
        nothing = "nothing varies over seeds and there are no answers to resample"
        return f"No method is shown best: {figure}, but {nothing}."
    closest = own.loc[own["p_holm"].fillna(2.0).idxmax()]
    reason = (
        f"{title(closest['second'])} could not be tested against it"
        if pd.isna(closest["p_value"])
        else f"its difference to {title(closest['second'])} is {closest['difference']:+.3f} "
        f"[{closest['low']:+.3f}, {closest['high']:+.3f}], p = {p_text(closest['p_holm'])} after Holm"
    )
    return f"No method is shown best: {figure}, but {reason}."


def _up(p_value: float) -> str:
    """Rounded up to three decimals, so that ``p ≤`` holds."""
    return f"{max(np.ceil(p_value * 1000) / 1000, 0.001):.3f}"
