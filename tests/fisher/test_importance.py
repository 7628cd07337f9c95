from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sstmerge_core import adapters, catalog
from sstmerge_core.builder import preflight
from sstmerge_core.errors import AdapterError, RecipeError
from sstmerge_core.fisher import importance
from sstmerge_core.jobs.plan import plan_units
from sstmerge_core.merge import merge
from sstmerge_core.models.supervised import collate, encode, sample_losses
from sstmerge_core.recipe import Calibration, Recipe, Source
from sstmerge_core.runs.execute import execute, merge_now
from sstmerge_core.runs.session import Session
from sstmerge_core.store.events import read_events
from sstmerge_core.suites.rows import load_rows, rows_digest
from sstmerge_core.workspace import Workspace
from tests.there import there

ROWS = [("w1 w2 w3", "w4 w5"), ("w6", "w7 w8 w9 w10"), ("w1 w1 w2 w2 w3 w3", "w11"), ("w20 w21", "w22 w23 w24")]
PARAMETERS = {"alpha": 1.0, "r_utility": 0.5, "r_safety": 0.3}


@pytest.fixture
def model(tiny_base):
    return AutoModelForCausalLM.from_pretrained(tiny_base)


@pytest.fixture
def tokenizer(tiny_base):
    return AutoTokenizer.from_pretrained(tiny_base)


def by_autograd(model, tokenizer, name: str) -> torch.Tensor:
    """Mean |θ ⊙ ∇L| of one module, one sample at a time."""
    layer = model.get_submodule(name)
    model.requires_grad_(True)
    total = torch.zeros_like(layer.weight)
    for row in ROWS:
        model.zero_grad()
        sample_losses(model, collate([encode(tokenizer, *row, 256)], 1))[0].sum().backward()
        total += (layer.weight.detach() * layer.weight.grad).abs()
    return (total / len(ROWS)).T if isinstance(layer, torch.nn.Embedding) else total / len(ROWS)


@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj", "model.embed_tokens", "lm_head"]
)
def test_a_score_is_the_mean_over_samples_of_weight_times_gradient(model, tokenizer, name):
    if name in ("model.embed_tokens", "lm_head"):  # a tied weight has the gradients of both
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    found = importance.importance(model, tokenizer, [name], ROWS, batch_size=3)
    expected = by_autograd(model, tokenizer, name)
    assert found[name].shape == expected.shape
    assert torch.allclose(found[name], expected, rtol=1e-4, atol=1e-9)
    assert float(expected.max()) > 1e-6


