"""Runs as the report's points: one row a setting, seeds averaged, and the outcomes behind them prompt by prompt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from sstmerge_core import metrics
from sstmerge_core.analysis.fronts import average_seeds, wide
from sstmerge_core.analysis.paired import sum_interval
from sstmerge_core.analysis.statistics import bootstrap_mean, usable_clusters
from sstmerge_core.plots.pareto import REFERENCE_METHODS
from sstmerge_core.plots.style import order

MEASURES = ("resistance", "utility", "over_refusal")
ROLES = {"harmful": "resistance", "benign": "over_refusal", "utility": "utility"}


def is_merge(runs: pd.DataFrame) -> pd.Series:
    """Mask of the rows that are merges, not reference points."""
    return ~runs["method"].isin(REFERENCE_METHODS)


def points(runs: pd.DataFrame, outcomes: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row a setting from leaderboard rows: runs that differ in their seed alone stand together, as their mean.

    `runs` needs the columns of `queries.report_runs`; `outcomes` (of `outcomes`) gives the averaged
    settings their intervals over prompts. Adds `setting` (the first run's id, the column of `axes`), `run_ids` and
    `seeds` (lists), `total` = resistance + utility with `total_low`, `total_high`, and `*_std` over seeds.
    """
    if runs.empty:
        return runs.assign(setting=[], run_ids=[], seeds=[], total=[], total_low=[], total_high=[])
    rows = [_point(group, outcomes) for _, group in runs.groupby(setting_keys(runs), sort=False)]
    found = pd.DataFrame(rows)
    found["total"] = found["resistance"] + found["utility"]
    ends = [_total_interval(row) for row in rows]
    found["total_low"], found["total_high"] = [low for low, _ in ends], [high for _, high in ends]
    found["_order"] = [order(method) for method in found["method"]]
    by = ["_order", "k", "layerwise", "alpha"]
    return found.sort_values(by, kind="stable").drop(columns="_order").reset_index(drop=True)


def setting_keys(runs: pd.DataFrame, *, evaluation: bool = True) -> pd.Series:
    """What identifies each run but for its seeds; without `evaluation` a setting is the same on every split."""
    return pd.Series([_key(row, evaluation) for row in runs.to_dict("records")], index=runs.index, dtype=object)


