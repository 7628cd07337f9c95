"""What an experiment found as small tables of text: the figures that its sentences name, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sstmerge_core import words
from sstmerge_core.analysis.goals import GOALS
from sstmerge_core.analysis.statistics import p_text
from sstmerge_core.experiments.choice import GOALS as MEASURED
from sstmerge_core.experiments.result import Result, title

Row = Mapping[str, Any]
SCORES = {goal: title.split(" (")[0] for goal, title in GOALS.items()} | {"sum": "Reports' sum"}
"""What is compared in a contest, by its goal"""


@dataclass(frozen=True)
class Summary:
    title: str
    rows: pd.DataFrame
    """Text; the first column names what a row is of"""
    note: str = ""


def summaries(result: Result) -> list[Summary]:
    """The tables of an experiment's conclusions; none where its main table says them already."""
    found = _taxes(result) if result.experiment == "safety-tax" else []
    found += _retention(result) if result.experiment == "interference" else []
    if result.experiment == "contest":
        return _over_seeds(result)
    contests = dict(result.analysis.get("contests") or {})
    if contest := result.analysis.get("contest"):
        contests["First seed"] = contest
    found += [_contest(where, contest) for where, contest in contests.items() if contest.get("leader")]
    return found


def _taxes(result: Result) -> list[Summary]:
    """A table a pair: methods by the resistance at which their taxes are told."""
    rows = result.table("matched").rows
    found = []
    for pair in dict.fromkeys(row["pair"] for row in rows):
        own = [row for row in rows if row["pair"] == pair]
        by_method: dict[str, dict[str, str]] = {}
        for row in own:
            cell = "not reached" if row["tax"] is None else _figure(row, "tax", digits=2)
            by_method.setdefault(title(row["method"]), {})[f"at {row['at']:.0%}"] = cell
        n = max(int(row["n"]) for row in own)
        note = f"Utility lost per safety gained, at a resistance. 95 % intervals, {n} harmful test prompts."
        found.append(Summary(str(pair), _table("Method", by_method), note))
    return found


def _retention(result: Result) -> list[Summary]:
    """Methods by how many experts they merge, best first with the most of them."""
    rows = result.table("retention").rows
    counts = sorted({row["experts"] for row in rows})
    most = {_named(row): row for row in rows if row["experts"] == counts[-1]} if counts else {}
    by_method: dict[str, dict[str, str]] = {}
    for name, last in sorted(most.items(), key=lambda item: -(item[1]["retention"] or 0.0)):
        own = {row["experts"]: row for row in rows if _named(row) == name}
        cells = {f"{count} experts": _figure(own[count], "retention", digits=2) for count in counts if count in own}
        by_method[name] = cells | {f"Resistance, {counts[-1]}": _figure(last, "resistance", digits=2)}
    note = "What is kept of the experts' own utility, and how much harm is resisted. 95 % intervals."
    return [Summary("Retention", _table("Method", by_method), note)] if by_method else []


def _contest(where: str, contest: Row) -> Summary:
    """Every entrant with its score, how far it is behind the leader, and whether that is shown."""
    leader = contest["leader"]
    behind = {row["method"]: row for row in contest["comparisons"]}
    by_entrant: dict[str, dict[str, str]] = {}
    score = str(SCORES.get(contest["goal"]) or contest["goal"])
    for name, own in sorted(contest["scores"].items(), key=lambda item: -(item[1]["value"] or 0.0)):
        cells = {score.capitalize(): _figure(own, "value", digits=2, ends=("low", "high"))}
        if name == leader:
            cells |= {"Behind": "–", "p": "–", "Told": "leads"}
        elif name in behind:
            row = behind[name]
            worse = "not shown worse" if name in contest["not_shown_worse"] else "shown worse"
            cells |= {"Behind": _figure(row, "difference", digits=2, ends=("low", "high"))}
            cells |= {"p": p_text(row["p_value"]), "Told": worse}
        by_entrant[title(name)] = cells
    n = "/".join(str(count) for count in contest["n"].values())
    note = f"Chosen on selection, told on {n} test prompts. Every entrant is compared with the leader, all at once."
    pair = where.removesuffix(f" {contest['goal']}")  # a choice for several goals has a contest for each
    return Summary(f"{pair}: {score}", _table("Entrant", by_entrant), note)


FIGURES = {
    "discrimination": "J",
    "retention": "R",
    "resistance": "Resistance ↑",
    "over_refusal": "Over-refusal ↓",
    "utility": "Utility ↑",
}
"""Of the contest over seeds, beside the goal's, and their headings"""


def _over_seeds(result: Result) -> list[Summary]:
    """A table a pair: every entrant's figures over the training seeds, and whether it is with the best."""
    rows = result.table("contest").rows
    measure = MEASURED[result.analysis["goal"]].split(" (")[0].capitalize()
    found = []
    for pair in dict.fromkeys(row["pair"] for row in rows):
        by_entrant = {}
        for row in (one for one in rows if one["pair"] == pair):
            names = {"score": measure, **FIGURES}
            cells = {head: _figure(row, name, digits=2) for name, head in names.items()}
            by_entrant[title(row["method"])] = cells | {"Told": row.get("told", "not measured at every seed")}
        seeds = max(row["seeds"] for row in rows)
        note = (
            f"Means over {words.count(seeds, 'training seed')}, 95 % intervals over prompts and seeds. Chosen on "
            "selection, told on test; all compared at once: who is not with the best is shown worse at 5 %."
        )
        found.append(Summary(str(pair), _table("Entrant", by_entrant), note))
    return found


def _table(first: str, rows: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
    return pd.DataFrame(
        [{first: name} | {column: cells.get(column, "–") for column in columns} for name, cells in rows.items()]
    )


def _figure(row: Row, name: str, *, digits: int, ends: Sequence[str] = ()) -> str:
    """``0.28 (0.09 to 0.47)``"""
    low, high = (row.get(end) for end in ends or (f"{name}_low", f"{name}_high"))
    value = row.get(name)
    if value is None:
        return "–"
    return (
        f"{value:.{digits}f}"
        if low is None
        else f"{value:.{digits}f} ({low:.{digits}f} to {words.upper(high, digits)})"
    )


def _named(row: Row) -> str:
    method = {"base": "Base model", "adapter": f"{row.get('parameters')} alone"}.get(row["method"])
    return method or " ".join(filter(None, [title(row["method"]), row.get("parameters")]))