def test_the_pass_leaves_the_model_as_it_was(model, tokenizer):
    model.train().requires_grad_(True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    importance.importance(model, tokenizer, ["model.layers.0.self_attn.q_proj"], ROWS)
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_module_that_is_passed_twice_is_refused(model, tokenizer):
    model.model.layers[1] = model.model.layers[0]
    name = "model.layers.0.self_attn.q_proj"
    with pytest.raises(AdapterError, match=name):
        importance.importance(model, tokenizer, [name], ROWS)


@pytest.mark.parametrize(("share", "kept"), [(0.25, 1), (0.5, 2), (0.74, 2), (1.0, 3), (0.1, 0)])
def test_the_most_important_share_is_kept_and_never_a_weight_without_any_importance(share, kept):
    assert int(importance.most_important(torch.tensor([[3.0, 0.0], [1.0, 2.0]]), share).sum()) == kept


def test_elected_is_what_matters_at_the_base_and_at_the_tuned_model():
    at_base, at_tuned = torch.tensor([[4.0, 3.0], [2.0, 1.0]]), torch.tensor([[1.0, 3.0], [2.0, 4.0]])
    elected = importance.elect(iter([{"m": at_base}, {"m": at_tuned}]), 0.5)
    assert elected["m"].tolist() == [[False, True], [False, False]]


def test_elected_weights_come_back_bit_for_bit(tmp_path):
    elected = {"b": torch.rand(5, 7) < 0.5, "a": torch.rand(3, 1) < 0.5}
    importance.save(tmp_path / "entry", elected, {"rows": "1"})
    found = there(importance.load(tmp_path / "entry"))
    assert list(found) == ["a", "b"]
    assert all(torch.equal(found[name], elected[name]) for name in elected)
    assert importance.load(tmp_path / "nothing") is None


def test_a_merge_without_elected_weights_says_what_it_needs(tiny_pair):
    with pytest.raises(RecipeError, match="led_merging"):
        merge([adapters.read(path).load() for path in tiny_pair], "led_merging", {})


def rows_file(folder: Path, name: str, rows) -> Source:
    path = folder / f"{name}.jsonl"
    lines = [{"id": f"{name}-{i}", "split": "fisher", "prompt": p, "response": r} for i, (p, r) in enumerate(rows)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Source(name=name, path=str(path), sha256=rows_digest(load_rows(path, "fisher")))


@pytest.fixture
def recipe(tiny_base, tiny_pair, tmp_path) -> Recipe:
    harm, benign = rows_file(tmp_path, "harm", ROWS), rows_file(tmp_path, "benign", ROWS[:3])
    return Recipe(
        base=catalog.base_at(tiny_base).source,
        adapters=tuple(catalog.entry(path).source for path in tiny_pair),
        method="led_merging",
        parameters=PARAMETERS,
        calibration=Calibration(harm=harm, benign=benign, n_harm=4, n_benign=3, expansion="own"),
    )


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path / "workspace").create()


def test_a_planned_merge_says_that_both_passes_are_taken_and_has_the_id_of_the_earlier_word(
    recipe, tiny_base, tiny_pair
):
    utility, safety = (catalog.entry(path) for path in tiny_pair)
    planned = preflight.merge_recipe(catalog.base_at(tiny_base), [utility], safety, "led_merging", PARAMETERS)
    calibration = there(planned.calibration)
    assert calibration.expansion == "base_and_own"
    earlier = calibration.model_copy(update={"expansion": "own"})
    assert planned.model_copy(update={"calibration": earlier}).run_id == planned.run_id
    with pytest.raises(ValueError, match="base_and_own is not for linear"):
        Recipe.model_validate(planned.model_dump() | {"method": "linear"})


def test_a_run_of_before_is_that_of_a_plan_of_today():
    kept = json.loads((Path(__file__).parent / "led_merging_recipe.json").read_text(encoding="utf-8"))
    recipe = Recipe.model_validate(kept["recipe"])
    assert recipe.method == "led_merging" and recipe.calibration is not None
    today = recipe.calibration.model_copy(update={"expansion": "base_and_own"})
    assert recipe.model_copy(update={"calibration": today}).run_id == kept["run_id"]


def test_each_side_is_scored_on_its_own_samples_at_the_base_and_with_its_own_adapter(
    recipe, workspace, tiny_base, tiny_pair, tokenizer
):
    found = Session(workspace, "cpu").elected(recipe)
    for path, rows, share, elected in zip(tiny_pair, (ROWS[:3], ROWS), (0.5, 0.3), found, strict=True):
        factors = adapters.read(path).load()
        base = AutoModelForCausalLM.from_pretrained(tiny_base)
        at_base = importance.importance(base, tokenizer, sorted(factors), rows)
        with torch.no_grad():
            for name, own in factors.items():
                base.get_parameter(f"{name}.weight").add_(own.scaling * own.b @ own.a)
        at_tuned = importance.importance(base, tokenizer, sorted(factors), rows)
        expected = importance.elect([at_base, at_tuned], share)
        assert all(torch.equal(elected[name], expected[name]) for name in expected)
        assert sum(int(mask.sum()) for mask in expected.values()) > 0


def test_the_weights_are_found_once_for_every_strength(recipe, workspace, monkeypatch):
    Session(workspace, "cpu").elected(recipe)
    monkeypatch.setattr(importance, "importance", None)  # a second pass would fail
    again = recipe.model_copy(update={"parameters": PARAMETERS | {"alpha": 2.0}})
    assert again.run_id != recipe.run_id
    merged = merge_now(again, Session(workspace, "cpu"))
    assert there(merged.statistic("elected_safety")) > 0


def test_another_share_is_looked_for_anew(recipe, workspace):
    few, more = (
        Session(workspace, "cpu").elected(recipe.model_copy(update={"parameters": PARAMETERS | {"r_safety": share}}))
        for share in (0.1, 0.6)
    )
    assert sum(int(mask.sum()) for mask in few[1].values()) < sum(int(mask.sum()) for mask in more[1].values())


def test_the_plan_counts_both_passes_once(recipe, workspace):
    sweep = [recipe.model_copy(update={"parameters": PARAMETERS | {"alpha": alpha}}) for alpha in (0.5, 1.0)]
    assert [units.get("importance") for units in plan_units(sweep, workspace)] == [14.0, None]


def test_the_run_records_how_many_weights_were_elected(recipe, workspace):
    execute([recipe], workspace, device="cpu")
    events = list(read_events(workspace.run(recipe.run_id)))
    rows = next(event["rows"] for event in events if event["event"] == "module_stats")
    pooled = {row["stat"]: row["value"] for row in rows if row["module"] == ""}
    assert pooled["elected_safety"] <= 0.3 and pooled["conflict"] <= pooled["elected_utility"] <= 0.5
    assert next(event for event in events if event.get("stage") == "importance")["units"] == 14
