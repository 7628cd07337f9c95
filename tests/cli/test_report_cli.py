"""`sstmerge report` on reported figures alone and on runs with answers, as Markdown and as HTML."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sstmerge_core.cli import main
from sstmerge_core.report.document import Bullets, Report, Section, Table, markdown
from sstmerge_core.report.html import page
from sstmerge_core.workspace import Workspace
from tests.synthetic_workspace import fill


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return fill(Workspace(tmp_path_factory.mktemp("measured")), samples=6)


def report(monkeypatch: pytest.MonkeyPatch, workspace: Path, *arguments: str) -> int:
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(workspace))
    return main(["report", *arguments])


def test_the_reported_figures_alone_give_away_their_contradictions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "report.md"
    assert report(monkeypatch, tmp_path / "ws", "--source", "reported", "--out", str(out)) == 0
    text = out.read_text()
    assert "18 claims of the 2026-01 report" in text and "6 contradictions, 12 confirmed" in text
    for found in (
        "4 of 10 in the report's own top-10 table",
        "Two different tables: `alpha_dependence` gives 10 settings",
        "6 of them with other figures",
        "The greatest sum of all rows is 139.57, by SST-Merge k=10 α=0.05",
        "at the α they share (1) it is 0.54 points",
        "26 of 65 merges resist less than",
        "## Beside the pre-/post-tuning paper",
        "60-70 % Safety Tax reduction",
    ):
        assert found in text, found
    assert "measured here" not in text and "A5\\_A7" not in text


def test_every_measured_setting_leads_to_its_run_and_the_judge_is_named(
    monkeypatch: pytest.MonkeyPatch, measured: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(monkeypatch, measured.root, "--source", "measured", "--pair", "A5_A7", "--app", "http://host:1/") == 0
    text = capsys.readouterr().out
    assert "judge **refusal" in text and "test split only" in text and "A6_A7" not in text
    linked = set(re.findall(r"http://host:1/run\?run=([\w-]+)", text))
    table = text.split("### Methods and α")[1].split("###")[0]
    lines = [line for line in table.splitlines() if line.startswith("| [")]
    assert len(lines) == 27 and all(re.search(r"\]\(http://host:1/run\?run=\w+\) \|", line) for line in lines)
    assert {folder.name for folder in measured.runs.iterdir()} >= {run for run in linked if "reported-" not in run}
    assert "claims of the 2026-01 report" not in text


def test_the_html_report_opens_without_a_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.html"
    assert report(monkeypatch, tmp_path / "ws", "--source", "reported", "--pair", "A6_A7", "--out", str(out)) == 0
    text = out.read_text()
    assert "Plotly.newPlot" in text and text.count("plotly.js (basic") == 1
    assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="http', text)
    assert capsys.readouterr().out.strip() == str(out)


def test_another_ending_or_an_unknown_pair_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(monkeypatch, tmp_path / "ws", "--out", str(tmp_path / "report.pdf")) == 2
    assert report(monkeypatch, tmp_path / "ws", "--pair", "A1_A2") == 4
    errors = capsys.readouterr().err
    assert "Use .md, .html or .tex" in errors and "pair A1_A2" in errors


def test_html_shows_markup_of_users_as_text() -> None:
    cell = r"[\<b\>x\</b\>\_1](run?run=abc)"
    section = Section("A & B", ("**bold** `a<b`", Bullets((r"1 \* 2",)), Table(("h", "n"), ((cell, "1"),))))
    report = Report("T", "about", (section,))
    text = page(report, app="http://h")
    assert '<a href="http://h/run?run=abc">&lt;b&gt;x&lt;/b&gt;_1</a>' in text
    assert "<strong>bold</strong> <code>a&lt;b</code>" in text and "<li>1 * 2</li>" in text and "A &amp; B" in text
    assert "| h | n |\n| :-- | --: |" in markdown(report)
