"""Which run to ship, and why: the one answer that every page, the report and the command line give for a pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from sstmerge_core.analysis import comparable
from sstmerge_core.analysis.contest import Told, choose_then_tell
from sstmerge_core.analysis.goals import GOALS, PARENTS, Limits

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Decision:
    """Of one pair's runs on the test prompts that most of them share."""

    limits: Limits
    told: Mapping[str, Told] = field(default_factory=dict)
    """goal → what was chosen and what it is on test; empty where nothing can be ranked"""
    parents: Mapping[str, Row] = field(default_factory=dict)
    """``utility``, ``safety`` and ``base`` alone on the same prompts, as far as they were measured"""
    ranked: int = 0
    """Merges in the contest"""
    n: int = 0
    """Prompts of the smallest suite"""
    judge: str = ""
    missed: Mapping[str, int] = field(default_factory=dict)
    """goal → how many that did better on selection were passed over, for they miss the limits on test"""
    chosen_on: str = "selection"
    """The split on which the choice was made"""
    not_ranked: str = ""
    """Who was left out, in words; empty where nobody was"""
    why_none: str = ""
    """Why nothing can be picked; empty where something can"""

    @property
    def feasible(self) -> bool:
        """Whether any goal has a merge that keeps within the limits on test."""
        return any(one.keeps and one.chosen.is_merge for one in self.told.values())

    @property
    def rows(self) -> list[Row]:
        """The rows that are told: U alone, S and the base, then each pick, or the nearest."""
        if "utility" not in self.parents:
            return []
        picked = [told.row or told.chosen.row for told in self.told.values()]
        return [*self.parents.values(), *(row for row in picked if row is not None)]

    def as_object(self, pair: str, goal: str) -> dict[str, Any]:
        """One goal for programs: goal, pair, feasible, run_id, label, resistance, over_refusal, utility, n, and why.

        `feasible`: whether it keeps the limits on test. Where nothing does, the run is the nearest.
        """
        told = self.told.get(goal)
        row = (told.row or told.chosen.row or {}) if told else {}
        plain = {name: _number(row.get(name)) for name in ("resistance", "over_refusal", "utility", "retention")}
        return {
            "goal": goal,
            "pair": pair,
            "feasible": bool(told and told.keeps),
            "is_merge": bool(told and told.chosen.is_merge),
            "run_id": row.get("run_id"),
            "label": row.get("label"),
            **plain,
            "n": self.n,
            "judge": self.judge,
            "chosen_on": self.chosen_on,
            "reason": told.sentence if told else self.why_none,
        }

    @property
    def how(self) -> str:
        """Which prompts, n, judge and how chosen, in one sentence."""
        if not self.told:
            return self.why_none
        chosen = (
            "chosen on the selection prompts, told on the test prompts, which must keep the limits too"
            if self.chosen_on == "selection"
            else "chosen and told on the same test prompts, which flatters the chosen"
        )
        count = f"{self.ranked:,} merges and {len(self.parents)} of U, S and the base"
        return f"{count}, n = {self.n} prompts a suite, judge {self.judge or 'unknown'}, one seed a run; {chosen}."


