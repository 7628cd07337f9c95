"""How sure the hypervolume of a front is, from the answers of the runs on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sstmerge_core.analysis.fronts import Axis, Hypervolume, hypervolume_interval, wide
from sstmerge_core.plots.measures import MEASURES
from sstmerge_core.report.points import ROLES, outcomes, topics
from sstmerge_core.store import queries

if TYPE_CHECKING:
    import duckdb

ANSWERED = tuple(ROLES.values())
"""The measures that are means over prompts, which can be drawn anew"""
MOST = 60
"""Runs on the front at most: beyond, reading their answers takes longer than a page may"""
RESAMPLES = 2_000


def volume_interval(con: duckdb.DuckDBPyConnection, run_ids: Sequence[str], axes: Sequence[str]) -> Hypervolume | None:
    """The 95 % interval over prompts, by topic, of the hypervolume of `run_ids`, the runs on a front, taken as given.

    None where an axis is not a mean over prompts, the runs are more than `MOST` or have no answers here, or were not
    all asked the same prompts.
    """
    if not 0 < len(run_ids) <= MOST or not set(axes) <= set(ANSWERED):
        return None
    runs = queries.report_runs(con, run_ids=list(run_ids))
    judges = runs["judge"].dropna().unique()
    if len(runs) < len(run_ids) or len(judges) != 1:
        return None
    roles = {measure: role for role, measure in ROLES.items()}
    found = outcomes(queries.answers(con, list(run_ids), str(judges[0])), runs)
    tables = []
    for measure in axes:
        rows = found[found["role"] == roles[measure]].assign(suite=measure)
        table = wide(rows, measure, run_ids)
        if set(table.columns) != set(run_ids):
            return None
        drawn = topics({measure: table}, found)[measure]
        tables.append(Axis(table if MEASURES[measure].higher_is_better else 1.0 - table, drawn))
    return hypervolume_interval(tables, run_ids, resamples=RESAMPLES)
