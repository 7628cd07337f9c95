"""A recipe on a machine that does not have its inputs: they come from the content store."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sstmerge_core import adapters, catalog, content
from sstmerge_core.builder import preflight, recipe_file
from sstmerge_core.content import ADAPTER, BASE, ContentStore
from sstmerge_core.errors import AdapterError, JobError
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.recipe import Recipe
from sstmerge_core.runs.execute import execute
from sstmerge_core.runs.located import located
from sstmerge_core.store.events import last_status, read_events
from sstmerge_core.worker import adapter_job, run_job
from sstmerge_core.workspace import Workspace
from tests.there import there


@pytest.fixture(scope="module")
def planned(
    tiny_base: Path, tiny_pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Recipe, ContentStore]:
    """A recipe whose inputs lie nowhere any more, and a store that has them."""
    root = tmp_path_factory.mktemp("planned")
    base, utility, safety = (
        Path(shutil.copytree(one, root / "gone" / name))
        for one, name in ((tiny_base, "base"), (tiny_pair[0], "U"), (tiny_pair[1], "S"))
    )
    plan = preflight.plan(
        Workspace(root / "planning").create(),
        base=catalog.base_at(base),
        utility=catalog.entry(utility, name="U", role="utility", suite="facts"),
        safety=catalog.entry(safety, name="S", role="safety"),
        method="linear",
        parameters={"alpha": 0.5},
        options=preflight.Options(n=2),
    )
    recipe = there(plan.recipe)
    evaluation = there(recipe.evaluation)
    short = tuple(suite.model_copy(update={"max_new_tokens": 2}) for suite in evaluation.suites)
    recipe = recipe.model_copy(update={"evaluation": evaluation.model_copy(update={"suites": short})})
    store = ContentStore(str(root / "store"))
    store.push(BASE, base, "tiny")
    store.push(ADAPTER, utility, "U")
    store.push(ADAPTER, safety, "S")
    shutil.rmtree(root / "gone")
    return recipe, store


def test_a_run_fetches_what_is_not_here_and_its_adapter_comes_back_from_the_store(
    planned: tuple[Recipe, ContentStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, store = planned
    workspace = Workspace(tmp_path / "node").create()
    with pytest.raises(JobError, match="no such folder"):
        execute([recipe], workspace)
    monkeypatch.setenv("SSTMERGE_STORE", store.address)
    stages: list[str] = []
    execute([recipe], workspace, report=lambda point, stage, done, total: stages.append(stage))
    assert last_status(workspace.run(recipe.run_id)) == "finished" and "fetch" in stages
    assert located(recipe, workspace).run_id == recipe.run_id

    folder = workspace.merged_adapter(recipe.run_id)
    sha256 = store.push(ADAPTER, folder, f"run-{recipe.run_id}", run_id=recipe.run_id).manifest.sha256
    whole = (folder / "adapter_model.safetensors").read_bytes()
    shutil.rmtree(folder)
    shutil.rmtree(content.folder(workspace))  # the inputs could be fetched again, and are not needed
    job_id = adapter_job.submit(workspace, recipe.run_id)
    assert run_job(workspace, there(Queue(workspace).job(job_id)), "") == ("done", None)
    assert (folder / "adapter_model.safetensors").read_bytes() == whole
    assert [event["sha256"] for event in read_events(workspace.run(recipe.run_id)) if event["event"] == "artifact"] == [
        sha256,
        sha256,
    ]
    assert len(list((content.folder(workspace) / ADAPTER).glob("[0-9a-f]*"))) == 1


def test_a_recipe_file_is_located_by_the_store(
    planned: tuple[Recipe, ContentStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, store = planned
    workspace = Workspace(tmp_path / "node").create()
    with pytest.raises(AdapterError, match="SSTMERGE_STORE"):
        recipe_file.locate(recipe, workspace, needs_base=False)
    monkeypatch.setenv("SSTMERGE_STORE", store.address)
    asked = recipe_file.locate(recipe, workspace, fetch=False)
    assert asked == recipe and not content.folder(workspace).exists(), "asked for, and nothing fetched"
    found = recipe_file.locate(recipe, workspace)
    assert [adapters.read(one.path).sha256 for one in found.adapters] == [one.sha256 for one in recipe.adapters]
    assert adapters.base_fingerprint(Path(found.base.path)) == recipe.base.sha256 and found.run_id == recipe.run_id


def test_an_input_that_is_registered_under_another_path_is_not_fetched(
    planned: tuple[Recipe, ContentStore], tmp_path: Path, tiny_pair: tuple[Path, Path]
) -> None:
    recipe, _ = planned
    workspace = Workspace(tmp_path / "node").create()
    catalog.add(workspace, tiny_pair[1], "other-name", "safety")
    assert located(recipe, workspace).adapters[1].path == str(tiny_pair[1])
    assert located(recipe, workspace).adapters[0] == recipe.adapters[0]
