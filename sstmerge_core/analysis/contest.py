"""A fair contest: per method the same number of settings by one rule, chosen on selection, told on test."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from sstmerge_core.analysis.goals import DECIDES, GOALS, PARENTS, Limits, Pick, misses, pick, scored

Scale = Literal["linear", "log"]
EDGE = 1e-9


@dataclass(frozen=True)
class Range:
    """The strengths that a contest tries, both ends included."""

    low: float
    high: float
    scale: Scale = "log"
    most: float | None = None
    """Beyond which `extend` does not go: 1 for methods that share out weights"""

    def __post_init__(self) -> None:
        """Raises ValueError for ends that are not in order, or not positive on a log scale."""
        if not self.low < self.high or (self.scale == "log" and self.low <= 0):
            raise ValueError(f"{self.low:g} to {self.high:g} is no {self.scale} range")

    def values(self, count: int) -> list[float]:
        """`count` values, equally far apart on the scale; the middle for one."""
        spread = np.geomspace if self.scale == "log" else np.linspace
        found = spread(self.low, self.high, count) if count > 1 else spread(self.low, self.high, 3)[1:2]
        return [float(f"{value:.4g}") for value in found]


@dataclass(frozen=True)
class Rule:
    """How the settings of every method of a contest are drawn; plain data, recorded with the runs."""

    count: int
    """Settings of each method"""
    share: Range = Range(0.1, 0.9, "linear", 1.0)
    """α of methods that share out weights"""
    strength: Range = Range(0.25, 4.0, "log")
    """α of methods that add with a strength"""
    choices: Mapping[str, Sequence[Any]] | None = None
    """Parameter → the values it takes in every method that has it: k, layerwise"""
    seed: int = 0
    """Of which choices meet which α"""

    def as_dict(self) -> dict[str, Any]:
        """For a recipe or JSON."""
        return asdict(self)


def draw(parameters: Collection[str], axis: str, rule: Rule) -> list[dict[str, Any]]:
    """`rule.count` settings of a method with these `parameters`, whose α is on `axis`: ``share`` or ``strength``.

    α is spread over its range; each other choice appears equally often (as far as the count divides) in an order drawn
    by the rule's seed, so that a method with more parameters gets no more settings, only other ones. A method without
    any of these has one setting: nothing about it can be chosen.
    """
    if rule.count < 1:
        raise ValueError("a contest needs at least one setting of each method")
    own: dict[str, list[Any]] = {}
    if "alpha" in parameters:
        own["alpha"] = (rule.strength if axis == "strength" else rule.share).values(rule.count)
    generator = np.random.default_rng(rule.seed)
    for name, values in sorted((rule.choices or {}).items()):
        order = generator.permutation(rule.count)  # drawn for absent ones too: all methods meet the same order
        if name in parameters and len(values):
            repeated = [values[place % len(values)] for place in range(rule.count)]
            own[name] = [repeated[place] for place in order]
    if not own:
        return [{}]
    settings = [dict(zip(own, point, strict=True)) for point in zip(*own.values(), strict=True)]
    return [setting for place, setting in enumerate(settings) if setting not in settings[:place]]


def extend(own: Range, best: float, count: int) -> Range | None:
    """The range that goes on past the edge where the `best` of `count` values lies; None where it is inside.

    It is as wide as the last one and starts one step beyond it, and every method of the contest gets it, so that the
    counts stay equal. None too where `most` (or 0, of a linear range) allows no more.
    """
    values = own.values(count)
    if count < 2 or values[0] + EDGE < best < values[-1] - EDGE:
        return None
    up = best >= values[-1] - EDGE
    if own.scale == "log":
        step = values[1] / values[0]
        low, high = (own.high * step, own.high * own.high / own.low * step) if up else (
            own.low * own.low / own.high / step, own.low / step)  # fmt: skip
    else:
        step = values[1] - values[0]
        low, high = (own.high + step, 2 * own.high - own.low + step) if up else (
            max(2 * own.low - own.high - step, 0.0), own.low - step)  # fmt: skip
    if own.most is not None:
        low, high = (own.high + min(step, (own.most - own.high) / count), own.most) if up else (low, high)
    return replace(own, low=low, high=high) if low < high else None


def between(own: Range, count: int) -> Range:
    """A range within `own` whose `count` values are all new: as far as they can be from the `count` values of `own`.

    Both ends are tried on the scale, at twelfths of a step from the ends of `own`.
    """
    log = own.scale == "log"
    low, high = (math.log(own.low), math.log(own.high)) if log else (own.low, own.high)
    steps = max(count - 1, 2)
    known = np.arange(steps + 1) if count > 1 else np.ones(1)

    def distance(ends: tuple[float, float]) -> float:
        new = np.linspace(*ends, count) if count > 1 else np.array([sum(ends) / 2])
        return float(np.abs(new[:, None] - known).min().round(9))

    places = np.arange(1, 12) / 12
    tried = [(float(first), float(steps - last)) for first in places for last in places]
    first, last = max(
        (ends for ends in tried if ends[0] < ends[1]), key=lambda ends: (distance(ends), ends[1] - ends[0])
    )
    found = [low + (high - low) * place / steps for place in (first, last)]
    return replace(own, low=math.exp(found[0]) if log else found[0], high=math.exp(found[1]) if log else found[1])


def at_edge(chosen: float, tried: Sequence[float]) -> bool:
    """Whether the chosen α is the least or the greatest of those tried: what lies beyond may be better."""
    return len(set(tried)) > 1 and (chosen <= min(tried) + EDGE or chosen >= max(tried) - EDGE)


class Told(NamedTuple):
    """What was chosen on selection prompts, and what it is on test prompts."""

    chosen: Pick
    """On selection"""
    row: Mapping[str, Any] | None
    """The same setting's row on test, with `discrimination`, `retention`, `balanced`; None where it was not measured"""
    keeps: bool
    """Whether it keeps the goal's limits on test too"""
    beats_parents: bool
    """Whether on test no parent or base that keeps the limits is as good on the goal"""
    sentence: str


