"""Who watches a run hears counts within batches and sees answers with verdicts; the run's events stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sstmerge_core import catalog
from sstmerge_core.errors import Cancelled
from sstmerge_core.evaluate.judge import Verdict, judge_samples
from sstmerge_core.jobs.model import SHOWN, Onlooker
from sstmerge_core.recipe import record
from sstmerge_core.runs import watched
from sstmerge_core.runs.execute import execute
from sstmerge_core.runs.session import Session
from sstmerge_core.store.events import read_events
from sstmerge_core.workspace import Workspace
from tests.runs.test_execute import recipe
from tests.there import there


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace").create()


@pytest.fixture
def inputs(tiny_base: Path, tiny_pair: tuple[Path, Path]) -> dict[str, Any]:
    return {
        "base": catalog.base_at(tiny_base),
        "utility": catalog.entry(tiny_pair[0], name="U", role="utility", suite="facts"),
        "safety": catalog.entry(tiny_pair[1], name="S", role="safety"),
    }


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "TELL_SECONDS", 0.0)


def names(workspace: Workspace, run_id: str) -> list[str]:
    return [event["event"] for event in read_events(workspace.run(run_id))]


def test_answers_are_shown_with_the_verdicts_that_are_stored_later_and_no_event_is_added(
    workspace: Workspace,
    inputs: dict[str, Any],
    often: None,
) -> None:
    seen: list[Sequence[Mapping[str, Any]]] = []
    details: list[str] = []
    one = recipe(workspace, inputs)
    execute([one], workspace, onlooker=Onlooker(details.append, seen.append))
    stored = record.read(workspace.run(one.run_id))
    labels = {
        (row["prompt"], row["response"]): stored.verdicts[there(one.evaluation).judge][suite][row["prompt_id"]]["label"]
        for suite, rows in stored.samples.items()
        for row in rows
    }
    merged = [shown for shown in seen if all((row["prompt"], row["response"]) in labels for row in shown)]
    assert {row["suite"] for shown in merged for row in shown} == {"harmful", "near_miss", "facts"}
    assert all(1 <= len(shown) <= SHOWN for shown in seen)
    assert all(row["label"] == labels[row["prompt"], row["response"]] for shown in merged for row in shown)
    assert "harmful 0/6 · token 1 of at most 4" in details
    assert any(text.startswith("harmful 3/6 · token 2") for text in details), "counts go on in the second batch"
    other = recipe(workspace, inputs, alpha=0.25)
    execute([other], workspace)
    assert names(workspace, other.run_id) == names(workspace, one.run_id)


def test_a_job_stops_within_a_batch(workspace: Workspace, inputs: dict[str, Any], often: None) -> None:
    details: list[str] = []
    with pytest.raises(Cancelled):
        execute(
            [recipe(workspace, inputs)],
            workspace,
            should_cancel=lambda: bool(details),
            onlooker=Onlooker(detail=details.append),
        )
    assert details == ["harmful 0/6 · token 1 of at most 4"]


def test_the_probes_of_a_budget_are_counted_too(workspace: Workspace, inputs: dict[str, Any], often: None) -> None:
    one = recipe(workspace, inputs, "sst_budget", unit="rouge_l", budget=1.0)
    task = there(one.selection).model_copy(update={"max_new_tokens": 2})
    details: list[str] = []
    with pytest.raises(Cancelled):
        execute(
            [one.model_copy(update={"selection": task})],
            workspace,
            should_cancel=lambda: any("of at most 2" in text for text in details),
            onlooker=Onlooker(detail=details.append),
        )
    assert details[-1] == "facts 0/60 · token 1 of at most 2"


class _Model:
    """A judge that is a model: it judges what it is given in batches."""

    judge_id = "model"
    can_tell_harm = can_tell_refusal = True

    def __init__(self) -> None:
        self.batches: list[int] = []

    def score(self, prompt: str, response: str) -> Verdict:
        return self.score_all([(prompt, response)])[0]

    def score_all(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        self.batches.append(len(pairs))
        return [Verdict("refusal" if len(answer) % 2 else "harmful", 0.0, answer, "model") for _, answer in pairs]


def test_a_judge_that_is_a_model_is_counted_batch_by_batch_with_verdicts_in_the_order_of_the_answers(
    workspace: Workspace,
) -> None:
    samples = [{"prompt_id": f"p{i}", "prompt": "p", "response": "x" * (i % 7)} for i in range(40)]
    counts: list[float] = []
    session = Session(workspace, "cpu", report=lambda point, stage, done, total: counts.append(done))
    judge = _Model()
    found = watched.judged(judge, "harmful", samples, session, before=10, total=50)
    assert found == judge_samples(_Model(), samples)
    assert judge.batches == [16, 16, 8] and counts == [26, 42, 50]
