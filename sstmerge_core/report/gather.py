"""What a report is about, out of the database: a chapter for each pair, source, base model, suite and judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from sstmerge_core.analysis.decision import Decision, decide
from sstmerge_core.evaluate.two_judges import TwoJudges, two_judges
from sstmerge_core.report.kept import Kept, agrees, kept_of
from sstmerge_core.report.matched import MatchedTaxes, matched_taxes
from sstmerge_core.report.points import axes, is_merge, outcomes, points, records, suite_roles, topics
from sstmerge_core.store import queries

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Chapter:
    """Comparable runs: measured on the same prompts by one judge, or printed in one table."""

    pair: str
    source: str
    base: str
    judge: str
    suite: str
    found: pd.DataFrame
    """Merges of the test split, or of the report's main table, as `points.points` gives them."""
    references: Mapping[str, Mapping[str, Any]]
    """``base``, ``utility``, ``safety`` → its point."""
    axes: Mapping[str, pd.DataFrame]
    """Measure → prompts × settings, references included; empty for reported figures."""
    selection: pd.DataFrame
    """Points of the same settings on the selection split."""
    other_tables: pd.DataFrame
    """Reported leaderboard rows of all tables; empty for measured runs."""
    runs: pd.DataFrame
    """Leaderboard rows of the merges behind `found`, one a run."""
    decision: Decision
    """What Pareto and the command line say too"""
    judges: tuple[TwoJudges, ...] = ()
    """The chapter's judge beside every other one that has judged answers of these runs too"""
    topics: Mapping[str, Sequence[str] | None] = field(default_factory=dict)
    """Measure → the topic of each prompt of its table in `axes`; None where they have none"""
    unjudged: tuple[int, int] = (0, 0)
    """Answers to harmful and harmless prompts whose language the judge does not cover, and of how many"""

    @cached_property
    def matched(self) -> MatchedTaxes:
        """Safety Taxes at the resistance levels that the curves reach."""
        return matched_taxes(self.found, self.references, self.axes, self.topics)

    @cached_property
    def kept(self) -> dict[str, Kept]:
        """Setting → its share of the utility adapter's own utility, of those that answered the same prompts."""
        alone, table = self.references.get("utility"), self.axes.get("utility")
        if alone is None or table is None or alone["setting"] not in table:
            return {}
        shares = kept_of(table, str(alone["setting"]), self.topics.get("utility"))
        figures = {str(row["setting"]): row["utility"] for row in [*self.references.values(), *records(self.found)]}
        return {name: own for name, own in shares.items() if agrees(own, figures.get(name), alone["utility"])}

    @property
    def reported(self) -> bool:
        return self.source == "reported"

    def drawn(self, *measures: str) -> list[Sequence[str] | None]:
        """The topics of these measures' prompts, of those that have a table, in their order."""
        return [self.topics.get(name) for name in measures if name in self.axes]

    @property
    def digits(self) -> int:
        """Reported figures are percentages with two decimals."""
        return 4 if self.reported else 3


def chapters(
    con: duckdb.DuckDBPyConnection, *, sources: Sequence[str] | None = None, pairs: Sequence[str] | None = None
) -> list[Chapter]:
    """Chapters of the pairs with finished merges, measured ones first. Pairs of the paper have none: `paper`."""
    known = [pair for pair in queries.merge_pairs(con) if pairs is None or pair in pairs]
    found = []
    for pair in known:
        runs = queries.report_runs(con, pairs=[pair], sources=sources)
        runs = runs[is_merge(runs) & (runs["reported_table"] != "paper")]
        if len(runs):
            alone = _references(con, pair)
            keys = ["source", "base", "judge", "utility_suite", "utility_metric"]
            for values, group in runs.groupby(keys, sort=False, dropna=False):
                found += _chapter(con, pair, dict(zip(keys, values, strict=True)), group, alone)
    return sorted(found, key=lambda chapter: chapter.reported)


