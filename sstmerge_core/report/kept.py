"""What is kept of the utility adapter's own utility, with an interval: merges, and beside them U, S and the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from sstmerge_core.analysis.fronts import wide
from sstmerge_core.analysis.statistics import paired_ratio
from sstmerge_core.report.points import outcomes, topics
from sstmerge_core.store import queries

if TYPE_CHECKING:
    import duckdb


SAME = 0.01
"""Two shares of U's utility that are closer are one, but for the rounding of figures"""


class Kept(NamedTuple):
    """A share of the utility adapter's own utility; the interval is Fieller's, NaN where it has no end."""

    value: float
    low: float
    high: float


def kept_of(table: pd.DataFrame, alone: str, drawn: Sequence[str] | None) -> dict[str, Kept]:
    """Column of `table` (prompts × settings) → its share of the column `alone`, over the same prompts by topic."""
    own = table[alone].to_numpy(dtype=float)
    if not own.mean() > 0:
        return {}
    found = {}
    for name in table:
        values = table[name].to_numpy(dtype=float)
        low = high = np.nan
        if name != alone and len(own) > 1:
            ends = paired_ratio(values, own, drawn)
            low, high = ends if np.isfinite(ends).all() else (np.nan, np.nan)
        found[str(name)] = Kept(float(values.mean() / own.mean()), low, high)
    return found


def agrees(kept: Kept, utility: Any, utility_of_u: Any) -> bool:
    """Whether a share from the answers is that of the figures: some figures' answers are not here."""
    known = utility is not None and pd.notna(utility) and pd.notna(utility_of_u) and utility_of_u > 0
    return known and abs(kept.value - float(utility) / float(utility_of_u)) < SAME


def kept_by_runs(
    con: duckdb.DuckDBPyConnection, run_ids: Sequence[str], reference: str, suite: str, metric: str
) -> dict[str, Kept]:
    """Run id → its share of the utility of the run `reference`, U alone, on the prompts of `suite` by `metric`.

    Only of runs whose answers are here and that answered the prompts which `reference` did.
    """
    ids = list(dict.fromkeys([reference, *run_ids]))
    # the base and S may have answered other tasks as well: what counts is the pair's own
    runs = queries.report_runs(con, run_ids=ids).assign(utility_suite=suite, utility_metric=metric)
    if reference not in set(runs["run_id"]):
        return {}
    found = outcomes(queries.answers(con, ids, ""), runs)
    rows = found[found["role"].eq("utility")].assign(suite="utility")
    asked = set(rows.loc[rows["run_id"].eq(reference), "prompt_id"])
    same = [run for run, own in rows.groupby("run_id") if set(own["prompt_id"]) == asked]
    table = wide(rows, "utility", same)
    return kept_of(table, reference, topics({"utility": table}, found)["utility"]) if reference in table else {}


def kept_of_picks(con: duckdb.DuckDBPyConnection, rows: Sequence[Mapping[str, Any]]) -> dict[str, Kept]:
    """`kept_by_runs` for the rows of a decision's parents and picks (leaderboard columns), U alone the first."""
    if not rows:
        return {}
    first = rows[0]
    suite, metric = first.get("utility_suite"), first.get("utility_metric")
    if not (isinstance(suite, str) and isinstance(metric, str)):
        return {}
    found = kept_by_runs(con, [str(row["run_id"]) for row in rows], str(first["run_id"]), suite, metric)
    figures = {str(row["run_id"]): row["utility"] for row in rows}
    return {run: own for run, own in found.items() if agrees(own, figures[run], first["utility"])}
