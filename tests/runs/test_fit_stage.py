from __future__ import annotations

import json
import signal

import pytest
import torch

from sstmerge_core import catalog, methods
from sstmerge_core.builder import preflight
from sstmerge_core.fisher import expansion
from sstmerge_core.fitting import kept
from sstmerge_core.jobs.plan import plan_units
from sstmerge_core.models.resident import ResidentModel
from sstmerge_core.recipe import Recipe
from sstmerge_core.runs import fit_stage
from sstmerge_core.runs.execute import execute, merge_to
from sstmerge_core.runs.session import Session
from sstmerge_core.store.events import read_events
from sstmerge_core.suites import twins
from sstmerge_core.suites.rows import load_rows, rows_digest, take
from sstmerge_core.workspace import Workspace
from tests.processes import died
from tests.there import there

FITS = [own.name for own in methods.methods() if own.fits and own.kind != "edited"]


def short(method: str, count: int) -> dict[str, int]:
    """Parameters with which a method takes `count` steps or passes at most."""
    has = {own.name for own in methods.get(method).parameters}
    return {"steps" if "steps" in has else "passes": count}


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path / "workspace").create()


@pytest.fixture
def recipe(workspace, tiny_base, tiny_pair):
    def make(method: str, **parameters) -> Recipe:
        plan = preflight.plan(
            workspace,
            base=catalog.base_at(tiny_base),
            utility=catalog.entry(tiny_pair[0], name="U", role="utility", suite="facts"),
            safety=catalog.entry(tiny_pair[1], name="S", role="safety"),
            method=method,
            parameters=parameters,
            evaluate=False,
        )
        assert not plan.problems and plan.memory_bytes > 0
        return there(plan.recipe)

    return make


def weights(workspace, recipe) -> bytes:
    return (workspace.merged_adapter(recipe.run_id) / "adapter_model.safetensors").read_bytes()


def test_a_fit_sees_the_fisher_split_alone(workspace, recipe):
    one = recipe("sst_learned", steps=1)
    assert set(one.calibration.parts) == {"harm", "benign", "near"}
    session = Session(workspace, "cpu")
    for part, (source, n) in one.calibration.parts.items():
        split = {row.prompt for row in load_rows(source.path, "fisher")}
        examples = session.examples(one, part)
        assert len(examples) == n and {example.prompt for example in examples} <= split
        assert all(example.response for example in examples)


@pytest.mark.parametrize("method", FITS)
def test_a_fit_is_planned_told_and_kept(method, workspace, recipe):
    one = recipe(method, **short(method, 2))
    assert plan_units([one, one], workspace)[0][methods.get(method).stage] == 2
    told = []
    execute([one], workspace, report=lambda point, stage, done, total: told.append((stage, done, total)))
    whole = [(done, total) for stage, done, total in told if stage == methods.get(method).stage and done == int(done)]
    assert list(dict.fromkeys(whole)) == [(0, 2), (1, 2), (2, 2)]
    events = list(read_events(workspace.run(one.run_id)))
    stage = next(event for event in events if event["event"] == "stage" and event["stage"] == methods.get(method).stage)
    assert stage["units"] == 2
    rows = [row for event in events if event["event"] == "module_stats" for row in event["rows"]]
    assert next(row["value"] for row in rows if (row["module"], row["stat"]) == ("", "fitted")) > 0
    assert not list((workspace.cache / "fitted").glob("*.safetensors"))
    again = Workspace(workspace.root)
    stages = []
    merge_to(one, again, workspace.root / "out", report=lambda point, stage, done, total: stages.append(stage))
    assert methods.get(method).stage not in stages and "prepare" not in stages
    assert (workspace.root / "out" / "adapter_model.safetensors").read_bytes() == weights(workspace, one)


KILLED = """
import json, os, signal, sys, torch
from pathlib import Path
from sstmerge_core.recipe import Recipe
from sstmerge_core.runs.execute import execute
from sstmerge_core.workspace import Workspace

def die(point, stage, done, total):
    if stage in ("fit", "passes") and done == 2:
        os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(1)
execute([Recipe.model_validate(json.load(open(sys.argv[2])))], Workspace(Path(sys.argv[1])).create(), report=die)
"""


@pytest.mark.parametrize("method", FITS)
def test_a_run_that_was_killed_while_it_fitted_goes_on_at_its_step_to_the_same_bits(
    method, workspace, recipe, tmp_path
):
    one = recipe(method, **short(method, 4))
    straight = Workspace(tmp_path / "straight").create()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        execute([one], straight)
        (tmp_path / "recipe.json").write_text(json.dumps(one.model_dump(mode="json")))
        assert died(KILLED, str(workspace.root), str(tmp_path / "recipe.json")) == -signal.SIGKILL
        told = []
        execute([one], workspace, report=lambda point, stage, done, total: told.append((stage, done)))
    finally:
        torch.set_num_threads(threads)
    done = [done for stage, done in told if stage == methods.get(method).stage]
    assert done[0] == 2 and done == sorted(done) and done[-1] <= 4
    assert weights(workspace, one) == weights(straight, one)


def test_another_parameter_or_row_is_another_fit_and_a_name_is_not(workspace, recipe):
    one = recipe("sst_learned", steps=1)
    session = Session(workspace, "cpu")

    def key(other: Recipe) -> str:
        return json.dumps(fit_stage._depends(other, session))

    assert key(recipe("sst_learned", steps=1, near_weight=2.0)) != key(one)
    near = one.calibration.near.model_copy(update={"sha256": "0" * 64})
    assert key(one.model_copy(update={"calibration": one.calibration.model_copy(update={"near": near})})) != key(one)
    moved = one.calibration.near.model_copy(update={"path": "elsewhere", "name": "mine"})
    assert key(one.model_copy(update={"calibration": one.calibration.model_copy(update={"near": moved})})) == key(one)


def test_without_labels_the_models_own_answers_are_learned(workspace, recipe, tiny_base):
    one = recipe("sst_learned", steps=1, targets="own")
    calibration = one.calibration.model_copy(update={"n_near": 2, "n_benign": 2})
    changed = {}
    for part in ("near", "benign"):
        source, n = calibration.parts[part]
        rows = take(load_rows(source.path, "fisher"), n)
        changed[part] = source.model_copy(update={"sha256": rows_digest(rows)})
    one = one.model_copy(update={"calibration": calibration.model_copy(update=changed)})
    session = Session(workspace, "cpu")
    parts = fit_stage._parts(one, session)
    assert {example.response for example in parts["harm"].examples} == {twins.REFUSAL}
    resident = ResidentModel.load(tiny_base, "float32", "cpu")
    assert [own.response for own in parts["near"].examples] == [
        answer.text for answer in resident.generate([own.prompt for own in parts["near"].examples], 48)
    ]
    resident.set_delta(expansion.deltas([session.factors(one.adapters[0], one)], [1.0]))
    assert [own.response for own in parts["benign"].examples] == [
        answer.text for answer in resident.generate([own.prompt for own in parts["benign"].examples], 48)
    ]
    assert one.run_id != recipe("sst_learned", steps=1).run_id


def test_what_was_kept_comes_back(workspace, tmp_path):
    from sstmerge_core.fitting import Fit

    fit = Fit({"b": torch.randn(3, 2), "a": torch.randn(1, 4)}, [{"module": "", "stat": "fitted", "value": 3.0}])
    assert kept.load(workspace, "k") is None
    kept.save(workspace, "k", fit, {"x": 1})
    found = there(kept.load(workspace, "k"))
    assert found.statistics == fit.statistics
    assert all(torch.equal(found.cores[name], fit.cores[name]) for name in fit.cores)
