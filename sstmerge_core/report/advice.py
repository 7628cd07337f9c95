"""One run for each goal: the decision that the Pareto page shows too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sstmerge_core import words
from sstmerge_core.analysis import goals
from sstmerge_core.report.document import (
    Block,
    Bullets,
    Section,
    Table,
    drop_empty,
    kept_cell,
    measure_cell,
    run_link,
)
from sstmerge_core.report.gather import Chapter
from sstmerge_core.report.points import records
from sstmerge_core.words import plain

FIGURES = ("resistance", "over_refusal", "utility")


def recommendations(chapter: Chapter) -> Section:
    """One run for each goal with its parents beside it; chosen on the selection split where it was measured there."""
    decision = chapter.decision
    if not decision.told:
        return Section("Recommendations by goal", (Bullets((plain(decision.why_none),)),), level=3)
    rows: list[tuple[str, ...]] = []
    for goal, told in decision.told.items():
        title = f"**{goals.GOALS[goal]}**: {goals.rule(goal, decision.limits)}"
        row = told.row or told.chosen.row
        if not told.keeps:
            title += ". None keeps within the limits; the nearest"
        rows.append((title, *_cells(row, chapter)))
    rows += [(goals.SIDES[side], *_cells(row, chapter)) for side, row in decision.parents.items()]
    head = ("Goal", "Run", "Resistance ↑", "Over-refusal ↓", "Utility ↑", "of U's ↑")
    blocks: list[Block] = [drop_empty(Table(head, tuple(rows), texts=2, caption=plain(decision.how)))]
    sentences = [
        f"{goals.GOALS[goal]}: {words.count(number, 'run')} that did better on selection miss the limits on test."
        for goal, number in decision.missed.items()
    ]
    if decision.not_ranked:
        sentences.append(f"{decision.not_ranked}.")
    if sentences:
        blocks.append(Bullets(tuple(sentences)))
    return Section("Recommendations by goal", tuple(blocks), level=3)


def in_short(chapter: Chapter) -> list[str]:
    """One sentence a goal, for the head of the chapter."""
    decision = chapter.decision
    return [plain(told.sentence) for told in decision.told.values()] or [plain(decision.why_none)]


def _cells(row: Mapping[str, Any] | None, chapter: Chapter) -> tuple[str, ...]:
    if row is None:
        return ("none", *["–"] * (len(FIGURES) + 1))
    name = words.run_name(row)
    cells = (measure_cell(row, figure, chapter.digits) for figure in FIGURES)
    points = [*chapter.references.values(), *records(chapter.found[["setting", "run_ids"]])]
    setting = next((one["setting"] for one in points if row["run_id"] in one["run_ids"]), None)
    return (run_link(str(row["run_id"]), name), *cells, kept_cell(chapter.kept.get(str(setting))))
