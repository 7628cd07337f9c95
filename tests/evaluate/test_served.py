from __future__ import annotations

import pytest

from sstmerge_core import adapters, catalog
from sstmerge_core.builder import preflight
from sstmerge_core.errors import AdapterError, DataError, RecipeError
from sstmerge_core.evaluate import served
from sstmerge_core.evaluate.served import ServedModel
from sstmerge_core.merge import deltas, merge
from sstmerge_core.models.resident import ResidentModel
from sstmerge_core.recipe import Evaluation
from sstmerge_core.runs.execute import execute
from sstmerge_core.store.events import read_events
from sstmerge_core.workspace import Workspace
from tests.tiny_models import build_base, make_adapter

PROMPTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w10 w11"]
with_vllm = pytest.mark.skipif(not served.installed(), reason="needs vLLM, the extra [vllm]")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A random Llama whose heads are as wide as vLLM wants them."""
    folder = tmp_path_factory.mktemp("models") / "wide-llama"
    return build_base("llama", folder, hidden_size=128, intermediate_size=160, head_dim=32)


@pytest.fixture(scope="module")
def pair(base, tmp_path_factory):
    root = tmp_path_factory.mktemp("adapters")
    return make_adapter(base, root / "U", 1), make_adapter(base, root / "S", 2)


@pytest.fixture(scope="module")
def engine(base):
    found = ServedModel.load(base)
    yield found
    found.close()


def test_a_run_measured_by_vllm_is_another_run_and_one_by_transformers_keeps_its_id(tiny_base, tiny_pair):
    entry = catalog.entry(tiny_pair[0], name="U", role="utility", suite="facts")
    recipe = preflight.single_recipe(catalog.base_at(tiny_base), entry, "facts")
    assert recipe.evaluation is not None and "backend" not in recipe.evaluation.identity()
    by_vllm = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"backend": "vllm"})})
    assert by_vllm.run_id != recipe.run_id
    said = Evaluation.model_validate(recipe.evaluation.model_dump(exclude={"backend"}))
    assert recipe.model_copy(update={"evaluation": said}).run_id == recipe.run_id


def test_without_vllm_the_plan_says_how_to_get_it(tmp_path, tiny_base, tiny_pair, monkeypatch):
    monkeypatch.setattr(served, "installed", lambda: False)
    plan = preflight.plan(
        Workspace(tmp_path / "workspace").create(),
        base=catalog.base_at(tiny_base),
        utility=catalog.entry(tiny_pair[0], name="U", role="utility", suite="facts"),
        safety=catalog.entry(tiny_pair[1], name="S", role="safety"),
        method="linear",
        parameters={},
        options=preflight.Options(backend="vllm"),
    )
    assert plan.recipe is None and "vLLM is not installed" in str(plan.problems[0])
    assert "sstmerge[vllm]" in plan.problems[0].fix
    with pytest.raises(RecipeError, match="not installed"):
        ServedModel.load(tiny_base)


@pytest.mark.parametrize(("installed", "gpu", "chosen"), [(True, True, "vllm"), (True, False, "transformers")])
def test_vllm_is_chosen_where_it_is_installed_beside_a_gpu(monkeypatch, installed, gpu, chosen):
    monkeypatch.setattr(served, "installed", lambda: installed)
    monkeypatch.setattr(served, "gpu_present", lambda: gpu)
    assert served.best_backend() == chosen
    assert [served.best_backend(device) for device in ("cpu", "cuda:1")] == ["transformers"] * 2
    monkeypatch.setattr(served, "installed", lambda: False)
    assert served.best_backend() == "transformers"


def test_a_rank_that_vllm_cannot_serve_is_refused_before_the_engine_starts():
    assert [served.rank_for(rank) for rank in (0, 16, 17, 321)] == [16, 16, 32, 512]
    with pytest.raises(RecipeError, match="rank 600: vLLM serves adapters of rank 512 at most"):
        served.rank_for(600)


@with_vllm
def test_vllm_answers_as_transformers_does_with_and_without_an_adapter(engine, base, pair):
    resident = ResidentModel.load(base)
    utility = adapters.read(pair[0])
    engine.set_adapter(None)
    assert engine.generate(PROMPTS, 12) == resident.generate(PROMPTS, 12)
    merged = merge([utility.load("cpu")], "adapter", {})
    resident.set_delta(deltas(merged))
    engine.set_merged(merged, [utility])
    tuned = engine.generate(PROMPTS, 12)
    assert tuned == resident.generate(PROMPTS, 12)
    engine.set_adapter(pair[0])
    assert engine.generate(PROMPTS, 12) == tuned
    engine.set_adapter(None)
    assert engine.generate(PROMPTS, 12) != tuned


@with_vllm
def test_a_prompt_with_no_room_for_its_answer_is_refused_by_name(engine):
    with pytest.raises(DataError, match="the longest prompt: has .* more than the 128"):
        engine.generate(["w1 " * 100], 60)


@with_vllm
def test_an_adapter_that_vllm_cannot_read_is_an_adapter_error(engine, tmp_path):
    with pytest.raises(AdapterError, match="vLLM cannot serve it"):
        engine.set_adapter(tmp_path)
    assert len(engine.generate(PROMPTS, 4)) == 3


@with_vllm
def test_a_merge_is_measured_by_vllm_with_the_answers_of_transformers(base, pair, tmp_path):
    workspace = Workspace(tmp_path / "workspace").create()
    answers = {}
    for backend in served.BACKENDS:
        plan = preflight.plan(
            workspace,
            base=catalog.base_at(base),
            utility=catalog.entry(pair[0], name="U", role="utility", suite="facts"),
            safety=catalog.entry(pair[1], name="S", role="safety"),
            method="linear",
            parameters={"alpha": 0.5},
            options=preflight.Options(n=3, utility_tokens=8, backend=backend),
        )
        assert plan.recipe is not None and plan.recipe.evaluation is not None
        suites = tuple(suite.model_copy(update={"max_new_tokens": 8}) for suite in plan.recipe.evaluation.suites)
        evaluation = plan.recipe.evaluation.model_copy(update={"suites": suites})
        recipe = plan.recipe.model_copy(update={"evaluation": evaluation})
        execute([recipe], workspace)
        events = list(read_events(workspace.run(recipe.run_id)))
        assert events[-1]["event"] == "run_finished"
        started = next(event for event in events if event["event"] == "run_started")
        assert started["recipe"]["evaluation"]["backend"] == backend
        answers[backend] = {
            (event["suite"], row["prompt_id"]): (row["response"], row["n_tokens"], row["stopped"])
            for event in events
            if event["event"] == "samples"
            for row in event["rows"]
        }
    assert answers["vllm"] == answers["transformers"]
