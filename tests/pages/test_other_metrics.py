"""Sweeps whose task is measured by multiple_choice or exact_match, on every page that shows utility."""

from __future__ import annotations

from typing import cast

import pytest

from sstmerge_core.store import Owner, queries
from sstmerge_core.workspace import Workspace
from tests.rewritten import Event, rewrite_events
from tests.synthetic_workspace import fill

BY = {"facts": "multiple_choice", "instructions": "exact_match"}


def told_otherwise(value: object) -> object:
    """An event with its utility suites declared, and measured, by `BY`."""
    if isinstance(value, list):
        return [told_otherwise(part) for part in value]
    if not isinstance(value, dict):
        return value
    found = {name: told_otherwise(part) for name, part in value.items()}
    if found.get("role") == "utility" and found.get("name") in BY:
        found["metric"] = BY[str(found["name"])]
    if found.get("metric") == "rouge_l":
        found |= {"metric": BY[str(found["suite"])], "judge": "reference"}
    return found


@pytest.fixture(scope="module")
def measured_otherwise(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = fill(Workspace(tmp_path_factory.mktemp("otherwise")))
    for path in workspace.runs.glob("*/events.jsonl"):
        rewrite_events(path.parent, lambda event: cast("Event", told_otherwise(event)))
    with Owner.open(workspace) as owner:
        owner.ingest()
        owner.publish()
    return workspace


def pairs(workspace: Workspace) -> dict[str, str]:
    """Pair → the metric of its task."""
    with Owner.open(workspace) as owner:
        rows = queries.leaderboard(owner.cursor(), sources=["measured"])
    merges = rows[~rows["method"].isin(["base", "adapter"])]
    assert merges["utility"].notna().all() and set(merges["utility_metric"]) == set(BY.values())
    return dict(zip(merges["pair"], merges["utility_metric"], strict=True))


def test_the_leaderboard_and_the_front_have_their_utility(measured_otherwise: Workspace) -> None:
    for pair, metric in pairs(measured_otherwise).items():
        with Owner.open(measured_otherwise) as owner:
            front = queries.front(owner.cursor(), pairs=[pair], sources=["measured"])
        assert len(front) and set(front["utility_metric"]) == {metric} and front["utility"].notna().all()


@pytest.mark.parametrize("page", ["pareto", "alpha_curves", "compare", "report", "experiments", "overview"])
def test_every_page_shows_them(open_page, measured_otherwise: Workspace, page: str) -> None:
    for pair, metric in pairs(measured_otherwise).items():
        query: dict[str, str | list[str]] = {"pair": pair}
        if page == "compare":
            with Owner.open(measured_otherwise) as owner:
                rows = queries.leaderboard(owner.cursor(), pairs=[pair], sources=["measured"])
            query = {"run": list(rows["run_id"][:2])}
        app = open_page(measured_otherwise, page, **query)
        assert not app.exception
        words = " ".join(str(item.value) for kind in (app.markdown, app.caption, app.subheader) for item in kind)
        if page == "compare":
            assert {"multiple_choice": "Multiple choice", "exact_match": "Exact match"}[metric] in words
        elif page == "report":
            assert {"multiple_choice": "multiple choice", "exact_match": "exact match"}[metric] in words
        elif page == "pareto":
            assert "The front: 0" not in words and "The front: " in words
        elif page == "alpha_curves":
            assert app.get("plotly_chart")


def test_two_metrics_share_no_axis(open_page, measured_otherwise: Workspace) -> None:
    """The reported figures of the same pair are ROUGE-L: they are not among the points, and that is counted."""
    app = open_page(measured_otherwise, "pareto", pair="A5_A7")
    (caption,) = [item.value for item in app.caption if item.value.startswith("Showing ")]
    assert "utility by another metric" in caption
