"""Runs that two judges have judged: Run, Compare and Report tell how far they agree and where they differ."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pandas as pd
import pytest

from sstmerge_core.evaluate import two_judges
from sstmerge_core.evaluate.judges import get_judge
from sstmerge_core.report import gather, sections
from sstmerge_core.report.document import Table
from sstmerge_core.runs.rescore import compare, rescore
from sstmerge_core.store import Owner, queries
from sstmerge_core.store.events import read_events
from sstmerge_core.workspace import Workspace
from tests.pages.conftest import Open
from tests.there import there

FIRST, SECOND = "refusal_regex_v2", "advbench_strings"


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory, shipped_runs: Path) -> tuple[Workspace, str, str]:
    """A shipped merge and its utility adapter alone, both judged by two: workspace, merge, adapter."""
    workspace = Workspace(tmp_path_factory.mktemp("two judges")).create()
    started = {folder: next(read_events(folder)) for folder in sorted(shipped_runs.iterdir())}
    merge = next(folder for folder, event in started.items() if (event["method"], event["pair"]) == ("linear", "A5_A7"))
    metrics = [event for event in read_events(merge) if event["event"] == "metrics"]
    alone = next(row["reference"] for event in metrics for row in event["rows"] if row.get("reference"))
    for run_id in (alone, merge.name):
        shutil.copytree(shipped_runs / run_id, workspace.run(run_id))
    rescore(workspace, merge.name, get_judge(SECOND))
    with Owner.open(workspace) as owner:
        owner.ingest()
        owner.publish()
    return workspace, merge.name, alone


@pytest.fixture(scope="module")
def pair(judged: tuple[Workspace, str, str]) -> two_judges.TwoJudges:
    workspace, run_id, _ = judged
    with Owner.open(workspace) as owner:
        rows = queries.both_judged(owner.cursor(), [run_id], FIRST, SECOND)
    return there(two_judges.two_judges(rows, FIRST, SECOND))


def test_what_is_told_is_what_the_command_line_compares(judged: tuple[Workspace, str, str], pair) -> None:
    workspace, run_id, _ = judged
    told = compare(workspace, run_id, FIRST, SECOND)
    assert there(pair.found).agreement == told.found.agreement and there(pair.found).kappa == told.found.kappa
    assert set(pair.differing["prompt_id"]) == {row["prompt_id"] for row in told.disagreements}
    assert len(pair.differing) > 0
    assert pair.sentence.startswith(f"{FIRST} and {SECOND} agree on ") and "Cohen's κ" in pair.sentence
    assert int(two_judges.matrix(there(pair.found)).to_numpy().sum()) == there(pair.found).n


def test_judges_that_tell_nothing_in_common_and_runs_without_both_are_told_as_such() -> None:
    names = ["run_id", "suite", "prompt_id", "topic", "prompt", "response", "first", "second"]
    rows = pd.DataFrame([["r", "harmful", "p", "", "q", "a", "not_refused", "not_harmful"]], columns=names)
    found = there(two_judges.two_judges(rows, "x", "y"))
    assert found.found is None and "cannot be compared: one judge tells only refusals" in found.sentence
    assert two_judges.two_judges(rows.head(0), "x", "y") is None
    missed = rows.assign(first="miss", second="harmful")
    assert "usable verdict to no answer" in there(two_judges.two_judges(missed, "x", "y")).sentence


def test_attack_success_is_told_for_each_judge_or_why_it_is_not() -> None:
    how = {"metric": "asr", "ci_low": 0.1, "ci_high": 0.3}
    rows = [
        {**how, "judge": "a", "value": 0.2, "status": "ok"},
        {**how, "judge": "b", "value": None, "status": "judge_cannot_tell"},
    ]
    told = two_judges.asr_of(rows, ["a", "b", "c"])
    assert told == {"a": "0.200 (0.100–0.300)", "b": "cannot tell harm", "c": "not measured"}


def test_the_run_page_shows_agreement_and_disagreements(open_page: Open, judged, pair) -> None:
    workspace, run_id, _ = judged
    app = open_page(workspace, "run", run=run_id)
    assert not app.exception
    assert app.selectbox("run.first").value == FIRST and app.selectbox("run.second").value == SECOND
    assert any("agree on" in text.value and "Cohen" in text.value for text in app.markdown)
    shown = next(frame.value for frame in app.dataframe if "second" in frame.value)
    assert list(shown["prompt"]) == list(pair.differing["prompt"])
    assert any("Attack success by each" in caption.value for caption in app.caption)
    app.selectbox("run.first").select(SECOND).run()
    assert not app.exception and app.selectbox("run.second").value == FIRST


def test_compare_shows_the_other_judge_beside_every_run(open_page: Open, judged, pair) -> None:
    workspace, run_id, alone = judged
    app = open_page(workspace, "compare", run=[alone, run_id])
    assert not app.exception
    told = [caption.value for caption in app.caption if "agree on" in caption.value]
    assert len(told) == 1 and told[0].count("Cohen") == 2
    assert sum(len(frame.value) for frame in app.dataframe if "second" in frame.value) >= len(pair.differing)


def test_the_report_has_a_section_with_the_answers_on_which_they_differ(judged) -> None:
    with Owner.open(judged[0]) as owner:
        (chapter,) = gather.chapters(owner.cursor(), sources=["measured"])
    section = there(sections.two_judges(chapter))
    assert [one.second for one in chapter.judges] == [SECOND]
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    assert len(table.rows) == min(sections.DIFFERENCES, len(chapter.judges[0].differing))
    assert "agree on" in str(section.blocks[0])
    assert sections.two_judges(dataclasses.replace(chapter, judges=())) is None
