"""One run for each goal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sstmerge_core.analysis import goals
from sstmerge_core.report.document import Block, Bullets, Section, Table, drop_empty, measure_cell, point_link
from sstmerge_core.report.gather import Chapter
from sstmerge_core.report.points import records, setting_keys


def recommendations(chapter: Chapter) -> Section:
    """One run for each goal, chosen on the selection split where it was measured there, told on the test split."""
    chosen, on_selection = chosen_by_goal(chapter)
    rows: list[tuple[str, ...]] = []
    for goal, row in chosen.items():
        rule = goals.GOAL_RULES[goal]
        if row is None:
            rows.append((f"**{goals.GOALS[goal]}**: {rule}", "none meets this", "–", "–", "–"))
            continue
        figures = (measure_cell(row, name, chapter.digits) for name in ("resistance", "utility", "over_refusal"))
        rows.append((f"**{goals.GOALS[goal]}**: {rule}", point_link(row), *figures))
    head = ("Goal", "Run", "Resistance ↑", "Utility ↑", "Over-refusal ↓")
    if chapter.reported:
        note = "Chosen and told on the same figures, which flatters the chosen."
    elif on_selection:
        note = "Chosen on the selection prompts, told on the test prompts."
    else:
        note = (
            "Chosen and told on the same test prompts, which flatters the chosen: "
            "no run of these settings on the selection prompts is here."
        )
    blocks: list[Block] = [drop_empty(Table(head, tuple(rows), texts=2, caption=note))]
    warnings = [_refuses_sentence(row) for row in _distinct(chosen.values()) if (row.get("over_refusal") or 0) >= 0.25]
    if warnings:
        blocks.append(Bullets(tuple(warnings)))
    return Section("Recommendations by goal", tuple(blocks), level=3)


def chosen_by_goal(chapter: Chapter) -> tuple[dict[str, Mapping[str, Any] | None], bool]:
    """goal → point of the test split, and whether the choice was made on the selection split."""
    if len(chapter.selection):
        keys = setting_keys(chapter.found, evaluation=False)
        on_test = dict(zip(keys, records(chapter.found), strict=True))
        candidates = chapter.selection.assign(key=setting_keys(chapter.selection, evaluation=False))
        candidates = candidates[candidates["key"].isin(on_test)].reset_index(drop=True)
        # without the references: those were measured on the test prompts
        if len(candidates) > 1:
            picked = goals.recommend(candidates, {})
            return {goal: None if row is None else on_test[row["key"]] for goal, row in picked.items()}, True
    return goals.recommend(chapter.found, chapter.references), False


def _refuses_sentence(row: Mapping[str, Any]) -> str:
    return f"{point_link(row)} refuses {measure_cell(row, 'over_refusal')} of the harmless look-alikes as well."


def _distinct(rows: Iterable[Mapping[str, Any] | None]) -> list[Mapping[str, Any]]:
    return list({row["setting"]: row for row in rows if row is not None}.values())
