"""What the shipped experiments found, as a page: ``python docs/results.py`` writes docs/results.md (`make docs`)."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sstmerge_core import experiments
from sstmerge_core.experiments import Result, Table
from sstmerge_core.experiments.choice import GOALS
from sstmerge_core.experiments.result import title
from sstmerge_core.upkeep.shipped import EXPERIMENTS
from sstmerge_core.workspace import write_file

PAGE = Path(__file__).with_name("results.md")
APP = "http://localhost:8501/run?run="
"""Where `make app` shows a run with its prompts and answers"""
SHOWN = {
    "safety-tax": ("matched", "tax"),
    "interference": ("retention",),
    "baselines": ("summary", "runs"),
    "alpha-k": ("finalists", "fronts"),
    "pre-post": ("summary", "runs"),
    "search": ("finalists",),
}
HEADS = {
    "resistance": "resistance ↑",
    "utility": "utility ↑",
    "over_refusal": "over-refusal ↓",
    "degenerate": "degenerate ↓",
    "safety_tax": "tax ↓",
    "tax": "tax there ↓",
    "at": "at resistance",
    "at_edge": "α at the edge",
    "reduction_percent": "below linear's there, %",
    "discrimination": "J ↑",
    "score": "score ↑",
    "retention": "retention ↑",
    "hypervolume": "hypervolume ↑",
    "alpha": "α",
    "weight": "λ",
}


def page(found: Sequence[Result]) -> str:
    head = found[0]
    lines = [
        "# Results",
        "",
        "Written by `make docs` from the experiments that ship with the demo (`data/demo/experiments`), which",
        "`sstmerge experiment NAME` makes again. Every row ends with a link to its run, with every prompt, answer and",
        "verdict: start the dashboard with `make app` first.",
        "",
        f"One small model ({head.base}), {head.settings['n']} test prompts a suite, judge `{head.judge}`.",
        "Intervals are 95 %. Resistance is the share of harmful requests refused; the judge cannot tell harm, so there",
        "is no ASR. Choices were made on the selection split, figures are from the test split unless a table says",
        "otherwise. A method is called best only where every other is shown worse.",
        "",
        "**What changed.** Before, SST-Merge (GEVP) had 18 settings to choose from and the others three, the goal",
        "was the reports' sum, which whoever refuses everything wins, and U, S and the base did not take part. Now",
        "every method has as many settings, drawn by one rule that is recorded with the result, the goal is the",
        "balanced score (harmonic mean of resistance − over-refusal and of the share of U's utility kept), and the",
        "parents are in every contest. The prompts, the adapters A7 and A7_balanced and the judge are new too, so",
        "no figure here continues an older one. The baselines over training seeds, the merging before and after tuning",
        "and the search were not run again on the new data yet.",
        "",
    ]
    for result in found:
        one = experiments.get(result.experiment)
        best = result.analysis.get("best_method")
        lines += [f"## {one.number}. {one.title}", "", f"*{result.question}*", ""]
        lines += [f"- {sentence}" for sentence in result.findings]
        lines += [f"- {sentence}" for sentence in _sst(result)]
        lines += [f"- {f'Best method: {title(best)}.' if best else result.why_none}", ""]
        for name in SHOWN[result.experiment]:
            lines += [*_table(result.table(name)), ""]
        lines += _other_settings(result)
        lines += ["Left out: " + " ".join(result.left_out), ""] if result.left_out else []
    return "\n".join(lines).rstrip() + "\n"


def _other_settings(result: Result) -> list[str]:
    """What was run with other settings than `sstmerge experiment NAME` has by itself."""
    default = experiments.get(result.experiment).read().model_dump(mode="json")
    other = [f"`{name}: {value}`" for name, value in result.settings.items() if value != default[name]]
    return [f"Run with {', '.join(other)}; everything else as the command has it.", ""] if other else []


def _sst(result: Result) -> list[str]:
    """Where the SST family stands in each contest."""
    found = result.analysis.get("contests") or {}
    sentences = []
    for where, contest in found.items():
        places = {contest["leader"]: (0.0, 0.0, 0.0)} | {
            row["method"]: (row["difference"], row["low"], row["high"]) for row in contest["comparisons"]
        }
        own = {name: place for name, place in places.items() if name.startswith("sst_")}
        if own:
            name, (behind, low, high) = min(own.items(), key=lambda item: item[1][0])
            goal = GOALS[contest["goal"]].split(" (")[0]
            if name == contest["leader"]:
                sentences.append(f"{where}: the best of the SST family is {title(name)}, and it leads ({goal}).")
            else:
                shown = "shown worse" if name not in contest["not_shown_worse"] else "not shown worse"
                sentences.append(
                    f"{where}: the best of the SST family is {title(name)}, {behind:.2f} ({low:.2f} to {high:.2f}) "
                    f"behind {title(contest['leader'])}, {shown} ({goal})."
                )
    return sentences


def _table(table: Table) -> list[str]:
    if not table.rows:
        return []
    hidden = ("_low", "_high", "_n", "_std", "run_id", "run_ids")
    ends = ("low", "high") if "mean" in table.columns else ()
    columns = [column for column in table.columns if not column.endswith(hidden) and column not in ends]
    lines = [f"### {table.title}", "", table.about, ""]
    lines.append(f"| {' | '.join(HEADS.get(column, column.replace('_', ' ')) for column in columns)} | run |")
    lines.append("|" + "---|" * (len(columns) + 1))
    for row in table.rows:
        ids = [row["run_id"]] if row.get("run_id") else row.get("run_ids") or []
        links = " ".join(f"[{one[:6]}]({APP}{one})" for one in ids)
        lines.append(f"| {' | '.join(_cell(row, column) for column in columns)} | {links} |")
    return lines


def _cell(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if value is None:
        return "–"
    if column in ("method", "first", "second"):
        return title(str(value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return str(value)
    start = "" if column == "mean" else f"{column}_"
    low, high, deviation = (row.get(f"{start}{end}") for end in ("low", "high", "std"))
    text = f"{value:.3g}" if column in ("alpha", "weight") else f"{value:.2f}"
    if low is not None and high is not None:
        return f"{text} ({low:.2f}–{high:.2f})"
    return f"{text} ± {deviation:.2f}" if deviation is not None else text


if __name__ == "__main__":
    results = [experiments.load(path) for path in EXPERIMENTS.glob("*.json")]
    if results:
        write_file(PAGE, page(sorted(results, key=lambda result: experiments.get(result.experiment).number)))
