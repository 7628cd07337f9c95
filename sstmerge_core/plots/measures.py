"""What the leaderboard's columns mean: title, direction, unit, and where their interval and n are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from sstmerge_core import metrics, words
from sstmerge_core.metrics import Metric


@dataclass(frozen=True)
class Measure:
    """One numeric column of the leaderboard that can be an axis."""

    column: str
    title: str
    higher_is_better: bool
    unit: str = ""
    bounded: bool = True
    """Whether it lies in [0, 1]."""
    has_interval: bool = False
    """Whether the leaderboard has `<column>_low` and `<column>_high`."""
    n_column: str = ""
    help: str = ""
    formula: str = ""
    """LaTeX"""

    @property
    def definition(self) -> str:
        """Markdown for a tooltip: what it is, which way is good, and the formula."""
        formula = f"  \n${self.formula}$" if self.formula else ""
        return f"{self.help} {self.direction.capitalize()}.{formula}"

    @property
    def direction(self) -> str:
        return "higher is better" if self.higher_is_better else "lower is better"

    def axis_title(self, horizontal: bool) -> str:
        """``Resistance (higher is better) →``; the arrow points to the good end of the axis."""
        words = f"{self.title} ({self.direction})"
        if self.higher_is_better:
            return f"{words} →"
        return f"← {words}"


def _of_metric(metric: Metric) -> Measure:
    return Measure(
        metric.name,
        metric.title,
        metric.higher_is_better,
        unit=metric.unit,
        bounded=metric.bounded,
        has_interval=bool(metric.interval),
        n_column=f"{metric.name}_n" if metric.interval else "",
        help=metric.help,
        formula=metric.formula,
    )


UTILITY = Measure(
    "utility",
    "Utility",
    True,
    has_interval=True,
    n_column="utility_n",
    help="Usefulness on the pair's task, by the metric that the task's suite declares: ROUGE-L F1 unless it says "
    "otherwise.",
    formula=metrics.get(metrics.DEFAULT_UTILITY).formula,
)
"""One column, whatever measures a run's task: `utility_metric` beside it says what"""


def _all() -> tuple[Measure, ...]:
    """In the order of the metrics, utility after safety."""
    own = [metric for metric in metrics.metrics() if metric.headline and metric.role != "utility"]
    first = [_of_metric(metric) for metric in own if metric.name == "resistance"]
    rest = [_of_metric(metric) for metric in own if metric.name != "resistance"]
    # attack success is what few judges give: after what every run has
    rest.sort(key=lambda measure: measure.column == "asr" or 2 * (metrics.role_of(measure.column) == "cost"))
    return (
        *first,
        UTILITY,
        *rest,
        Measure("alpha", "α", True, bounded=False, help="Share or strength of the safety adapter."),
    )


_ALL = _all()
MEASURES = {measure.column: measure for measure in _ALL}

AXES = tuple(measure.column for measure in _ALL if measure.column != "alpha")
"""Columns that may be a Pareto axis: those with a good and a bad end."""


def one_utility(runs: pd.DataFrame) -> pd.DataFrame:
    """Of `runs` (leaderboard rows) those whose utility is measured by one metric: two metrics share no axis.

    The metric of most measured merges; of reported ones where nothing was measured.
    """
    if "utility_metric" not in runs:
        return runs
    known = runs[runs["utility"].notna() & runs["utility_metric"].notna()]
    if known["utility_metric"].nunique() < 2:
        return runs
    measured = known[known["source"].eq("measured")] if "source" in known else known
    leading = (measured if len(measured) else known)["utility_metric"].value_counts().index[0]
    return runs[runs["utility_metric"].isna() | runs["utility_metric"].eq(leading)]


def number(value: Any, digits: int = 3) -> str:
    """`value` with three decimals, an en dash where there is none."""
    return "–" if pd.isna(value) else f"{float(value):.{digits}f}"


def interval(low: Any, high: Any) -> str:
    """``[0.812, 0.931]``, with ∞ where only the upper end is missing; nothing where there is no interval."""
    return "" if pd.isna(low) else f"[{number(low)}, {words.upper(high)}]"
