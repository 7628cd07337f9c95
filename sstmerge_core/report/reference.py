"""What others expected and reported, beside our figures: the guide's expected values and the paper's tables."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pandas as pd

from sstmerge_core.analysis.tax import Matched
from sstmerge_core.metrics.safety_tax import REASONS
from sstmerge_core.plots.style import style
from sstmerge_core.report import tables
from sstmerge_core.report.basis import basis
from sstmerge_core.report.document import (
    Bullets,
    Section,
    Table,
    drop_empty,
    figure,
    measure_cell,
    point_link,
    run_link,
)
from sstmerge_core.report.gather import Chapter
from sstmerge_core.store.reported import REFERENCE
from sstmerge_core.words import plain

EXPECTED = REFERENCE / "expected_values.csv"
_QUANTITIES = {"safety_tax": "Safety tax", "safety": "Safety", "utility": "Utility"}


def expected_values(path: Path = EXPECTED) -> dict[str, dict[str, str]]:
    """method → its row of the guide's table; empty where the file is not there."""
    if not path.exists():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def beside_expected(chapter: Chapter, expected: dict[str, dict[str, str]]) -> Section | None:
    """Each method's best-balanced run beside what the guide expected of it, and the Safety Tax reduction."""
    best = tables.taxes(tables.best_of_each_method(chapter.found), chapter.references.get("utility"))
    if best.empty:
        return None
    level, reductions = _reductions(chapter)
    at = "" if level is None else f" at resistance {level:g}"
    head = ["Run", "Safety tax ↓", "expected tax", f"Reduction against linear{at}", "expected reduction"]
    head += ["Safety ↑", "expected safety", "Utility ↑", "expected utility"]
    rows, outside = [], []
    for row in best.to_dict("records"):
        guide = expected.get(_guide_name(str(row["method"])), {})
        ends = (row.get("safety_tax_low"), row.get("safety_tax_high"))
        tax = figure(row["tax"], *ends) if pd.notna(row["tax"]) else REASONS.get(row["tax_status"], "–")
        reduction = reductions.get(str(row["method"]), "–")
        cells = [point_link(row), tax, _range(guide, "safety_tax"), reduction, guide.get("target") or "–"]
        for measure, name in (("resistance", "safety"), ("utility", "utility")):
            cells += [measure_cell(row, measure, chapter.digits), _range(guide, name)]
        rows.append(tuple(cells))
        if guide:
            outside.append(_outcome(row, guide))
    caption = (
        f"{basis(chapter, ('resistance', 'utility'))} Safety is resistance; each method stands with its run closest to "
        "resistance 1 and utility 1, chosen on the prompts that tell it. The Safety Tax is utility lost per resistance "
        "gained against the utility adapter alone, at that run's own resistance; its reduction, in percent, is "
        "1 − T/T(linear) of the method's best curve where both resist alike. The guide's values are of other models "
        "and prompts: not targets."
    )
    blocks = (drop_empty(Table(tuple(head), tuple(rows), caption=caption)),)
    return Section("Beside the guide's expectations", blocks + ((Bullets(tuple(outside)),) if outside else ()), level=3)


def _reductions(chapter: Chapter) -> tuple[float | None, dict[str, str]]:
    """The resistance that most curves reach, and method → its greatest reduction against linear there."""
    found = chapter.matched
    level = found.level
    if level is None or not found.linear:
        return None, {}
    greatest: dict[str, Matched] = {}
    for name, (_, reduction) in found.taxes[level].items():
        own = found.series[name].method
        if own != "linear" and reduction.value is not None:
            known = greatest.get(own)
            if known is None or known.value is None or reduction.value > known.value:
                greatest[own] = reduction
    return level, {method: figure(*one, digits=0) for method, one in greatest.items()}


def paper_section(rows: pd.DataFrame) -> Section | None:
    """The pre-/post-tuning paper's table and what its figures say, computed."""
    if rows.empty:
        return None
    head = ("Model", "Task", "Method", "Task performance ↑", "ASR AdvBench ↓", "ASR HEx-PHI ↓")
    lines, told = [], []
    for (model, task), group in rows.groupby(["model", "task"], sort=True):
        for row in group.sort_values("method", key=lambda names: names.map(_paper_order), kind="stable").to_dict(
            "records"
        ):
            method = run_link(str(row["run_id"]), style(str(row["method"])).title)
            figures = (
                figure(row["task_performance"], digits=2),
                _percent(row["asr_advbench"]),
                _percent(row["asr_hexphi"]),
            )
            lines.append((plain(str(model)), plain(str(task)), method, *figures))
        told += _paper_sentences(str(model), str(task), group)
    note = "Reported by others (pre-/post-tuning merging), on other models and prompts; no intervals are given."
    return Section(
        "Beside the pre-/post-tuning paper", (note, Table(head, tuple(lines), texts=3), Bullets(tuple(told)))
    )


def _paper_sentences(model: str, task: str, group: pd.DataFrame) -> list[str]:
    by_method = {str(row["method"]): row for row in group.to_dict("records")}
    if "fine_tuned" not in by_method:
        return []
    tuned = by_method["fine_tuned"]
    told = []
    for suite, name in (("asr_advbench", "AdvBench"), ("asr_hexphi", "HEx-PHI")):
        merged = {method: row for method, row in by_method.items() if method not in ("base", "fine_tuned")}
        safer = [method for method, row in merged.items() if row[suite] < tuned[suite]]
        kept = [m for m in safer if merged[m]["task_performance"] >= tuned["task_performance"]]
        best = min(merged, key=lambda method: merged[method][suite])
        lowest = f"{run_link(str(merged[best]['run_id']), style(best).title)} with {_percent(merged[best][suite])}"
        told.append(
            f"{plain(model)}, {plain(task)}, {name}: {len(safer)} of {len(merged)} merges lower the attack success of "
            f"the fine-tuned model ({_percent(tuned[suite])}), {len(kept)} of them without losing task performance; "
            f"the lowest is {lowest}."
        )
    return told


def _outcome(row: dict[str, Any], guide: dict[str, str]) -> str:
    """Which of the guide's ranges the run reaches, in words."""
    values = {"safety_tax": row["tax"], "safety": row["resistance"], "utility": row["utility"]}
    told = []
    for name, value in values.items():
        low, high = float(guide[f"{name}_low"]), float(guide[f"{name}_high"])
        title = _QUANTITIES[name].lower()
        if pd.isna(value):
            told.append(f"{title} has no value")
        elif low <= value <= high:
            told.append(f"{title} as expected")
        else:
            told.append(f"{title} {'above' if value > high else 'below'} the range")
    return f"{point_link(row)}: {', '.join(told)}."


def _guide_name(method: str) -> str:
    """The guide speaks of SST-Merge, whose published figures are ``sst_reported`` here."""
    return "sst_gevp" if method == "sst_reported" else method


def _range(guide: dict[str, str], name: str) -> str:
    return f"{guide[f'{name}_low']} – {guide[f'{name}_high']}" if guide else "–"


def _paper_order(method: str) -> int:
    first = ("base", "fine_tuned")
    return first.index(method) if method in first else len(first)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
