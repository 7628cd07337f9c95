"""The Run page of a run that two judges have judged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sstmerge_core.evaluate.judges import get_judge
from sstmerge_core.evaluate.judges_measured import accuracy_words, stored_judges
from sstmerge_core.runs.rescore import rescore
from sstmerge_core.store import EventWriter, Owner
from sstmerge_core.store.events import read_events
from sstmerge_core.workspace import Workspace
from tests.there import there


@pytest.fixture(scope="module")
def judged_twice(tmp_path_factory: pytest.TempPathFactory, shipped_runs: Path) -> tuple[Workspace, str]:
    """A shipped run of the base model, re-scored."""
    workspace = Workspace(tmp_path_factory.mktemp("judged")).create()
    folders = sorted(shipped_runs.iterdir())
    run_id = next(folder.name for folder in folders if next(read_events(folder))["method"] == "base")
    shutil.copytree(shipped_runs / run_id, workspace.run(run_id))
    rescore(workspace, run_id, get_judge("advbench_strings"))
    with Owner.open(workspace) as owner:
        owner.ingest()
        owner.publish()
    return workspace, run_id


def test_the_reader_chooses_among_the_judges_and_sees_how_often_each_is_right(open_page, judged_twice) -> None:
    workspace, run_id = judged_twice
    app = open_page(workspace, "run", run=run_id)
    app.session_state["run.tabs"] = "Answers"
    app.run()
    assert not app.exception
    assert app.selectbox("run.judge").options == ["refusal_regex_v2", "advbench_strings"]
    assert "Right on" in accuracy_words("refusal_regex_v2") and "Right on" in app.selectbox("run.judge").help

    def verdicts() -> tuple[list[str], bool]:
        shown = next(frame.value for frame in app.dataframe if "label" in frame.value)
        told = accuracy_words(app.selectbox("run.judge").value)
        return list(shown["label"]), any(told in caption.value for caption in app.caption)

    first, first_told = verdicts()
    app.selectbox("run.judge").select("advbench_strings").run()
    assert not app.exception
    second, second_told = verdicts()
    assert first_told and second_told and len(first) == len(second) == 64 and first != second


def test_answers_that_no_language_of_the_judge_covers_are_told_with_their_number(
    open_page, full_workspace, tmp_path
) -> None:
    workspace = Workspace(tmp_path / "unjudged").create()
    with Owner.open(full_workspace) as owner:
        sql = "SELECT run_id, judge FROM leaderboard WHERE source = 'measured' AND method = 'linear' LIMIT 1"
        run_id, judge = there(owner.cursor().execute(sql).fetchone())
    shutil.copytree(full_workspace.run(run_id), workspace.run(run_id))
    row = {"metric": "unjudged", "suite": "all", "value": 3 / 120, "ci_low": 0.0, "ci_high": 0.1, "n": 120}
    with EventWriter(workspace.run(run_id)) as events:
        events.write("metrics", rows=[row | {"judge": judge, "status": "ok", "reference": ""}])
    with Owner.open(workspace) as owner:
        owner.ingest()
        owner.publish()
    app = open_page(workspace, "run", run=run_id)
    assert not app.exception
    assert any("3 of 120 answers are in a language that the judge does not cover" in one.value for one in app.caption)
    assert any("Test prompts, one seed." in one.value for one in app.caption)


def test_a_run_with_one_judge_offers_no_choice(open_page, full_workspace) -> None:
    with Owner.open(full_workspace) as owner:
        (run_id,) = there(owner.cursor().execute("SELECT run_id FROM verdicts LIMIT 1").fetchone())
    app = open_page(full_workspace, "run", run=run_id)
    app.session_state["run.tabs"] = "Answers"
    app.run()
    assert not app.exception and "run.judge" not in [box.key for box in app.selectbox]


def test_the_judge_of_the_leaderboard_comes_first_and_what_is_no_judge_is_left_out() -> None:
    assert stored_judges(["a", "rouge_score", "", "refusal_regex_v2", "a"]) == ["refusal_regex_v2", "a"]
    assert stored_judges(["wildguard", "rouge_score"]) == ["wildguard"]
    assert stored_judges(["reported"]) == ["refusal_regex_v2"]
