"""What a Pareto picture amounts to: the hypervolume of its front, its knee, and the run for each goal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from sstmerge_core.analysis.front import hypervolume, knee
from sstmerge_core.analysis.fronts import Hypervolume
from sstmerge_core.analysis.goals import GOAL_RULES, GOALS, recommend
from sstmerge_core.plots.measures import MEASURES, interval, number
from sstmerge_core.plots.pareto import groups, towards_good
from sstmerge_core.words import plain

LETTERS = {"safety_first": "S", "balanced": "B", "utility_first": "U", "knee": "K"}
TITLES = GOALS | {"knee": "Knee"}
FIGURES = ("resistance", "utility")
SAME = 0.005
"""Two hypervolumes closer than this are one, but for the rounding of figures"""
RULES = GOAL_RULES | {"knee": "where the front bulges most: beyond it one measure costs much of the other"}
ABOUT = (
    "Hypervolume: how much of what could be had lies below the front. 95 % interval over prompts, the runs on the "
    "front taken as given.\n\n"
    + "  \n".join(f"**{LETTERS[what]}** {TITLES[what]}: {RULES[what]}." for what in LETTERS)
    + "  \nChosen and told on the same prompts, which flatters the chosen."
)


@dataclass(frozen=True)
class Standing:
    """Of one group of runs that were measured alike; `picks` in the order of `LETTERS`."""

    words: str
    """Which runs these are: ``measured here, test prompts``"""
    front: tuple[str, ...]
    """Run ids on the front"""
    hypervolume: float | None
    """None where a measure has no natural 0 and 1"""
    picks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def marks(self) -> dict[str, str]:
        """run id → the letters of what it was picked for."""
        found: dict[str, str] = {}
        for what, row in self.picks.items():
            found[row["run_id"]] = found.get(row["run_id"], "") + LETTERS[what]
        return found


def standing(shown: pd.DataFrame, axes: Sequence[str]) -> Standing | None:
    """Of the runs measured here on test prompts, otherwise of the first group that there is; None without a merge.

    `shown` comes from `pareto.drawable` with the same two or three `axes`.
    """
    found = groups(shown)
    if not found:
        return None
    source, split = shown["source"], shown["split"]
    leading = min(found, key=lambda places: (source.iloc[places[0]] != "measured", split.iloc[places[0]] != "test"))
    columns = {"run_id", "name", "on_front", *axes, *FIGURES}
    group = shown[[column for column in shown if column in columns]].iloc[leading].reset_index(drop=True)
    best = group[group["on_front"]]
    first = shown.iloc[leading[0]]
    measured = first["source"] == "measured"
    prompts = "" if pd.isna(first["split"]) else f", {first['split']} prompts"
    picks = {goal: row for goal, row in recommend(group, _alone(shown, first)).items() if row is not None}
    if len(axes) == 2 and (place := knee(towards_good(best, axes))) is not None:
        picks["knee"] = best.iloc[place].to_dict()
    return Standing(
        words=f"measured here{prompts}" if measured else "reported in the literature",
        front=tuple(best["run_id"]),
        hypervolume=_volume(best, axes),
        picks={what: picks[what] for what in LETTERS if what in picks},
    )


def volume_words(found: Standing, axes: Sequence[str], spread: Hypervolume | None) -> str:
    """``Hypervolume 0.612 [0.571, 0.640]`` with what it is of; empty where there is none.

    Without the interval where the answers here are not those behind the runs' figures.
    """
    if found.hypervolume is None:
        return ""
    told = f"**Hypervolume {number(found.hypervolume)}**"
    if spread and abs(spread.value - found.hypervolume) < SAME:
        told += f" {interval(spread.low, spread.high)}"
    measures = " × ".join(
        MEASURES[name].title if MEASURES[name].higher_is_better else f"(1 − {MEASURES[name].title})" for name in axes
    )
    return f"{told} of {measures}, {found.words}"


def picks_table(found: Standing) -> str:
    """The picks as a Markdown table, each run a link."""
    lines = ["| | For | Run | Resistance ↑ | Utility ↑ |", "|:--|:--|:--|--:|--:|"]
    for what, row in found.picks.items():
        run = f"[{plain(str(row['name']))}](run?run={row['run_id']})"
        cells = (f"**{LETTERS[what]}**", TITLES[what], run, number(row["resistance"]), number(row["utility"]))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _alone(shown: pd.DataFrame, merge: pd.Series) -> dict[str, Mapping[str, Any]]:
    """The rows of the merge's two adapters alone, measured on the same prompts."""
    rows = shown[shown["method"].eq("adapter") & shown["source"].eq(merge["source"])]
    rows = rows[rows["split"].eq(merge["split"]) | (rows["split"].isna() & pd.isna(merge["split"]))]
    names = {"utility": merge.get("utility_adapter"), "safety": merge.get("safety_adapter")}
    by_name = {row["pair"]: row for row in rows.to_dict("records")}
    return {side: by_name[name] for side, name in names.items() if name in by_name}


def _volume(front: pd.DataFrame, axes: Sequence[str]) -> float | None:
    if not all(MEASURES[name].bounded for name in axes):
        return None
    worst = np.array([0.0 if MEASURES[name].higher_is_better else 1.0 for name in axes])
    return hypervolume(towards_good(front, axes) + worst)
