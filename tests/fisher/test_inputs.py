"""What modules see of samples, and the two guards that rest on it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sstmerge_core import adapters, catalog, methods
from sstmerge_core.builder import preflight
from sstmerge_core.errors import RecipeError
from sstmerge_core.fisher import inputs
from sstmerge_core.fisher.gradients import encode_rows
from sstmerge_core.merge import merge
from sstmerge_core.methods.safe_delta import surgeon
from sstmerge_core.models.supervised import Example
from sstmerge_core.runs.execute import merge_now
from sstmerge_core.runs.session import Session
from sstmerge_core.space import core_space
from sstmerge_core.workspace import Workspace
from tests.tiny_models import build_base, make_adapter

ROWS = [
    Example("w1 w2 w3", "w4 w5"),
    Example("w6", "w7 w8 w9 w10"),
    Example("w1 w1 w2 w2 w3 w3", "w11"),
    *[Example(f"w{20 + index} w21", "w22 w23") for index in range(7)],
]
GUARDS = ("null_space_guard", "safe_delta")


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma"])
def test_moments_are_those_of_every_token_of_every_sample_alone(architecture: str, tmp_path: Path) -> None:
    base = build_base(architecture, tmp_path / "base")
    modules = None if architecture == "gpt2" else ["q_proj", "down_proj", "embed_tokens"]
    pair = [
        make_adapter(base, tmp_path / name, seed, **({"target_modules": modules} if modules else {}))
        for name, seed in (("U", 1), ("S", 2))
    ]
    space = core_space([adapters.read(path).load() for path in pair])
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base).eval(), AutoTokenizer.from_pretrained(base)
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in space}
    hooks = []
    for name in space:
        layer = model.get_submodule(name)

        def keep(layer, given, output, name=name):
            if isinstance(layer, torch.nn.Embedding):
                one_hot = torch.nn.functional.one_hot(given[0], layer.num_embeddings).double()
                seen[name].append(one_hot.flatten(0, -2) * float(getattr(layer, "embed_scale", 1.0)))
            else:
                seen[name].append(given[0].double().flatten(0, -2))

        hooks.append(layer.register_forward_hook(keep))
    with torch.no_grad():
        for ids, _ in encode_rows(tokenizer, ROWS, 64):
            model(torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    told: list[int] = []
    found = inputs.core_inputs(model, tokenizer, space, ROWS, max_length=64, progress=lambda done, _: told.append(done))
    assert found.keys() == space.keys() and told == [0, 8, 10]
    for name, module in space.items():
        rows = torch.cat(seen[name]) @ module.q_in.double()
        assert torch.allclose(found[name], rows.T @ rows / len(rows), atol=1e-5)


def test_moments_come_back_bit_for_bit_and_damaged_ones_do_not(tmp_path: Path) -> None:
    found = {"b": torch.rand(5, 5).double(), "a": torch.rand(3, 3).double()}
    inputs.save(tmp_path / "entry", found, {"rows": "1"})
    again = inputs.load(tmp_path / "entry")
    assert again is not None and all(torch.equal(again[name], own) for name, own in found.items())
    (tmp_path / "entry" / inputs.FILE).write_bytes(b"cut")
    assert inputs.load(tmp_path / "entry") is None and inputs.load(tmp_path / "nothing") is None


def test_a_recipe_has_its_harmful_samples_looked_at_once(tmp_path, tiny_base, tiny_pair, monkeypatch) -> None:
    workspace = Workspace(tmp_path / "w").create()
    catalog.add_base(workspace, tiny_base)
    for path, name, role in zip(tiny_pair, ("U", "S"), ("utility", "safety"), strict=True):
        catalog.add(workspace, path, name=name, role=role)
    base = next(one for one in catalog.bases(workspace) if one.name == "tiny-llama")
    given = base, [catalog.find(workspace, "U")], catalog.find(workspace, "S")
    recipe = preflight.merge_recipe(*given, "null_space_guard", {"alpha": 0.5})
    assert recipe.calibration is not None and recipe.calibration.expansion == "base"
    stages: list[str] = []
    session = Session(workspace, "cpu", report=lambda point, stage, done, total: stages.append(stage))
    first = merge_now(recipe, session)
    assert "inputs" in stages
    monkeypatch.setattr(inputs, "core_inputs", None)
    second = merge_now(recipe, Session(workspace, "cpu"))
    for name, module in first.modules.items():
        assert torch.equal(module.delta(), second.modules[name].delta())


@pytest.fixture(scope="module")
def given(tiny_base, tiny_pair):
    pair = [adapters.read(path).load() for path in tiny_pair]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_base).eval(), AutoTokenizer.from_pretrained(tiny_base)
    return pair, inputs.core_inputs(model, tokenizer, core_space(pair), ROWS)


@pytest.mark.parametrize("method", GUARDS)
def test_a_guard_says_what_it_needs(given, method: str) -> None:
    with pytest.raises(RecipeError, match="harmful samples"):
        merge(given[0], method, {})
    assert methods.get(method).stage == "inputs"


@pytest.mark.parametrize(
    ("method", "all_of_it", "none_of_it"),
    [("null_space_guard", {"energy": 0.0}, {"energy": 1.0}), ("safe_delta", {"budget": 1.0}, {"budget": 0.0})],
)
def test_at_its_ends_a_guard_keeps_all_or_nothing_of_what_harmful_inputs_see(given, method, all_of_it, none_of_it):
    pair, seen = given
    whole = merge(pair, method, {"alpha": 0.5, **all_of_it}, inputs=seen)
    plain = merge(pair, "task_arithmetic", {"alpha": 0.5})
    nothing = merge(pair, method, {"alpha": 0.0, **none_of_it}, inputs=seen)
    space = core_space(pair)
    for name, module in whole.modules.items():
        assert torch.allclose(module.delta(), plain.modules[name].delta(), atol=1e-5)
        q_in = space[name].q_in.double()
        moved = nothing.modules[name].delta().double() @ q_in
        assert float(torch.trace(moved @ seen[name] @ moved.T)) < 1e-8


def test_what_is_guarded_changes_answers_to_harmful_inputs_less_and_less(given) -> None:
    pair, seen = given
    space = core_space(pair)

    def changed(energy: float) -> float:
        merged = merge(pair, "null_space_guard", {"alpha": 0.0, "energy": energy}, inputs=seen)
        total = 0.0
        for name, module in merged.modules.items():
            moved = module.delta().double() @ space[name].q_in.double()
            total += float(torch.trace(moved @ seen[name] @ moved.T))
        return total

    found = [changed(energy) for energy in (0.0, 0.5, 0.9, 0.99)]
    assert found == sorted(found, reverse=True) and found[-1] < 0.2 * found[0]


def test_what_compensates_makes_safety_samples_notice_less() -> None:
    generator = torch.Generator().manual_seed(5)
    update = torch.randn(6, 8, generator=generator).double()
    rows = torch.randn(30, 8, generator=generator).double() @ torch.randn(8, 8, generator=generator).double()
    seen = rows.T @ rows / 30
    for budget in (0.2, 0.5, 0.8):
        found = surgeon(update, seen, budget, 0.01)
        kept = torch.where(found == update, update, 0.0)
        assert 0 < int((kept != 0).sum()) < update.numel()
        noticed = [float(torch.trace(own @ seen @ own.T)) for own in (found, kept)]
        assert noticed[0] < noticed[1]