def outcomes(answers: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """What each measure is the mean of, from `queries.answers`: rows run_id, suite, prompt_id, topic, value, role.

    On harmful and benign prompts 1 for a refusal and 0 otherwise, on utility prompts the score that the suite declares.
    """
    from sstmerge_core.evaluate.metric_rows import refusal_outcomes

    rows_of_runs = runs.to_dict("records")
    roles = {run["run_id"]: suite_roles(run) for run in rows_of_runs}
    utility = {run["run_id"]: metrics.default_utility(run.get("utility_metric")) for run in rows_of_runs}
    rows: list[tuple[str, str, str, str, float, str]] = []
    asked: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in records(answers):  # once for all: a table a run and suite would take most of the time
        asked.setdefault((str(row["run_id"]), str(row["suite"])), []).append(row)
    for (run_id, suite), group in asked.items():
        role = roles.get(run_id, {}).get(suite)
        if role is None:
            continue
        judged = group if role == "utility" else [row for row in group if pd.notna(row["label"])]
        values = refusal_outcomes(judged) if role != "utility" else metrics.outcomes(utility[run_id], judged)
        topic = {row["prompt_id"]: row.get("topic") or "" for row in group}
        rows += [(run_id, suite, prompt, topic[prompt], value, role) for prompt, value in values.items()]
    return pd.DataFrame(rows, columns=["run_id", "suite", "prompt_id", "topic", "value", "role"])


def suite_roles(run: Mapping[str, Any]) -> dict[str, str]:
    """suite → role of one run's recipe; of several utility suites only the leaderboard's, of other roles the first."""
    suites = (_json(run.get("recipe")).get("evaluation") or {}).get("suites") or []
    found: dict[str, str] = {}
    for suite in suites:
        role, name = suite.get("role"), suite.get("name")
        if role in ROLES and (name == run.get("utility_suite") if role == "utility" else role not in found.values()):
            found[name] = role
    return found


def axes(found: pd.DataFrame, outcomes: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Measure → prompts × settings of `points`' rows, over the prompts that most of them share."""
    setting_of = {run: row["setting"] for row in found.to_dict("records") for run in row["run_ids"]}
    tables = {}
    for role, measure in ROLES.items():
        rows = outcomes[outcomes["role"] == role]
        if len(rows):
            averaged = average_seeds(rows.assign(suite=role), setting_of)
            tables[measure] = wide(averaged, role)
    return {measure: table for measure, table in tables.items() if table.size}


def topics(tables: Mapping[str, pd.DataFrame], outcomes: pd.DataFrame) -> dict[str, list[str] | None]:
    """Measure → the topic of each prompt of its table (of `axes`, or prompts × runs), over which intervals draw.

    None where the prompts have no topics, or one each.
    """
    roles = {measure: role for role, measure in ROLES.items()}
    found = {}
    for measure, table in tables.items():
        rows = outcomes[outcomes["role"] == roles[measure]]
        named = dict(zip(rows["prompt_id"], rows["topic"], strict=True))
        found[measure] = usable_clusters(named.get(prompt) for prompt in table.index)
    return found


def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]


def _point(group: pd.DataFrame, outcomes: pd.DataFrame | None) -> dict[str, Any]:
    first: dict[str, Any] = {str(key): value for key, value in group.iloc[0].to_dict().items()}
    ids = [str(run) for run in group["run_id"]]
    first |= {"setting": ids[0], "run_ids": ids, "seeds": [seed for seed in group["seed"] if pd.notna(seed)]}
    if len(group) == 1:
        return first
    for measure in MEASURES:
        first[measure] = group[measure].mean()
        first[f"{measure}_std"] = group[measure].std(ddof=1)
        first[f"{measure}_low"], first[f"{measure}_high"] = _averaged_interval(ids, measure, outcomes)
    # a tax of averages is not the average of taxes; each run's own is on its page
    first |= {"safety_tax": np.nan, "safety_tax_low": np.nan, "safety_tax_high": np.nan, "safety_tax_status": None}
    own = str(first.get("recipe_label") or first["label"])  # a name that somebody gave is of one seed
    first["label"] = " ".join(part for part in own.split() if not part.startswith("seed="))
    first["own_name"] = None
    return first


def _averaged_interval(ids: Iterable[str], measure: str, outcomes: pd.DataFrame | None) -> tuple[float, float]:
    if outcomes is None:
        return np.nan, np.nan
    role = next(role for role, name in ROLES.items() if name == measure)
    rows = outcomes[outcomes["run_id"].isin(list(ids)) & outcomes["role"].eq(role)]
    if rows.empty:
        return np.nan, np.nan
    averaged = rows.groupby("prompt_id").agg({"value": "mean", "topic": "first"})
    low, high = bootstrap_mean(averaged["value"].to_numpy(), clusters=usable_clusters(averaged["topic"]))
    return low, high


def _total_interval(row: Mapping[str, Any]) -> tuple[float, float]:
    parts = [(row[name], row[f"{name}_low"], row[f"{name}_high"]) for name in ("resistance", "utility")]
    if any(pd.isna(value) for part in parts for value in part):
        return np.nan, np.nan
    low, high = sum_interval(parts)
    return low, high


def _key(row: Mapping[str, Any], evaluation: bool) -> str:
    recipe = _json(row.get("recipe"))
    if not recipe:
        return str(row["run_id"])
    identity = {
        "base": (recipe.get("base") or {}).get("sha256"),
        "adapters": [adapter.get("sha256") for adapter in recipe.get("adapters") or []],
        "method": recipe.get("method"),
        "parameters": {k: v for k, v in (recipe.get("parameters") or {}).items() if k != "seed"},
        "calibration": {k: v for k, v in (recipe.get("calibration") or {}).items() if k != "seed"},
    }
    if evaluation:
        identity["evaluation"] = {k: v for k, v in (recipe.get("evaluation") or {}).items() if k != "judge"}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _json(value: Any) -> dict[str, Any]:
    """JSON text without paths: where a file lay on the machine that measured identifies nothing."""
    if not isinstance(value, str) or not value:
        return {}
    found = json.loads(value, object_hook=lambda item: {k: v for k, v in item.items() if k != "path"})
    return found if isinstance(found, dict) else {}
