"""What a Pareto picture amounts to: the hypervolume of its front, and the run for each goal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from sstmerge_core import words
from sstmerge_core.analysis.decision import Decision
from sstmerge_core.analysis.front import hypervolume
from sstmerge_core.analysis.fronts import Hypervolume
from sstmerge_core.analysis.goals import GOALS, rule
from sstmerge_core.plots import beside
from sstmerge_core.plots.measures import MEASURES, interval, number
from sstmerge_core.plots.pareto import groups, towards_good
from sstmerge_core.words import plain

LETTERS = {"safety_first": "S", "balanced": "B", "utility_first": "U"}
SAME = 0.005
ALIKE = 0.1
"""Two hypervolumes closer than the first are one, but for the rounding of figures; farther than the second, they are
of other answers"""
ABOUT = (
    "Hypervolume: how much of what could be had lies below the front. 95 % interval over prompts, topics drawn whole, "
    "for these runs: those on the front are taken as given."
)


def about(decision: Decision) -> str:
    """How the goals are decided, in Markdown, for a tooltip."""
    rules = "  \n".join(f"**{LETTERS[goal]}** {GOALS[goal]}: {rule(goal, decision.limits)}." for goal in GOALS)
    kept = "*Of U's*: share of the utility adapter's own utility on the same prompts, with Fieller's 95 % interval."
    return f"{rules}  \nU, S and the base are in every contest. {plain(decision.how)} {kept}"


@dataclass(frozen=True)
class Standing:
    """Of one group of runs that were measured alike; `picks` in the order of `LETTERS`."""

    decision: Decision
    words: str
    """Which runs these are: ``measured here, test prompts``"""
    front: tuple[str, ...]
    """Run ids on the front"""
    hypervolume: float | None
    """None where a measure has no natural 0 and 1"""
    picks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """goal → the picked run's row, of the goals that have one within the limits"""

    @property
    def marks(self) -> dict[str, str]:
        """run id → the letters of what it was picked for."""
        found: dict[str, str] = {}
        for what, row in self.picks.items():
            found[row["run_id"]] = found.get(row["run_id"], "") + LETTERS[what]
        return found


def marks_words(marks: Mapping[str, str]) -> str:
    """What the letters in the picture stand for: ``S: Safety first, B: Balanced.``; empty where there is none."""
    there = {letter for letters in marks.values() for letter in letters}
    told = [f"{letter}: {GOALS[goal]}" for goal, letter in LETTERS.items() if letter in there]
    return f"The picks are ringed, {', '.join(told)}." if told else ""


def standing(shown: pd.DataFrame, axes: Sequence[str], decision: Decision) -> Standing | None:
    """Of the runs measured here on test prompts, otherwise of the first group that there is; None without a merge.

    `shown` comes from `pareto.drawable` with the same two or three `axes`, `decision` from `analysis.decision` of the
    pair: what is picked does not follow from what is shown.
    """
    found = groups(shown)
    if not found:
        return None
    source, split = shown["source"], shown["split"]
    leading = min(found, key=lambda places: (source.iloc[places[0]] != "measured", split.iloc[places[0]] != "test"))
    group = shown.iloc[leading].reset_index(drop=True)
    best = group[group["on_front"]]
    first = shown.iloc[leading[0]]
    measured = first["source"] == "measured"
    prompts = "" if pd.isna(first["split"]) else f", {first['split']} prompts"
    picks = {goal: told.row for goal, told in decision.told.items() if told.keeps and told.row is not None}
    return Standing(
        decision=decision,
        words=f"measured here{prompts}" if measured else "reported in the literature",
        front=tuple(best["run_id"]),
        hypervolume=_volume(best, axes),
        picks=picks,
    )


def volume_words(found: Standing, axes: Sequence[str], spread: Hypervolume | None) -> str:
    """``Hypervolume 0.612`` with what it is of, and with its interval; empty where there is none.

    The drawn front was chosen on the prompts that tell it, which flatters it: `spread` is told on other prompts than
    chose it, and said so where that is another figure. Without it where the answers here are not behind the figures.
    """
    if found.hypervolume is None:
        return ""
    told = f"**Hypervolume {number(found.hypervolume)}**"
    if spread and abs(spread.value - found.hypervolume) < SAME:
        told += f" {interval(spread.low, spread.high)}"
    elif spread and abs(spread.value - found.hypervolume) < ALIKE:
        told += f" as drawn, {number(spread.value)} {interval(spread.low, spread.high)} on other prompts than chose it,"
    measures = " × ".join(
        MEASURES[name].title if MEASURES[name].higher_is_better else f"(1 − {MEASURES[name].title})" for name in axes
    )
    return f"{told} of {measures}, {plain(found.words)}"


def picks_table(decision: Decision, kept: Mapping[str, Sequence[float]] | None = None, *, narrow: bool = False) -> str:
    """The picks and the parents as a Markdown table, each run a link; empty where nothing can be ranked.

    `kept`: run id → its share of U's utility and the ends of its interval, of the runs whose answers are here.
    `narrow`: the share alone, where there is no room for its interval.
    """
    if not decision.told:
        return ""
    heads = beside.heads()
    kept = kept if kept and len(kept) > 1 else None  # U's share of itself alone says nothing
    if kept and narrow:
        kept = {run: (share[0], float("nan"), float("nan")) for run, share in kept.items()}
    heads += ["of\N{NO-BREAK SPACE}U's\N{NO-BREAK SPACE}↑"] if kept else []
    lines = [f"| For | Run | {' | '.join(heads)} |", f"|:--|:--|{'--:|' * len(heads)}"]
    for goal, told in decision.told.items():
        title = f"**{LETTERS[goal]}** {GOALS[goal]}" if told.keeps else f"{GOALS[goal]}: none, nearest"
        lines.append(_line(title, told.row or told.chosen.row, kept))
    lines += [_line(_ALONE[side], row, kept) for side, row in decision.parents.items()]
    return "\n".join(lines)


def picks_words(decision: Decision) -> str:
    """Why each was picked, how it was decided and who was left out: Markdown, a sentence a line."""
    told = [one.sentence for one in decision.told.values()]
    passed = [
        f"{GOALS[goal]}: {words.count(number, 'run')} that did better on selection miss the limits on test."
        for goal, number in decision.missed.items()
    ]
    rest = [f"{decision.not_ranked}."] if decision.not_ranked else []
    return "  \n".join(plain(line) for line in [*told, *passed, decision.how, *rest])


_ALONE = {"utility": "Utility adapter", "safety": "Safety adapter", "base": "Base model"}


def _line(title: str, row: Mapping[str, Any] | None, kept: Mapping[str, Sequence[float]] | None) -> str:
    if row is None:
        return f"| {title} |{' – |' * (len(beside.FIGURES) + (2 if kept else 1))}"
    name = words.run_name(row)
    run = words.run_link(name, row["run_id"])
    cells = [beside.figure(row, name) for name in beside.FIGURES]
    if kept:
        share = kept.get(row["run_id"])
        cells.append("–" if share is None else beside.share_words(share))
    return f"| {title} | {run} | {' | '.join(cells)} |"


def _volume(front: pd.DataFrame, axes: Sequence[str]) -> float | None:
    if not all(MEASURES[name].bounded for name in axes):
        return None
    worst = np.array([0.0 if MEASURES[name].higher_is_better else 1.0 for name in axes])
    return hypervolume(towards_good(front, axes) + worst)
