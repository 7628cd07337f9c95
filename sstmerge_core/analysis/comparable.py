"""Which runs may be ranked together: those that answered the same prompts, generated and judged alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sstmerge_core import words
from sstmerge_core.metrics.comparable import evaluation_key

KEY = "comparable"
"""The column: equal keys, comparable runs"""
ANY_JUDGE = "*"
"""In a key that leaves the judge open"""


@dataclass(frozen=True)
class Group:
    """Runs that may be ranked together."""

    key: str
    places: NDArray[np.intp]
    """Row numbers in the table that was given"""
    merges: int
    """How many of them are no parents"""
    split: str
    n: int
    """Prompts of the smallest suite; 0 where it is not known"""
    source: str


def keyed(runs: pd.DataFrame) -> pd.DataFrame:
    """`runs` (leaderboard columns run_id, source, judge, comparable, reported_table) with a complete `KEY`.

    The store's own `comparable` says nothing of the judge, which may be another's than the recipe's; where it is
    absent, it is made of the column `recipe`. Of reported figures nobody knows the prompts: those of one table share a
    key of their own. A run without an evaluation has its own.
    """
    empty = pd.Series(None, index=runs.index, dtype=object)
    columns = [runs.get(name, empty) for name in (KEY, "recipe", "judge", "utility_suite", "reported_table")]
    keys = []
    for run_id, source, known, recipe, judge, suite, table in zip(
        runs["run_id"], runs["source"], *columns, strict=True
    ):
        if source != "measured":
            keys.append(f"{source} {_text(table)}".strip())
            continue
        own = _text(known) or evaluation_key(recipe, ANY_JUDGE, _text(suite))
        keys.append(f"{own} {_text(judge)}".strip() if own else f"alone {run_id}")
    return runs.assign(**{KEY: keys})


def groups(runs: pd.DataFrame, parents: Sequence[str] = ("base", "adapter", "fine_tuned")) -> list[Group]:
    """The groups of `runs` (through `keyed`; columns method, source, split, and *_n where known), the leading first.

    A pair of its own is a group of its own where `runs` holds several: the caller gives one pair's runs, with its
    parents. Leading is what was measured, on the test split, with the most prompts, then the most merges.
    """
    found = []
    for key, places in runs.groupby(KEY, sort=False).indices.items():
        rows = runs.iloc[places]
        counts = rows[[name for name in ("resistance_n", "over_refusal_n", "utility_n") if name in rows]]
        least = counts.min(axis="columns").max() if len(counts.columns) else np.nan
        split = rows["split"].dropna()
        found.append(
            Group(
                key=str(key),
                places=np.asarray(places, dtype=np.intp),
                merges=int((~rows["method"].isin(parents)).sum()),
                split=str(split.iloc[0]) if len(split) else "",
                n=0 if pd.isna(least) else int(least),
                source=str(rows["source"].iloc[0]),
            )
        )
    return sorted(
        found,
        key=lambda group: (
            not group.merges,
            group.source != "measured",
            group.split != "test",
            -group.n,
            -group.merges,
        ),
    )


def leading(runs: pd.DataFrame) -> tuple[pd.Series, str]:
    """Mask of the rows that are ranked, and what is said of the others; without `KEY` in `runs` it is added."""
    own = runs if KEY in runs else keyed(runs)
    found = groups(own)
    mask = pd.Series(False, index=runs.index)
    if found:
        mask.iloc[found[0].places] = True
    return mask, not_ranked(found)


def not_ranked(found: Sequence[Group]) -> str:
    """``3 runs on other prompts (8 test prompts) not ranked``; empty where every merge is in the leading group.

    Runs that answered as many prompts of the same split differ in their content, judge, dtype or backend.
    """
    if not found:
        return ""
    first, rest = found[0], [group for group in found[1:] if group.merges]
    total = sum(group.merges for group in rest)
    if not total:
        return ""
    measured = [group for group in rest if group.source == "measured"]
    told = list(dict.fromkeys(_told(group, first) for group in measured))
    if len(measured) < len(rest):
        told.append("reported in the literature")
    return f"{words.count(total, 'run')} on other prompts ({', '.join(told)}) not ranked"


def _told(group: Group, first: Group) -> str:
    if (group.split, group.n) == (first.split, first.n):
        return "of another content, judge, dtype or backend"
    return f"{group.n} {group.split} prompts".strip() if group.n else f"{group.split or 'unknown'} prompts"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
