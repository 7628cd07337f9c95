"""The card that says which merge to ship: the same on Overview, Pareto and Report, with what to do next."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from sstmerge_core import jobs
from sstmerge_core.worker import run_job
from sstmerge_core.workspace import Workspace
from tests.worker.test_adapter_job import finished

Open = Callable[..., AppTest]
PAIR = "A5_A7"


def card(app: AppTest) -> str:
    """The card's own words."""
    return next(text.value for text in app.markdown if "  \n" in text.value and "of the harmless" in text.value)


@pytest.mark.parametrize("page", ["overview", "pareto", "report"])
def test_the_same_card_is_on_every_page_that_decides(open_page: Open, full_workspace: Workspace, page: str) -> None:
    app = open_page(full_workspace, page, pair=PAIR, goal="safety_first")
    assert not app.exception and not app.error
    told = card(app)
    assert told == card(open_page(full_workspace, "pareto", pair=PAIR, goal="safety_first"))
    assert "Keeps" in told and "A5's utility" in told and "A7's resistance" in told


def test_the_limits_and_the_goal_are_in_the_link_and_decide(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "overview", pair=PAIR, goal="balanced", over="0.2")
    before = card(app)
    app.slider("overview.over").set_value(0.0).run()
    assert not app.exception
    assert not [text for text in app.markdown if text.value == before], "the limit changed nothing"
    assert app.query_params["over"] in ("0", ["0"])
    assert any("Nothing keeps the limits" in t.value or "No merge beats" in t.value for t in app.markdown)


def test_a_limit_that_is_no_share_is_said_and_the_default_holds(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "pareto", pair=PAIR, over="7")
    assert not app.exception and any("over=7" in warning.value for warning in app.warning)
    assert app.slider("pareto.over").value == 0.2


def test_a_run_without_weights_gets_its_adapter_made(
    open_page: Open, tmp_path: Path, tiny_base: Path, tiny_pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path / "w").create()
    run_id = finished(workspace, tiny_base, tiny_pair, "linear", alpha=0.5).run_id
    shutil.rmtree(workspace.merged_adapter(run_id))
    monkeypatch.setattr("sstmerge_core.jobs.settle", lambda workspace: None)
    app = open_page(workspace, "run", run=run_id)
    app = next(one for one in app.button if one.label == "Make its adapter").click().run()
    assert not app.exception and not app.error
    (job,) = jobs.active(workspace)
    assert job.name.startswith("Adapter of Linear")
    assert next(one for one in app.button if one.label.startswith("Making")).disabled
    assert run_job(workspace, job, "") == ("done", None)
    app = open_page(workspace, "run", run=run_id)
    assert "Make its adapter" not in [one.label for one in app.button]


def test_an_input_that_is_not_here_is_named_in_place(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "pareto", pair=PAIR, goal="safety_first")
    app = next(one for one in app.button if one.label == "Make its adapter").click().run()
    assert not app.exception and "is known here" in app.error[0].value and "sstmerge adapters add" in app.error[0].value


def test_the_overview_offers_a_small_merge_that_was_not_made_yet(open_page: Open, full_workspace: Workspace) -> None:
    app = open_page(full_workspace, "overview")
    button = app.button("overview.merge")
    assert button.label.startswith("Try it: merge ")
    assert "16 prompts" in (button.help or "")
