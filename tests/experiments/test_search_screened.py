"""A search that starts at the best of a grid by screening."""

from __future__ import annotations

from sstmerge_core.analysis import screening
from tests.experiments.test_experiments import run, workspace

__all__ = ["workspace"]


def test_a_search_starts_at_the_best_of_the_grid_and_says_how_far_screening_agreed(workspace, tiny_base) -> None:
    fields = {"utility": "U", "safety": "S", "methods": ["linear"], "trials": 3, "finalists": 0, "screen": 2}
    result = run(workspace, "search", tiny_base, **fields)
    grid = result.table("predicted").rows
    places = screening.order([{name: row[name] for name in screening.FIGURES} for row in grid])
    tried = [row["parameters"] for row in result.table("trials").rows]
    assert [f"{grid[at]['alpha']:g}" for at in places[:2]] == [label.partition("=")[2] for label in tried[:2]]
    assert all(row["separation"] is not None for row in result.table("trials").rows)
    assert any(screening.RULE in sentence for sentence in result.findings)