def choose_then_tell(
    selection: pd.DataFrame,
    test: pd.DataFrame,
    *,
    utility_of_u: tuple[float, float],
    limits: Limits | None = None,
    key: str = "setting",
    goals: Iterable[str] = tuple(GOALS),
) -> dict[str, Told]:
    """goal (of `goals`) → what is chosen among the rows of `selection`, told by the row of the same `key` in `test`.

    Both tables as in `goals.pick`, each of runs on the same prompts, with parents and base; `utility_of_u` is that of U
    alone on selection and on test. Only settings that were measured on both are candidates, parents always are.
    Where no merge was measured on selection it is chosen on test as well, and the sentence says so.
    """
    own = limits or Limits()
    parents = selection["method"].isin(PARENTS)
    both = selection[parents | selection[key].isin(test[key])]
    chosen_here = not (~both["method"].isin(PARENTS)).any()
    source, utility = (test, utility_of_u[1]) if chosen_here else (both, utility_of_u[0])
    told = scored(test.reset_index(drop=True), utility_of_u[1])
    by_key = {row[key]: row for row in ({str(k): v for k, v in row.items()} for row in told.to_dict("records"))}
    picks = pick(source, own, utility, goals=goals)
    return {goal: _told(goal, one, by_key, own, key, chosen_here) for goal, one in picks.items()}


def best_of_each(
    selection: pd.DataFrame, goal: str, *, utility_of_u: float, limits: Limits | None = None, key: str = "setting"
) -> dict[str, Any]:
    """method → `key` of its setting that does best on the goal on selection prompts, parents and base among them.

    The best within the limits; where a method has none, the one that misses them by least. What a contest then
    compares on test prompts (`best.with_the_best`).
    """
    own = limits or Limits()
    rows = scored(selection.reset_index(drop=True), utility_of_u).dropna(subset=["balanced"])
    names = rows["method"].where(~rows["method"].isin(PARENTS), rows.get("label", rows["method"]))
    found = {}
    for name, group in rows.groupby(names, sort=False):
        records = [{str(k): v for k, v in row.items()} for row in group.to_dict("records")]
        gaps = [sum(abs(value - limit) for value, limit in misses(row, goal, own).values()) for row in records]
        place = min(range(len(records)), key=lambda at: (round(gaps[at], 9), -float(records[at][DECIDES[goal]])))
        found[str(name)] = records[place][key]
    return found


def _told(
    goal: str, chosen: Pick, by_key: Mapping[Any, Mapping[str, Any]], limits: Limits, key: str, chosen_here: bool
) -> Told:
    if chosen.row is None:
        return Told(chosen, None, False, False, f"{GOALS[goal]}: {chosen.reason}")
    row = by_key.get(chosen.row[key])
    name = str(chosen.row.get("label") or chosen.row["method"])
    if row is None or pd.isna(row["balanced"]):
        return Told(
            chosen, None, False, False, f"{GOALS[goal]}: {name}, chosen on selection, was not measured on test."
        )
    missed = misses(row, goal, limits)
    keeps = chosen.feasible and not missed
    parents = [one for one in by_key.values() if one["method"] in PARENTS and pd.notna(one["balanced"])]
    within = [float(one[DECIDES[goal]]) for one in parents if not misses(one, goal, limits)]
    beats = chosen.is_merge and keeps and float(row[DECIDES[goal]]) > max(within, default=-np.inf)
    how = "chosen and told on the same prompts, which flatters it" if chosen_here else "chosen on selection"
    figures = (
        f"resistance {row['resistance']:.2f}, over-refusal {row['over_refusal']:.2f}, {row['retention']:.0%} of U's "
        "utility on test"
    )
    if not chosen.feasible:
        more = f"none is feasible, this is the nearest ({' and '.join(chosen.misses)})"
    elif missed:
        more = f"on test it misses {' and '.join(name.replace('_', '-') for name in missed)}"
    elif not chosen.is_merge:
        more = "no merge beats it"
    else:
        more = "it keeps the limits and beats the parents" if beats else "on test a parent is as good"
    return Told(chosen, row, keeps, beats, f"{GOALS[goal]}: {name}, {how}: {figures}; {more}.")