def decide(runs: pd.DataFrame, limits: Limits | None = None) -> Decision:
    """The decision for one pair.

    `runs`: leaderboard rows of the pair's finished runs with its parents (`queries.pair_runs`): columns method, pair,
    source, split, judge, utility_adapter, safety_adapter, comparable, setting and the figures. Only runs on the same
    prompts, judged alike, are ranked together; reported figures never are.
    """
    own = limits or Limits()
    measured = runs[runs["source"].eq("measured")]
    if measured.empty:
        return Decision(own, why_none="Only reported figures are here, on prompts that nobody else can ask.")
    keyed = comparable.keyed(measured).reset_index(drop=True)
    test, left_out = _leading(keyed[keyed["split"].fillna("test").eq("test")])
    merges = test[~test["method"].isin(PARENTS)]
    if merges.empty:
        return Decision(own, why_none="No merge was measured on test prompts yet.", not_ranked=left_out)
    selection, _ = _leading(keyed[keyed["split"].eq("selection")])
    parents = _parents(test, merges.iloc[0])
    utility = parents.get("utility")
    judge = test["judge"].dropna()
    found = Decision(
        own,
        parents=parents,
        ranked=len(merges),
        n=_n(test),
        judge=str(judge.iloc[0]) if len(judge) else "",
        not_ranked=left_out,
    )
    if utility is None or pd.isna(utility["utility"]):
        return replace(found, why_none="The utility adapter alone was not measured on these prompts.")
    there = _parents(selection, merges.iloc[0]).get("utility")
    on_test = on_selection = float(utility["utility"])
    chosen_from = selection.head(0)
    if there is not None and pd.notna(there["utility"]):
        chosen_from, on_selection = selection, float(there["utility"])
    on_both = chosen_from["method"].isin(PARENTS) | chosen_from["setting"].isin(test["setting"])
    chosen_from = chosen_from[on_both]
    both = (on_selection, on_test)
    chosen = {goal: _first_that_holds(goal, chosen_from, test, both, own) for goal in GOALS}
    return replace(
        found,
        told={goal: told for goal, (told, _) in chosen.items()},
        missed={goal: count for goal, (_, count) in chosen.items() if count},
        chosen_on="test" if chosen_from["method"].isin(PARENTS).all() else "selection",
    )


def parents_of(runs: pd.DataFrame, run_id: str) -> dict[str, Row]:
    """``utility``, ``safety`` and ``base`` alone on the very prompts of one run, as far as they were measured.

    `runs`: as `decide` takes them.
    """
    keyed = comparable.keyed(runs)
    own = keyed[keyed["run_id"].eq(run_id)]
    if own.empty:
        return {}
    return _parents(keyed[keyed[comparable.KEY].eq(own.iloc[0][comparable.KEY])], own.iloc[0])


def _first_that_holds(
    goal: str, selection: pd.DataFrame, test: pd.DataFrame, utility: tuple[float, float], limits: Limits
) -> tuple[Told, int]:
    """The best on selection whose limits hold on test too, and how many before it do not: test may only say no.

    Where none holds, the best on selection as it is, and 0. `selection` has settings that `test` has too; where it has
    no merge, the choice is made on test.
    """
    best = told = choose_then_tell(selection, test, utility_of_u=utility, limits=limits, goals=(goal,))[goal]
    passed_over = 0
    left = selection
    while not told.keeps and told.chosen.row is not None and told.chosen.feasible and told.chosen.is_merge:
        left = left[left["setting"] != told.chosen.row["setting"]]
        if left["method"].isin(PARENTS).all():
            break
        passed_over += 1
        told = choose_then_tell(left, test, utility_of_u=utility, limits=limits, goals=(goal,))[goal]
    return (told, passed_over) if told.keeps else (best, 0)


def _number(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else float(value)


def _leading(keyed: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    if keyed.empty:
        return keyed, ""
    rows = keyed.reset_index(drop=True)
    found = comparable.groups(rows)
    return rows.iloc[found[0].places].reset_index(drop=True), comparable.not_ranked(found)


def _parents(rows: pd.DataFrame, merge: pd.Series) -> dict[str, Row]:
    names = {"utility": merge.get("utility_adapter"), "safety": merge.get("safety_adapter")}
    found: dict[str, Row] = {}
    for row in rows[rows["method"].isin(PARENTS)].to_dict("records"):
        told: Row = {str(key): value for key, value in row.items()}
        if row["method"] == "base":
            found.setdefault("base", told)
        for side, name in names.items():
            if row["method"] == "adapter" and row["pair"] == name:
                found.setdefault(side, told)
    return {side: found[side] for side in ("utility", "safety", "base") if side in found}


def _n(rows: pd.DataFrame) -> int:
    counts = rows[[name for name in ("resistance_n", "over_refusal_n", "utility_n") if name in rows]]
    least = counts.min().min() if counts.notna().to_numpy().any() else 0
    return int(least) if pd.notna(least) else 0
