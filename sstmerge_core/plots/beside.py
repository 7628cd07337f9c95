"""A run beside its parents, in words and as a table: what it keeps of each, and what it refuses too much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from sstmerge_core.analysis.decision import Decision, Row, parents_of
from sstmerge_core.analysis.goals import GOALS, PARENTS
from sstmerge_core.plots.measures import MEASURES, number
from sstmerge_core.words import plain

FIGURES = ("resistance", "over_refusal", "utility")
Kept = Mapping[str, Sequence[float]]
"""run id → its share of U's utility and the ends of its 95 % interval"""
_OVER = ("over_refusal", "over_refusal_low", "over_refusal_high")
_ALONE = {"utility": "U alone", "safety": "S alone", "base": "Base model"}


def standing_words(row: Row, parents: Mapping[str, Row], kept: Kept | None = None) -> str:
    """``Keeps 94 % (88–100) of A5's utility and 43 % of A7's resistance; refuses 11 % of the harmless, A7 alone 48 %.``

    `row` and `parents` (``utility``, ``safety``, ``base``) are leaderboard rows of runs on the same prompts. What is
    not known is left out; empty where nothing is.
    """
    u, s = parents.get("utility"), parents.get("safety")
    keeps = []
    if u is not None and _known(row, "utility") and _known(u, "utility") and u["utility"] > 0:
        share = (kept or {}).get(row["run_id"])
        told = f"{row['utility'] / u['utility']:.0%}" if share is None else share_words(share)
        keeps.append(f"{told} of {_name(u, 'U')}'s utility")
    if s is not None and _known(row, "resistance") and _known(s, "resistance") and s["resistance"] > 0:
        keeps.append(f"{row['resistance'] / s['resistance']:.0%} of {_name(s, 'S')}'s resistance")
    sentences = [f"keeps {' and '.join(keeps)}"] if keeps else []
    if _known(row, "over_refusal"):
        others = [
            f"{_name(one, letter)} alone {one['over_refusal']:.0%}"
            for one, letter in ((u, "U"), (s, "S"))
            if one is not None and _known(one, "over_refusal")
        ]
        beside = f", {' and '.join(others)}" if others else ""
        share = [row[name] if _known(row, name) else float("nan") for name in _OVER]
        sentences.append(f"refuses {share_words(share)} of the harmless{beside}")
    text = "; ".join(sentences)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def standing_of(runs: pd.DataFrame, run_id: str) -> str:
    """`standing_words` of one of a pair's runs (`queries.pair_runs`), beside the parents that answered its prompts."""
    row = next((one for one in runs.to_dict("records") if one["run_id"] == run_id), None)
    if row is None or row["method"] in PARENTS:
        return ""
    return standing_words({str(key): value for key, value in row.items()}, parents_of(runs, run_id))


def title(decision: Decision, goal: str) -> str:
    """The run that the card is of: its label, or that there is none."""
    told = decision.told.get(goal)
    row = (told.row or told.chosen.row) if told else None
    if told is None or row is None:
        return "Nothing can be picked"
    if told.chosen.is_merge:
        name = plain(str(row.get("label") or row["method"]))
    else:
        alone = plain(str(row["own_name"])) if _known(row, "own_name") else f"{_name(row, 'an adapter')} alone"
        name = "the base model" if row["method"] == "base" else alone
    if not told.keeps:
        return f"Nothing keeps the limits; nearest: {name}"
    return name if told.chosen.is_merge else f"No merge beats {name}"


def words_of(decision: Decision, goal: str, kept: Kept | None = None) -> str:
    """One sentence on the picked run beside its parents, and, where it misses a limit, which."""
    told = decision.told.get(goal)
    row = (told.row or told.chosen.row) if told else None
    if told is None or row is None:
        return decision.why_none or (told.sentence if told else "")
    beside = standing_words(row, decision.parents, kept) if told.chosen.is_merge else ""
    why = "" if told.keeps and told.chosen.is_merge else plain(told.sentence)
    return " ".join(filter(None, [beside, why]))


def table(decision: Decision, goal: str, kept: Kept | None = None) -> str:
    """The picked run, U, S and the base: resistance, over-refusal and utility with intervals; Markdown, rows linked."""
    told = decision.told.get(goal)
    row = (told.row or told.chosen.row) if told else None
    if row is None:
        return ""
    lines = [f"| {GOALS[goal]} | {' | '.join(heads())} |", f"|:--|{'--:|' * len(FIGURES)}"]
    named = [("This merge" if told and told.chosen.is_merge else "", row)]
    named += [(_ALONE[side], one) for side, one in decision.parents.items()]
    seen: set[str] = set()
    for name, one in named:
        if name and one["run_id"] not in seen:
            seen.add(one["run_id"])
            who = f" ({plain(str(one['pair']))})" if one["method"] == "adapter" and one.get("pair") else ""
            lines.append(
                f"| [{name}{who}](run?run={one['run_id']}) | {' | '.join(figure(one, each) for each in FIGURES)} |"
            )
    return "\n".join(lines)


def heads() -> list[str]:
    """The figures as headings, each with the direction that is good."""
    space = "\N{NO-BREAK SPACE}"
    return [f"{MEASURES[name].title}{space}{'↑' if MEASURES[name].higher_is_better else '↓'}" for name in FIGURES]


def share_words(share: Sequence[float]) -> str:
    """``83 % (71–95)``; U's own share of itself has no interval."""
    value, low, high = share
    return f"{value:.0%}" if pd.isna(low) else f"{value:.0%} ({100 * low:.0f}–{100 * high:.0f})"


def figure(row: Row, name: str) -> str:
    """``0.22 (0.14–0.33)``: two decimals are all that these prompts tell. A line never breaks within the interval."""
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    spread = (
        ""
        if low is None or high is None or pd.isna(low) or pd.isna(high)
        else f" ({low:.2f}–\N{WORD JOINER}{high:.2f})"
    )
    return f"{number(row[name], 2)}{spread}"


def _name(row: Row, letter: str) -> str:
    return plain(str(row.get("pair") or letter))


def _known(row: Row, name: str) -> bool:
    value: Any = row.get(name)
    return value is not None and not pd.isna(value)
