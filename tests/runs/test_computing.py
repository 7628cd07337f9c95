"""Device, number format and length: what is said once is followed by the Fisher pass and the evaluation alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sstmerge_core import catalog, jobs
from sstmerge_core.builder import preflight
from sstmerge_core.errors import RecipeError
from sstmerge_core.models.device import Memory
from sstmerge_core.models.resident import ResidentModel
from sstmerge_core.recipe import Recipe
from sstmerge_core.runs import session as sessions
from sstmerge_core.runs.execute import execute
from sstmerge_core.store.events import read_events
from sstmerge_core.workspace import Workspace
from tests.there import there
from tests.tiny_models import build_base

ON_A_GPU = preflight.how_to_compute("cuda:0")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace").create()


@pytest.fixture
def inputs(tiny_base: Path, tiny_pair: tuple[Path, Path]) -> tuple[catalog.Base, catalog.Entry, catalog.Entry]:
    utility = catalog.entry(tiny_pair[0], name="U", role="utility", suite="facts")
    return catalog.base_at(tiny_base), utility, catalog.entry(tiny_pair[1], name="S", role="safety")


def recipe(inputs: Any, method: str = "sst_gevp", **options: Any) -> Recipe:
    base, utility, safety = inputs
    return preflight.merge_recipe(base, (utility,), safety, method, {}, preflight.Options(n=4, **options))


def short(one: Recipe) -> Recipe:
    evaluation = there(one.evaluation)
    suites = tuple(suite.model_copy(update={"max_new_tokens": 4}) for suite in evaluation.suites)
    few: dict[str, Any] = {"n_harm": 6, "n_benign": 6}
    calibration = there(one.calibration)
    sources = {}
    for part, n in (("harm", 6), ("benign", 6)):
        source = getattr(calibration, part)
        rows = sessions.take(sessions.load_rows(source.path, calibration.split), n)
        sources[part] = source.model_copy(update={"sha256": sessions.rows_digest(rows)})
    return one.model_copy(
        update={
            "evaluation": evaluation.model_copy(update={"suites": suites}),
            "calibration": calibration.model_copy(update=few | sources),
        }
    )


def test_the_defaults_are_those_of_the_device_and_a_cpus_are_as_they_always_were() -> None:
    on_cpu = {"device": "cpu", "dtype": "float32", "applied": "in_weights", "max_length": 256}
    assert preflight.how_to_compute("cpu") == on_cpu
    usual = preflight.Options()
    assert {name: getattr(usual, name) for name in on_cpu} == on_cpu | {"device": ""}
    wanted = {"device": "cuda:0", "dtype": "bfloat16", "applied": "beside", "max_length": 512}
    assert wanted == ON_A_GPU
    assert preflight.how_to_compute("cuda:1", "float32", 300)["dtype"] == "float32"
    with pytest.raises(RecipeError) as caught:
        preflight.how_to_compute("cpu", "int8", 3, "somewhere")
    assert [problem.where for problem in caught.value.problems] == [
        "--dtype int8",
        "--applied somewhere",
        "--max-length 3",
    ]


def test_what_is_left_at_the_cpus_defaults_is_in_no_identity_and_no_record(inputs: Any) -> None:
    one, on_gpu = recipe(inputs), recipe(inputs, **ON_A_GPU)
    dumped = one.model_dump(mode="json")
    assert "device" not in dumped and "applied" not in dumped["evaluation"]
    assert Recipe.model_validate(dumped) == one and Recipe.model_validate(on_gpu.model_dump(mode="json")) == on_gpu
    assert recipe(inputs, device="cuda:1").run_id == one.run_id, "where it is computed never counted"
    changed: list[dict[str, Any]] = [{"dtype": "bfloat16"}, {"applied": "beside"}, {"max_length": 512}]
    assert len({one.run_id, *(recipe(inputs, **own).run_id for own in changed)}) == 4
    assert there(on_gpu.calibration).dtype == there(on_gpu.evaluation).dtype == "bfloat16"
    assert there(on_gpu.calibration).max_length == 512


def test_calibration_and_evaluation_share_one_model_in_the_asked_format(
    workspace: Workspace, inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[tuple[str, str]] = []
    formats: set[torch.dtype] = set()
    load = ResidentModel.load

    def counted(path: Any, dtype: str, device: str, **how: Any) -> ResidentModel:
        loads.append((dtype, device))
        found = load(path, dtype, device, **how)
        found.model.register_forward_hook(lambda *_: formats.add(found.model.dtype))
        return found

    monkeypatch.setattr(ResidentModel, "load", counted)
    one = short(recipe(inputs, dtype="bfloat16", applied="beside", max_length=64))
    session = sessions.Session(workspace, "cpu")
    execute([one], workspace, session=session)
    assert loads == [("bfloat16", "cpu")] and formats == {torch.bfloat16}
    resident = there(session._model)[1]
    assert resident._moved == set() and resident._beside is not None, "a low-rank merge moved no weight"
    started = next(event for event in read_events(workspace.run(one.run_id)) if event["event"] == "run_started")
    assert started["dtype"] == "bfloat16" and started["recipe"]["evaluation"]["applied"] == "beside"
    parts = [json.loads(path.read_text()) for path in (workspace.cache / "gradients").glob("*/parts.json")]
    assert {part["dtype"] for part in parts} == {"bfloat16"} and {part["max_length"] for part in parts} == {64}
    assert there(session._calibrated)[1].harm.rows.dtype == torch.float32


def test_a_dense_merge_is_added_to_the_weights_whatever_was_asked(workspace: Workspace, inputs: Any) -> None:
    one = recipe(inputs, "ties", applied="beside")
    session = sessions.Session(workspace, "cpu")
    merged = execute_merge(one, session)
    session.answering(one, merged)
    resident = there(session._model)[1]
    assert resident._moved == set(merged.modules) and resident._base == {}


def execute_merge(one: Recipe, session: sessions.Session) -> Any:
    from sstmerge_core.runs.execute import merge_now

    return merge_now(one, session)


def test_a_job_waits_for_the_device_that_its_recipe_names(
    workspace: Workspace, inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "settle", lambda workspace: None)
    job_id = jobs.submit(workspace, [recipe(inputs, device="cuda:1")], name="x")
    assert there(jobs.job(workspace, job_id)).device == "cuda:1"
    monkeypatch.delenv("SSTMERGE_DEVICE", raising=False)
    monkeypatch.setattr(sessions, "is_here", lambda name: True)
    assert sessions.chosen_device("auto", [recipe(inputs, device="cuda:1")]) == "cuda:1"
    assert sessions.chosen_device("cpu", [recipe(inputs, device="cuda:1")]) == "cpu"
    monkeypatch.setenv("SSTMERGE_DEVICE", "cuda:0")
    assert sessions.chosen_device("auto", [recipe(inputs, device="cuda:1")]) == "cuda:0", "a worker has its own"


def test_the_estimate_knows_format_device_and_what_fits_on_it(inputs: Any, tmp_path: Path) -> None:
    _, utility, safety = inputs
    base = catalog.base_at(build_base("llama", tmp_path / "deep", num_hidden_layers=8))
    used = (utility, safety)

    def estimated(options: dict[str, Any], device: str = "cpu", total: int = 1 << 40, base: Any = base) -> int:
        there = Memory(total, total)
        return preflight.memory(base, used, recipe(inputs, **options), device, there)

    assert estimated({"dtype": "bfloat16"}) < estimated({})
    assert estimated({"max_length": 1024}) == estimated({}), "two samples then, of as many tokens as eight"
    assert estimated({"max_length": 4096}) > estimated({})
    roomy, narrow = estimated(ON_A_GPU, "cuda:0"), estimated(ON_A_GPU, "cuda:0", total=1)
    assert narrow < roomy, "activations that do not fit are computed again"
