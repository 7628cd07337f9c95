from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sstmerge_core.store import EventWriter, Owner
from sstmerge_core.workspace import Workspace

RECIPE = {"evaluation": {"suites": [{"name": "harmful", "role": "harmful"}, {"name": "facts", "role": "utility"}]}}


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path / "it's a workspace").create()


@pytest.fixture
def owner(workspace) -> Iterator[Owner]:
    with Owner.open(workspace) as owner:
        yield owner


def metric(name: str, suite: str, value: float | None, judge: str = "refusal_regex_v2", **more: Any) -> dict[str, Any]:
    return {"metric": name, "suite": suite, "value": value, "n": 60, "judge": judge, "status": "ok", **more}


def sample(prompt_id: str, response: str = "no") -> dict[str, Any]:
    return {"prompt_id": prompt_id, "topic": "t", "prompt": "p?", "response": response, "n_tokens": 3, "stopped": True}


def write_run(
    workspace: Workspace, run_id: str, *, safe: float = 0.5, useful: float = 0.5, finish: bool = True, **start: Any
) -> None:
    """A small finished run with two samples, their verdicts and both main metrics."""
    fields = {"run_id": run_id, "pair": "A5_A7", "utility": "A5", "safety": "A7", "method": "linear", "alpha": 0.5}
    with EventWriter(workspace.run(run_id)) as events:
        events.write("run_started", **{**fields, "recipe": RECIPE, "user": "ada", "job_id": "j", **start})
        events.write("plan", suite="harmful", batches=[["h1", "h2"]])
        events.write("samples", suite="harmful", batch=0, seconds=1.0, rows=[sample("h1"), sample("h2", "sure")])
        verdicts = [{"prompt_id": "h1", "label": "refusal", "score": 1.0, "raw": "no"}]
        events.write("verdicts", judge="refusal_regex_v2", suite="harmful", rows=verdicts)
        events.write("metrics", rows=[metric("resistance", "harmful", safe), metric("rouge_l", "facts", useful)])
        events.write("spectrum", module="", eigenvalues=[3.0, 2.0])
        events.write("module_stats", rows=[{"module": "", "stat": "cosine", "value": 0.1}])
        events.write("artifact", name="adapter", path="artifacts/adapter", sha256="s", bytes=5)
        if finish:
            events.write("run_finished", seconds=3.0, peak_memory_bytes=10**10)
