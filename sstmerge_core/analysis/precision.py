"""One merge measured at several precisions of the base's weights: which runs those are, and their figures.

Quantising a model can cost refusals where its quality holds, so resistance, over-refusal and utility are told together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from sstmerge_core.metrics.comparable import evaluation_key, parsed

FIGURES = ("resistance", "over_refusal", "utility")
_ORDER = ("float32", "bfloat16", "float16", "8 bits", "4 bits")


def of(recipe: Mapping[str, Any] | str | None) -> str:
    """What the base's weights were when the run answered: ``float32``, ``bfloat16``, ``8 bits`` …; empty: no answers"""
    evaluation = parsed(recipe).get("evaluation")
    if not evaluation:
        return ""
    return f"{evaluation['bits']} bits" if evaluation.get("bits") else str(evaluation.get("dtype") or "float32")


def beside(run_id: str, runs: pd.DataFrame) -> dict[str, str]:
    """Precision → run, from many bits to few, of the runs that differ from this one in nothing but precision.

    `runs` are runs of one setting (`metrics.comparable.setting_key`), newest first: ``run_id`` and ``recipe``. Of
    several of one precision the newest stands, and this run itself before it.
    """
    recipes = dict(zip(runs["run_id"], runs["recipe"], strict=True))
    if run_id not in recipes:
        return {}
    own = _whatever_the_precision(recipes[run_id])
    found = {of(recipes[run_id]): run_id}
    for other, recipe in recipes.items():
        if own and _whatever_the_precision(recipe) == own:
            found.setdefault(of(recipe), other)
    return {name: found[name] for name in sorted(found, key=lambda name: (name not in _ORDER, _place(name)))}


def _place(name: str) -> int:
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)


def _whatever_the_precision(recipe: Mapping[str, Any] | str | None) -> tuple[str, str]:
    """What else counts: the prompts, the judge, and how the chat is spoken to."""
    found = parsed(recipe)
    evaluation = dict(found.get("evaluation") or {})
    for name in ("dtype", "bits"):
        evaluation.pop(name, None)
    chat = found.get("chat") or {}
    told = sorted((name, str(value)) for name, value in chat.items() if value not in ("", None, "refuse"))
    key = evaluation_key({**found, "evaluation": evaluation})
    return (key, str(told)) if key else ("", "")


def figures(precisions: Mapping[str, str], rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each precision and figure: ``precision``, ``run_id``, ``figure``, ``value``, ``low``, ``high``, ``n``.

    `rows` are those runs in the leaderboard. A figure that none of them has is left out; one that some lack is NaN.
    """
    known = rows.set_index("run_id")
    found = [
        {
            "precision": precision,
            "run_id": run_id,
            "figure": figure,
            "value": known[figure].get(run_id),
            "low": known[f"{figure}_low"].get(run_id),
            "high": known[f"{figure}_high"].get(run_id),
            "n": known[f"{figure}_n"].get(run_id),
        }
        for precision, run_id in precisions.items()
        for figure in FIGURES
        if figure in known
    ]
    table = pd.DataFrame(found, columns=["precision", "run_id", "figure", "value", "low", "high", "n"])
    measured = set(table.loc[table["value"].notna(), "figure"])
    return table[table["figure"].isin(measured)].reset_index(drop=True)
