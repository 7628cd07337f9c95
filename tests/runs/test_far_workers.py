"""Real merges on workers that see nothing of this machine's disk give the bits of those that are made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sstmerge_core.jobs.queue import Queue
from sstmerge_core.jobs.trials import Count, Trials
from sstmerge_core.runs.execute import execute
from sstmerge_core.store.events import read_events
from sstmerge_core.worker import remote
from sstmerge_core.worker.spread import Spread
from sstmerge_core.workspace import Workspace
from tests.runs.test_execute import inputs, recipe, results, workspace
from tests.there import there
from tests.worker import test_spread as far

__all__ = ["inputs", "workspace"]


def test_bits_do_not_depend_on_who_measured_and_all_inputs_are_brought(
    workspace: Workspace, inputs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(far, "FAKE", "sstmerge_core.runs.execute:execute")
    monkeypatch.setattr(remote.Remote, "sees", lambda self, path: False)
    recipes = [recipe(workspace, inputs, alpha=alpha) for alpha in (0.3, 0.7)]
    here = Workspace(tmp_path / "here").create()
    execute(recipes, here, device="cpu")
    ids = [one.run_id for one in recipes]
    spec: dict[str, Any] = {"recipes": []}
    given: dict[str, Any] = {"kind": "sweep", "name": "j", "user": "", "device": "ray"}
    Queue(workspace).add("j", spec=spec, run_ids=ids, recipes=recipes, **given)
    backend = far.InProcess(tmp_path / "far", dies=lambda number: 3 if number == 0 else None)
    work = Spread(workspace, there(Queue(workspace).job("j")), recipes, backend, 1)
    assert work.run(far.Monitor()) == ("done", None)
    assert Trials(workspace, "j", "").count() == Count(done=3), "the run that both are compared with is one of them"
    assert {str(inputs["base"].path), *(one.path for one in recipes[0].adapters)} <= set(backend.brought)
    for run in [*ids, there(recipes[0].reference).run_id]:
        assert results(workspace, run) == results(here, run)
    for run in ids:
        first, second = (
            {path.name: path.read_bytes() for path in one.merged_adapter(run).iterdir() if path.suffix != ".md"}
            for one in (workspace, here)
        )
        assert first.keys() == second.keys()
        assert first["adapter_model.safetensors"] == second["adapter_model.safetensors"]
    told = json.dumps([event for event in read_events(workspace.run(ids[0])) if event["event"] == "run_started"])
    assert str(tmp_path / "far") not in told and str(inputs["base"].path) in told