def paper(con: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """The pre-/post-tuning paper's table: model, task, method, run_id, task_performance, asr_<suite> columns."""
    rows = []
    runs = queries.report_runs(con, sources=["reported"])
    for run in runs[runs["reported_table"] == "paper"].to_dict("records"):
        metrics = queries.run_metrics(con, str(run["run_id"])).to_dict("records")
        model, _, task = str(run["pair"]).partition(" · ")
        row: dict[str, Any] = {"model": model, "task": task, "method": run["method"], "run_id": run["run_id"]}
        for metric in metrics:
            name = metric["metric"] if metric["metric"] != "asr" else f"asr_{metric['suite']}"
            row[str(name)] = metric["value"]
        rows.append(row)
    return pd.DataFrame(rows)


def _alike(runs: pd.DataFrame, key: Mapping[str, Any]) -> pd.DataFrame:
    """Of a pair's runs those of one chapter; its parents are measured on the pair's own task."""
    alike = pd.Series(True, index=runs.index)
    for name in ("judge", "utility_suite", "utility_metric"):
        alike &= runs[name].isna() if pd.isna(key[name]) else runs[name].eq(key[name])
    return runs[alike].reset_index(drop=True)


def _chapter(
    con: duckdb.DuckDBPyConnection, pair: str, key: Mapping[str, Any], group: pd.DataFrame, alone: pd.DataFrame
) -> list[Chapter]:
    reported = key["source"] == "reported"
    test = group["reported_table"].eq("detail") if reported else group["split"].fillna("test").eq("test")
    merges, selection = group[test], group[group["split"].eq("selection")]
    if merges.empty:
        return []
    sides = _of_chapter(alone, key, merges)
    rows = pd.concat([merges, sides], ignore_index=True) if len(sides) else merges
    per_prompt, counted = None, (0, 0)
    if not reported:
        answers = queries.answers(con, list(rows["run_id"]), str(key["judge"]))
        per_prompt, counted = outcomes(answers, rows), _unjudged(answers, rows)
    found = points(rows, per_prompt)
    merged = is_merge(found)
    tables = {} if per_prompt is None else axes(found, per_prompt)
    return [
        Chapter(
            pair=pair,
            source=str(key["source"]),
            base="" if pd.isna(key["base"]) else str(key["base"]),
            judge="" if pd.isna(key["judge"]) else str(key["judge"]),
            suite="" if pd.isna(key["utility_suite"]) else str(key["utility_suite"]),
            found=found[merged].reset_index(drop=True),
            references={str(row["side"]): row for row in records(found[~merged]) if pd.notna(row.get("side"))},
            axes=tables,
            selection=points(selection),
            other_tables=group if reported else group.head(0),
            runs=merges,
            decision=decide(_alike(queries.pair_runs(con, pair, sources=[str(key["source"])]), key)),
            unjudged=counted,
            judges=() if reported else _judges(con, list(rows["run_id"]), str(key["judge"])),
            topics={} if per_prompt is None else topics(tables, per_prompt),
        )
    ]


def _judges(con: duckdb.DuckDBPyConnection, run_ids: list[str], judge: str) -> tuple[TwoJudges, ...]:
    others = [other for other in queries.judges_of(con, run_ids) if other != judge]
    found = [two_judges(queries.both_judged(con, run_ids, judge, other), judge, other) for other in others]
    return tuple(one for one in found if one is not None)


def _unjudged(answers: pd.DataFrame, runs: pd.DataFrame) -> tuple[int, int]:
    """Answers to harmful and harmless prompts that are in no language of the judge, and of how many judged at all."""
    roles = {str(run["run_id"]): suite_roles(run) for run in records(runs)}
    asked = [
        roles.get(run_id, {}).get(suite) in ("harmful", "benign")
        for run_id, suite in zip(answers["run_id"], answers["suite"], strict=True)
    ]
    labels = answers.loc[asked, "label"].dropna()
    return int(labels.eq("unjudged").sum()), len(labels)


def _references(con: duckdb.DuckDBPyConnection, pair: str) -> pd.DataFrame:
    """Reference rows of the pair with the recipe, which says which prompts have which role."""
    alone = queries.references(con, pair)
    if alone.empty:
        return alone
    full = queries.report_runs(con, pairs=list(alone["pair"].unique()))
    return alone.merge(full[["run_id", "base", "parameters", "recipe"]], on="run_id", how="left")


def _of_chapter(alone: pd.DataFrame, key: Mapping[str, Any], merges: pd.DataFrame) -> pd.DataFrame:
    """One row each for the base model and the two adapters alone, with its `side`."""
    if alone.empty:
        return alone
    split = alone["split"].fillna("test").eq("test")
    rows = alone[split & alone["source"].eq(key["source"]) & alone["utility_suite"].eq(key["utility_suite"])]
    if key["source"] != "reported":
        rows = rows[rows["base"].eq(key["base"]) & rows["judge"].eq(key["judge"])]
        usual = merges["resistance_n"].mode()
        rows = rows.assign(_other=~rows["resistance_n"].isin(usual)).sort_values("_other", kind="stable")
        rows = rows.drop(columns="_other")
    side = pd.Series("base", index=rows.index).where(rows["method"].eq("base"), rows["pair"])
    names = {merges["utility_adapter"].iloc[0]: "utility", merges["safety_adapter"].iloc[0]: "safety", "base": "base"}
    return rows.assign(side=side.map(names)).dropna(subset=["side"]).drop_duplicates("side")
