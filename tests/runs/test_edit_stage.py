"""Methods that edit whole weights, from the recipe to the adapter on disk, on a tiny model."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from sstmerge_core import adapters, catalog, methods
from sstmerge_core.builder import preflight
from sstmerge_core.fisher.outputs import RESIDUAL, prompt_outputs
from sstmerge_core.fitting import edits_of
from sstmerge_core.jobs.plan import plan_units
from sstmerge_core.models.resident import ResidentModel, chat_ids
from sstmerge_core.recipe import Recipe
from sstmerge_core.runs import fit_stage
from sstmerge_core.runs.execute import execute
from sstmerge_core.runs.session import Session
from sstmerge_core.store.events import read_events
from sstmerge_core.suites import bundled
from sstmerge_core.workspace import Workspace
from tests.there import there

EDITED = [own.name for own in methods.methods() if own.kind == "edited"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("edited") / "workspace").create()


@pytest.fixture(autouse=True)
def few_samples(monkeypatch):
    """Eight samples of each kind."""
    source = bundled.source

    def some(suite: str, split: str, n: int | None = None, **more: Any) -> Any:
        return source(suite, split, 8 if split == "fisher" else n, **more)

    monkeypatch.setattr(preflight.bundled, "source", some)


@pytest.fixture
def recipe(workspace, tiny_base, tiny_pair):
    def make(method: str, **parameters: Any) -> Recipe:
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


@pytest.mark.parametrize("method", EDITED)
def test_edits_are_found_kept_and_written_as_an_adapter_that_does_what_was_edited(
    method, workspace, recipe, tiny_pair, monkeypatch
):
    # a random model refuses nothing by words: what it says decides by its length here
    monkeypatch.setattr(
        fit_stage._Prompts,
        "_answered",
        lambda self, resident, prompts: torch.tensor([len(prompt) % 2 == 0 for prompt in prompts]),
    )
    one = recipe(method, alpha=0.5, **({"rank": 2} if method == "prosafe_prune" else {"passes": 1}))
    assert plan_units([one], workspace)[0]["passes"] == 1
    stages: list[str] = []
    execute([one], workspace, report=lambda point, stage, done, total: stages.append(stage))
    assert "passes" in stages
    events = list(read_events(workspace.run(one.run_id)))
    told = {row["stat"]: row["value"] for event in events if event["event"] == "module_stats" for row in event["rows"]}
    fit = fit_stage.fitted(one, Session(workspace, "cpu"))
    edits = edits_of(fit)
    if method == "llm_va" and told["f1_after"] == told["f1_before"]:
        assert not edits  # nothing that was tried is better than the merge as it was
    else:
        assert edits and told["fitted"] > 0
    written = adapters.read(workspace.merged_adapter(one.run_id)).load()
    pair = [adapters.read(path).load() for path in tiny_pair]
    for name in set().union(*pair) - set(edits):
        delta = written[name].scaling * written[name].b @ written[name].a
        parts = [
            w * own[name].scaling * own[name].b @ own[name].a
            for w, own in zip((1, 0.5), pair, strict=True)
            if name in own
        ]
        assert torch.allclose(delta, torch.stack(parts).sum(0), atol=1e-5)
    before = {path: path.stat().st_mtime_ns for path in (workspace.cache / "fitted").rglob("*")}
    fit_stage.fitted(one, Session(workspace, "cpu"))
    assert before == {path: path.stat().st_mtime_ns for path in (workspace.cache / "fitted").rglob("*")}


def test_a_method_that_asks_for_answers_takes_the_judges_word_and_what_layers_write(workspace, recipe):
    prompts = fit_stage._Prompts(recipe("llm_va"), Session(workspace, "cpu"))
    said = [
        "I cannot help with that.",
        "The capital is Paris, a city on the Seine.",
        "",
        "I'm sorry, but I can't do that.",
    ]

    class Answer:
        def __init__(self, text: str) -> None:
            self.text = text

    class Resident:
        @staticmethod
        def generate(asked: list[str], most: int) -> list[Answer]:
            return [Answer(text) for text in said]

    resident: Any = Resident()
    found = prompts._answered(resident, ["a", "b", "c", "d"])
    assert found.tolist() == [False, True, False, False]  # an empty answer is none
    resident = prompts._edited({})
    names, block = prompts._modules(resident)
    assert {name.rpartition(".")[2] for name in names} == {"o_proj", "down_proj"}
    assert block == f"model.layers.{resident.model.config.num_hidden_layers - 1}"
    seen = prompts.look({}, False)
    assert set(seen.outputs) == set(names) and {len(own) for own in there(seen.answered).values()} == {8}
    assert there(seen.residual)["harm"].shape == (8, resident.model.config.hidden_size)


def catch(caught: dict[str, torch.Tensor], name: str, layer: Any, inputs: Any, output: Any) -> None:
    caught[name] = output[0] if isinstance(output, tuple) else output


def test_outputs_are_those_of_each_prompt_alone_whatever_the_batch(tiny_base):
    resident = ResidentModel.load(str(tiny_base), "float32", "cpu")
    prompts = ["Hello", "A longer question about many things?", "Why?"]
    names = ["model.layers.0.mlp.down_proj", "model.layers.1.self_attn.q_proj"]
    ticks: list[int] = []
    given = (resident.model, resident.tokenizer, names, prompts)
    mean = prompt_outputs(*given, tick=lambda: ticks.append(1))
    last = prompt_outputs(*given, last_token=True, block="model.layers.1")
    assert ticks and set(last) == {*names, RESIDUAL}
    for place, prompt in enumerate(prompts):
        ids = torch.tensor([chat_ids(resident.tokenizer, prompt)])
        caught: dict[str, torch.Tensor] = {}
        hooks = [
            resident.model.get_submodule(name).register_forward_hook(partial(catch, caught, name))
            for name in (*names, "model.layers.1")
        ]
        with torch.no_grad():
            resident.model(ids)
        for hook in hooks:
            hook.remove()
        for name in names:
            values = caught[name].reshape(1, -1, caught[name].shape[-1])[0].double()
            assert torch.allclose(mean[name][place], values.mean(0), atol=1e-5)
            assert torch.allclose(last[name][place], values[-1], atol=1e-5)
        whole = caught["model.layers.1"].reshape(-1, last[RESIDUAL].shape[1])
        assert torch.allclose(last[RESIDUAL][place], whole[-1].double(), atol=1e-5)
