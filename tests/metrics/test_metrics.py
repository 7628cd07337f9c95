"""The registry of metrics, and figures that are computed from stored answers later."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sstmerge_core import metrics
from sstmerge_core.cli import main
from sstmerge_core.errors import JobError, RecipeError
from sstmerge_core.evaluate.metric_rows import suite_metrics
from sstmerge_core.metrics.declare import ROLES, Metric
from sstmerge_core.metrics.labels import LABELS
from sstmerge_core.plots.measures import MEASURES
from sstmerge_core.recipe import record
from sstmerge_core.runs.rescore import score
from sstmerge_core.store import Owner, dictionary, leaderboard


def test_a_metric_added_later_is_computed_from_stored_answers_once(without_rouge, shipped_runs) -> None:
    workspace, run_id = without_rouge
    assert not any(metric == "rouge_l" for metric, _, _ in record.read(workspace.run(run_id)).metrics)
    new = score(workspace, run_id)
    before = record.read(shipped_runs / run_id).metrics
    assert new and all(row["metric"] == "rouge_l" for row in new)
    for row in new:
        assert row["value"] == pytest.approx(before["rouge_l", row["suite"], "rouge_score"]["value"], abs=1e-12)
    assert score(workspace, run_id) == []
    for name in ("nobody", f"../runs/{run_id}", ""):
        with pytest.raises(JobError, match="no such run"):
            score(workspace, name)
    assert not workspace.run("nobody").exists()


def test_the_command_scores_every_run_and_the_leaderboard_has_the_figure(without_rouge, monkeypatch, capsys) -> None:
    workspace, _ = without_rouge
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(workspace.root))
    assert main(["score"]) == 0
    assert "rouge_l on" in capsys.readouterr().out
    with Owner.open(workspace) as owner:
        found = owner.cursor().execute("SELECT utility, utility_metric FROM leaderboard").fetchone()
    assert found is not None and found[0] is not None and found[1] == "rouge_l"


def test_every_metric_is_whole_and_has_its_place_in_tables_and_words() -> None:
    found = metrics.metrics()
    assert len({metric.name for metric in found}) == len(found)
    for metric in found:
        assert metric.role in ROLES and metric.help.endswith(".") and set(metric.counts) <= set(LABELS)
        assert not metric.headline or metric.column in MEASURES
        assert not metric.headline or metric.role == "utility" or f"AS {metric.name}," in leaderboard.macro()
        assert metric.role == "utility" or dictionary.describe("leaderboard", metric.name)


def test_a_declared_metric_alone_gives_rows_a_column_and_a_sentence(monkeypatch) -> None:
    length = Metric(
        "answer_words",
        "Words an answer",
        "quality",
        higher_is_better=False,
        help="Mean number of words of an answer.",
        suites=("harmful",),
        score=lambda reference, response: float(len(response.split())),
        without_reference=True,
        bounded=False,
        interval="bootstrap",
    )
    declared = (*metrics.metrics(), length)
    monkeypatch.setattr(metrics, "metrics", lambda: declared)
    monkeypatch.setattr(metrics, "_by_name", lambda: {metric.name: metric for metric in declared})
    samples = [
        {"prompt_id": str(n), "prompt": "p", "reference": "", "response": "no " * n, "label": "refusal"}
        for n in (1, 2, 3)
    ]
    verdicts = [{"prompt_id": sample["prompt_id"], "label": "refusal"} for sample in samples]
    from sstmerge_core.evaluate.judges import get_judge

    rows = suite_metrics("harmful", "harmful", samples, verdicts, get_judge("refusal_regex"))
    (own,) = [row for row in rows if row["metric"] == "answer_words"]
    assert own["value"] == 2.0 and own["n"] == 3 and own["ci_low"] is not None
    assert "AS answer_words_low" in leaderboard.macro.__wrapped__()
    assert dictionary.describe("leaderboard", "answer_words_n") == "Prompts behind it."
    assert json.dumps(own)


def test_a_metric_that_is_not_there_is_named_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match="rouge_l"):
        metrics.get("rouge_k")
    with pytest.raises(RecipeError, match="scores no answers"):
        metrics.outcomes("resistance", [])
    assert replace(metrics.get("asr"), title="X").arrow == "↓"
