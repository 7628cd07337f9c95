"""The leaderboard's SQL, made from the metrics that there are: a new metric is a new column, and a new schema."""

from __future__ import annotations

from functools import cache

from sstmerge_core import metrics
from sstmerge_core.metrics import Metric
from sstmerge_core.metrics.labels import DEFAULT_JUDGE


@cache
def macro() -> str:
    """``CREATE MACRO leaderboard_of(ids)``: one row for each run of `ids`.

    Where a metric exists for several suites or judges, the run's own suite and the default judge come first; of what
    only some judges can tell, a figure comes before none. A run's utility is the metric that its suite declares, on it.
    """
    headline = [metric for metric in metrics.metrics() if metric.headline and metric.role != "utility"]
    told = [metric for metric in headline if not metric.of_run]
    taken = "".join(f"({metric.of_run})::DOUBLE AS {metric.name}, " for metric in headline if metric.of_run)
    utility = _list([metric.name for metric in metrics.metrics() if metric.role == "utility"])
    asked = _list([metric.name for metric in told if metric.asks])
    own_suite = " ".join(f"WHEN metric = '{metric.name}' THEN {_suite_of(metric)}" for metric in told)
    columns = [column for metric in told for column in _columns(metric, f"metric = '{metric.name}'")]
    picked = ",\n        ".join(f"{value} AS {name}" for name, value in columns)
    shown = ", ".join(f"b.{name}" for name, _ in columns)
    return f"""
CREATE MACRO leaderboard_of(ids) AS TABLE
WITH chosen AS (
    SELECT * FROM runs WHERE run_id IN (SELECT unnest(ids))
), preferred AS (
    SELECT m.*,
        CASE WHEN metric IN ({utility}) THEN 'utility' ELSE metric END AS figure,
        metric IN ({utility}) AND metric <> coalesce(r.utility_metric, '') AS by_another,
        coalesce(CASE {own_suite} ELSE r.utility_suite END, '') AS own_suite
    FROM metrics m JOIN chosen r USING (run_id)
), ranked AS (
    SELECT *, row_number() OVER (
        PARTITION BY run_id, figure
        ORDER BY by_another, metric IN ({asked}) AND value IS NULL,
            suite <> own_suite, judge <> '{DEFAULT_JUDGE}', suite, judge, metric
    ) AS place
    FROM preferred
), best AS (
    SELECT run_id,
        {picked},
        any_value(value) FILTER (figure = 'utility') AS utility,
        any_value(ci_low) FILTER (figure = 'utility') AS utility_low,
        any_value(ci_high) FILTER (figure = 'utility') AS utility_high,
        any_value(n) FILTER (figure = 'utility') AS utility_n,
        any_value(suite) FILTER (figure = 'utility') AS utility_suite,
        any_value(metric) FILTER (figure = 'utility') AS utility_metric,
        coalesce(any_value(judge) FILTER (metric = 'resistance'), any_value(judge) FILTER (metric = 'asr')) AS judge
    FROM ranked WHERE place = 1 GROUP BY run_id
)
SELECT r.run_id, r.source, r.pair, r.utility AS utility_adapter, r.safety AS safety_adapter,
    r.method, coalesce(a.text, r.label) AS label, a.text AS own_name, r.label AS recipe_label,
    r.alpha, r.k, r.layerwise, r.mode, r.seed, r.split, r.status,
    b.utility, b.utility_low, b.utility_high, b.utility_n,
    coalesce(b.utility_suite, r.utility_suite) AS utility_suite,
    coalesce(b.utility_metric, r.utility_metric) AS utility_metric,
    {shown}, b.judge,
    -- Which table of a report the row is from; NULL for a measured run. One report repeats rows (top10) and has a
    -- second table that disagrees with its first (alpha_dependence): fronts and curves take its main table only.
    CASE WHEN r.source = 'reported' THEN json_extract_string(r.parameters, '$.table') END AS reported_table,
    r.comparable, r.setting, r.dtype, r.backend, r.device, {taken}r."user", r.job_id, r.created_at, r.finished_at
FROM chosen r LEFT JOIN best b USING (run_id)
LEFT JOIN annotations a ON a.run_id = r.run_id AND a.kind = 'name' AND NOT a.removed;
"""


def _columns(metric: Metric, this: str) -> list[tuple[str, str]]:
    """Column → the value that it takes, of one metric: the figure, its interval and n, and why there is none."""
    found = [(metric.name, f"any_value(value) FILTER ({this})")]
    if metric.interval:
        found += [(f"{metric.name}_low", f"any_value(ci_low) FILTER ({this})")]
        found += [(f"{metric.name}_high", f"any_value(ci_high) FILTER ({this})")]
        found += [(f"{metric.name}_n", f"any_value(n) FILTER ({this})")]
    if metric.reasons or metric.asks == "harm":
        found += [(f"{metric.name}_status", f"any_value(status) FILTER ({this})")]
    return found


def _suite_of(metric: Metric) -> str:
    """The suite of a run whose figure counts: of the first role that the metric is measured on and the run has."""
    if metric.of_all:
        return "'all'"
    if metric.of_attacked:
        return "'attacked'"
    roles = ("utility",) if metric.relative or not metric.suites else metric.suites
    return f"coalesce({', '.join(f'r.{role}_suite' for role in roles)}, '')"


def _list(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
