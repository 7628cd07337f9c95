"""The adapter of a run made again, where only its figures are here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sstmerge_core import adapters, catalog, jobs
from sstmerge_core.builder import preflight
from sstmerge_core.errors import Cancelled, JobError, SSTMergeError
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.recipe import Recipe, record
from sstmerge_core.runs.execute import execute, remake
from sstmerge_core.store.events import last_status, read_events
from sstmerge_core.worker import adapter_job, run_job
from sstmerge_core.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w").create()


def finished(workspace: Workspace, base: Path, pair: tuple[Path, Path], method: str, **parameters: object) -> Recipe:
    """A run of tiny adapters, measured on short answers."""
    catalog.add_base(workspace, base)
    known = [
        catalog.add(workspace, folder, name, role, suite)
        for folder, name, role, suite in ((pair[0], "U", "utility", "facts"), (pair[1], "S", "safety", ""))
    ]
    plan = preflight.plan(
        workspace,
        base=catalog.bases(workspace)[-1],
        utility=known[0],
        safety=known[1],
        method=method,
        parameters=parameters,
        options=preflight.Options(n=2),
    )
    assert plan.recipe is not None and plan.recipe.evaluation is not None, plan.problems
    suites = tuple(suite.model_copy(update={"max_new_tokens": 4}) for suite in plan.recipe.evaluation.suites)
    evaluation = plan.recipe.evaluation.model_copy(update={"suites": suites})
    recipe = plan.recipe.model_copy(update={"evaluation": evaluation})
    execute([recipe], workspace, device="cpu")
    return recipe


def test_the_same_bits_come_back_with_the_runs_scores_and_the_run_stays_finished(
    workspace: Workspace, tiny_base: Path, tiny_pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = finished(workspace, tiny_base, tiny_pair, "ties", alpha=0.5)
    folder = workspace.merged_adapter(recipe.run_id)
    before = adapters.read(folder).sha256
    told = json.loads((folder / "sstmerge.json").read_text())["scores"]
    shutil.rmtree(folder)
    monkeypatch.setattr(jobs, "settle", lambda workspace: None)  # no worker of its own: it runs here
    job_id = adapter_job.submit(workspace, recipe.run_id, label="TIES")
    found = adapter_job.last(workspace, recipe.run_id)
    assert found is not None and found.job_id == job_id and found.name == "Adapter of TIES"
    assert run_job(workspace, found, "") == ("done", None)
    assert adapters.read(folder).sha256 == before
    assert json.loads((folder / "sstmerge.json").read_text())["scores"] == told
    assert last_status(workspace.run(recipe.run_id)) == "finished"
    assert [event["sha256"] for event in read_events(workspace.run(recipe.run_id)) if event["event"] == "artifact"] == [
        before,
        before,
    ]


def test_a_kill_while_it_is_written_leaves_nothing_half_written(
    workspace: Workspace, tiny_base: Path, tiny_pair: tuple[Path, Path]
) -> None:
    recipe = finished(workspace, tiny_base, tiny_pair, "sst_gevp", alpha=1.0, k=4)
    folder = workspace.merged_adapter(recipe.run_id)
    shutil.rmtree(folder)
    with pytest.raises(Cancelled):
        remake(recipe, workspace, device="cpu", report=_stop)
    assert not folder.exists() and last_status(workspace.run(recipe.run_id)) == "finished"
    remake(recipe, workspace, device="cpu")
    assert (folder / "adapter_model.safetensors").is_file()


def _stop(point: int, stage: str, done: float, total: float) -> None:
    if stage == "merge":
        raise Cancelled("killed")


def test_what_is_no_merge_of_here_is_refused_before_a_job_is_made(
    workspace: Workspace, tiny_base: Path, tiny_pair: tuple[Path, Path]
) -> None:
    with pytest.raises(JobError, match="no such run"):
        adapter_job.submit(workspace, "0123456789abcdef")
    recipe = finished(workspace, tiny_base, tiny_pair, "linear", alpha=0.5)
    assert recipe.reference is not None
    with pytest.raises(JobError, match="is no merge"):
        adapter_job.submit(workspace, recipe.reference.run_id)
    assert jobs.jobs(workspace) == []


def test_an_input_that_is_gone_is_named_before_a_job_is_made(
    workspace: Workspace, tiny_base: Path, tiny_pair: tuple[Path, Path], tmp_path: Path
) -> None:
    copies = tuple(Path(shutil.copytree(one, tmp_path / one.name)) for one in tiny_pair)
    recipe = finished(workspace, tiny_base, (copies[0], copies[1]), "linear", alpha=0.5)
    shutil.rmtree(copies[1])
    with pytest.raises(SSTMergeError, match="S"):
        adapter_job.submit(workspace, recipe.run_id)
    assert not workspace.queue.exists() or Queue(workspace).jobs(5) == []


def test_the_record_of_a_run_is_as_before_but_for_the_artifact(
    workspace: Workspace, tiny_base: Path, tiny_pair: tuple[Path, Path]
) -> None:
    recipe = finished(workspace, tiny_base, tiny_pair, "linear", alpha=0.5)
    before = record.read(workspace.run(recipe.run_id))
    shutil.rmtree(workspace.merged_adapter(recipe.run_id))
    remake(recipe, workspace, device="cpu")
    assert record.read(workspace.run(recipe.run_id)) == before
