"""Modules that an adapter has trained whole (PEFT's modules_to_save): kept from the utility side, exactly as PEFT."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from sstmerge_core import adapters, catalog
from sstmerge_core.adapters import saved
from sstmerge_core.builder import preflight, recipe_command, recipe_file
from sstmerge_core.builder.recipe_file import Output
from sstmerge_core.catalog import Entry
from sstmerge_core.errors import AdapterError, RecipeError
from sstmerge_core.models.resident import ResidentModel
from sstmerge_core.recipe import Recipe
from sstmerge_core.runs import execute
from sstmerge_core.runs.session import Session
from sstmerge_core.workspace import Workspace
from tests.tiny_models import build_base, make_adapter, make_whole_adapter

LINEAR = ["q_proj", "down_proj"]
KINDS = {
    "untied": (False, ["lm_head", "norm"]),
    "tied, the head": (True, ["lm_head"]),
    "tied, the embedding": (True, ["embed_tokens"]),
    "tied, both": (True, ["embed_tokens", "lm_head", "norm"]),
}
IDS = torch.tensor([[2, 3, 7, 11, 40, 94]])


@pytest.fixture(scope="module", params=KINDS)
def case(request, tmp_path_factory):
    tied, names = KINDS[request.param]
    root = tmp_path_factory.mktemp("saved")
    base = build_base("llama", root / "base", tie_word_embeddings=tied)
    utility = make_whole_adapter(base, root / "utility", 1, names, target_modules=LINEAR)
    safety = make_adapter(base, root / "safety", 2, target_modules=LINEAR)
    workspace = Workspace(root / "workspace").create()
    return workspace, base, utility, safety


@pytest.fixture(scope="module")
def untied(tmp_path_factory):
    root = tmp_path_factory.mktemp("untied")
    base = build_base("llama", root / "base", tie_word_embeddings=False)
    utility = make_whole_adapter(base, root / "utility", 1, ["lm_head"], target_modules=LINEAR)
    safety = make_adapter(base, root / "safety", 2, target_modules=LINEAR)
    return Workspace(root / "workspace").create(), base, utility, safety


def recipe(workspace: Workspace, base: Path, utility: Path, safety: Path, policy: str = "utility", **more) -> Recipe:
    plan = planned(workspace, base, utility, safety, policy, **more)
    assert not plan.problems, plan.problems
    assert plan.recipe is not None
    return plan.recipe


def planned(workspace, base, utility, safety, policy="utility", method="linear", parameters=None, evaluate=False):
    entries: list[Entry] = [catalog.entry(path, workspace, suite="facts") for path in (utility, safety)]
    return preflight.plan(
        workspace,
        base=catalog.base_at(base, workspace),
        utility=entries[0],
        safety=entries[1],
        method=method,
        parameters={"alpha": 0.4} if parameters is None else parameters,
        evaluate=evaluate,
        options=preflight.Options(modules_to_save=policy),
    )


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def by_peft(base: Path, adapter: Path) -> torch.Tensor:
    return logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter)).eval())


def by_hand(base: Path, utility: Path, safety: Path, weights: tuple[float, float]) -> torch.Tensor:
    """PEFT's model of the utility adapter, its modules in place, with the ΔW of both added by these weights."""
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(utility)).eval()
    for layer in (one for one in model.modules() if hasattr(one, "lora_B")):
        for name in layer.scaling:
            layer.scaling[name] *= weights[0]
    merged = model.merge_and_unload()
    modules = dict(merged.named_modules())
    for name, one in adapters.read(safety).load().items():
        modules[name].weight.data += weights[1] * one.scaling * one.b @ one.a
    return logits(merged)


def test_the_written_adapter_the_model_in_memory_and_the_dense_model_have_pefts_logits(case, tmp_path):
    workspace, base, utility, safety = case
    found = recipe(*case)
    expected = by_hand(base, utility, safety, (0.6, 0.4))
    execute.merge_to(found, workspace, tmp_path / "merged", device="cpu")
    assert torch.allclose(by_peft(base, tmp_path / "merged"), expected, atol=1e-5)
    execute.merge_to(found, workspace, tmp_path / "dense", output=Output(kind="model", dtype="auto"), device="cpu")
    written = AutoModelForCausalLM.from_pretrained(tmp_path / "dense").eval()
    assert torch.allclose(logits(written), expected, atol=1e-5)
    session = Session(workspace, "cpu")
    evaluated = found.model_copy(update={"evaluation": None})
    resident: Any = session.answering(evaluated, execute.merge_now(found, session))
    assert torch.allclose(logits(resident.model), expected, atol=1e-5)
    plain = found.model_copy(update={"adapters": found.adapters[1:], "method": "adapter", "parameters": {}})
    other: Any = session.answering(
        plain.model_copy(update={"modules_to_save": "refuse"}),
        execute.merge_now(plain, session),
    )
    assert torch.allclose(logits(other.model), by_peft(base, safety), atol=1e-5), "the base is the base again"


def test_the_kept_tensors_are_the_utility_sides_bit_for_bit(case, tmp_path):
    workspace, _, utility, _ = case
    written, _ = execute.merge_to(
        recipe(*case), workspace, tmp_path / "merged", output=Output(dtype="bfloat16"), device="cpu"
    )
    before, after = (adapters.read(path, saved=True).saved for path in (utility, written.path))
    assert before.keys() == after.keys() and before
    assert all(torch.equal(before[name].load(), after[name].load()) for name in before)
    assert saved.modules(written.path) == saved.modules(utility)


def test_the_base_under_them_is_restored_bit_for_bit_after_a_merge(untied):
    _, base, utility, safety = untied
    adapter = adapters.read(utility, saved=True)
    resident = ResidentModel.load(base, "float32", "cpu", saved={name: one.load for name, one in adapter.saved.items()})
    before = logits(resident.model)
    from sstmerge_core.fisher import expansion

    resident.set_delta(expansion.deltas([adapters.read(safety).load()], [1.0]))
    assert not torch.equal(logits(resident.model), before)
    resident.set_delta(None)
    assert torch.equal(logits(resident.model), before)
    assert torch.equal(resident.model.lm_head.weight, adapter.saved["lm_head.weight"].load())


def test_without_the_choice_they_are_refused_with_both_ways_out(untied):
    workspace, base, utility, safety = untied
    plan = planned(workspace, base, utility, safety, policy="refuse")
    [problem] = plan.problems
    assert "fully trained modules (lm_head)" in problem.fault
    assert "adapters convert" in problem.fix and "--modules-to-save utility" in problem.fix
    with pytest.raises(AdapterError, match="fully trained modules"):
        adapters.read(untied[2])


@pytest.fixture(
    scope="module", params=[(False, ["lm_head"]), (True, ["embed_tokens"]), (True, ["embed_tokens", "lm_head"])]
)
def both_whole(request, tmp_path_factory):
    """Both adapters have trained the same modules whole."""
    tied, names = request.param
    root = tmp_path_factory.mktemp("dense")
    base = build_base("llama", root / "base", tie_word_embeddings=tied)
    return (
        Workspace(root / "workspace").create(),
        base,
        make_whole_adapter(base, root / "utility", 1, names, target_modules=LINEAR),
        make_whole_adapter(base, root / "safety", 2, names, target_modules=LINEAR),
    )


def by_hand_whole(base: Path, pair: tuple[Path, Path], weights: tuple[float, float]) -> torch.Tensor:
    """The base with the ΔW of both added by these weights, and the W′ − W of what they have trained whole."""
    model: Any = AutoModelForCausalLM.from_pretrained(base).eval()
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    before = {"lm_head.weight": head.weight.clone(), "model.embed_tokens.weight": embeddings.weight.clone()}
    modules = dict(model.named_modules())
    for path, weight in zip(pair, weights, strict=True):
        read = adapters.read(path, saved=True)
        for name, one in read.load().items():
            modules[name].weight.data += weight * one.scaling * one.b @ one.a
        for name, tensor in read.saved.items():
            modules[name.removesuffix(".weight")].weight.data += weight * (tensor.load() - before[name])
    return logits(model)


def test_merged_they_are_a_delta_like_any_other_in_the_adapter_in_memory_and_dense(both_whole, tmp_path):
    workspace, base, utility, safety = both_whole
    found = recipe(workspace, base, utility, safety, "dense")
    expected = by_hand_whole(base, (utility, safety), (0.6, 0.4))
    execute.merge_to(found, workspace, tmp_path / "merged", device="cpu")
    assert torch.allclose(by_peft(base, tmp_path / "merged"), expected, atol=1e-5)
    assert saved.modules(tmp_path / "merged") == saved.modules(utility)
    written = adapters.read(tmp_path / "merged", saved=True)
    assert written.rank == sum(adapters.read(one, saved=True).rank for one in (utility, safety)), "not the vocabulary's"
    execute.merge_to(found, workspace, tmp_path / "dense", output=Output(kind="model", dtype="auto"), device="cpu")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "dense").eval()
    assert torch.allclose(logits(model), expected, atol=1e-5)
    session = Session(workspace, "cpu")
    resident: Any = session.answering(found.model_copy(update={"evaluation": None}), execute.merge_now(found, session))
    assert torch.allclose(logits(resident.model), expected, atol=1e-5)


@pytest.mark.parametrize("method", ["ties", "dare_ties", "slerp", "sst_gevp", "safe_lora", "fisher"])
def test_every_kind_of_method_merges_them_and_the_adapter_is_what_was_in_memory(both_whole, method, tmp_path):
    workspace, base, utility, safety = both_whole
    found = recipe(workspace, base, utility, safety, "dense", method=method, parameters={})
    execute.merge_to(found, workspace, tmp_path / "dense", output=Output(kind="model", dtype="auto"), device="cpu")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "dense").eval()
    session = Session(workspace, "cpu")
    merged = execute.merge_now(found, session)
    resident: Any = session.answering(found.model_copy(update={"evaluation": None}), merged)
    assert torch.allclose(logits(resident.model), logits(model), atol=1e-5)
    execute.merge_to(found, workspace, tmp_path / "merged", device="cpu")
    weights = load_file(tmp_path / "merged" / "adapter_model.safetensors")
    dense = load_file(tmp_path / "dense" / "model.safetensors")
    for name in adapters.read(tmp_path / "merged", saved=True).saved:
        [key] = [key for key in weights if key.endswith(name)]
        assert torch.allclose(weights[key], dense[name], atol=1e-6), "whole weights lose nothing to a rank"


def test_merged_with_an_adapter_that_has_a_delta_of_the_same_module_the_two_are_added(untied, tmp_path):
    workspace, base, utility, _ = untied
    headed = make_adapter(base, tmp_path / "headed", 3, target_modules=["q_proj", "lm_head"])
    found = recipe(workspace, base, utility, headed, "dense")
    execute.merge_to(found, workspace, tmp_path / "merged", device="cpu")
    expected = by_hand_whole(base, (utility, headed), (0.6, 0.4))
    assert torch.allclose(by_peft(base, tmp_path / "merged"), expected, atol=1e-5)


def test_what_is_no_weight_matrix_is_not_merged_and_that_is_said(case):
    workspace, base, utility, safety = case
    normed = [name for name in saved.modules(utility) if name == "norm"]
    problems = planned(workspace, base, utility, safety, policy="dense").problems
    assert len(problems) == len(normed)
    assert all("is no weight matrix" in one.fault and "--modules-to-save utility" in one.fix for one in problems)


def test_merged_and_kept_are_two_runs(untied):
    workspace, base, utility, safety = untied
    kept, merged = (recipe(workspace, base, utility, safety, policy) for policy in ("utility", "dense"))
    assert kept.run_id != merged.run_id and merged.computed_base == merged.base.sha256
    assert recipe_command._chat_words(merged) == ["--modules-to-save", "dense"]


def test_a_recipe_that_says_nothing_of_them_is_not_carried_out(untied, tmp_path):
    workspace, *_ = untied
    silent = recipe(*untied).model_copy(update={"modules_to_save": "refuse"})
    with pytest.raises(AdapterError, match="fully trained modules"):
        execute.merge_to(silent, workspace, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_the_choice_is_part_of_the_identity_only_where_an_adapter_has_such_modules(untied, tmp_path):
    workspace, base, _, safety = untied
    found = recipe(*untied)
    assert found.run_id != found.model_copy(update={"modules_to_save": "refuse"}).run_id
    other = make_adapter(base, tmp_path / "other", 5, target_modules=LINEAR)
    chosen, silent = (recipe(workspace, base, other, safety, policy) for policy in ("utility", "refuse"))
    assert chosen.run_id == silent.run_id
    assert "modules_to_save" not in silent.model_dump(mode="json")
    assert silent.computed_base == silent.base.sha256 != found.computed_base


def test_a_recipe_file_and_a_command_carry_the_choice(untied):
    found = recipe(*untied)
    text = recipe_file.RecipeFile(found).to_yaml()
    assert "modules_to_save: utility" in text
    assert recipe_command._chat_words(found) == ["--modules-to-save", "utility"]


def test_gradients_are_taken_with_them_and_are_kept_apart(untied):
    """The Fisher pass sees the base with the trained head: its cache has another key than without."""
    found = recipe(*untied, method="sst_gevp", parameters={})
    session = Session(untied[0], "cpu")
    kept = session.kept(found)
    assert kept is not None
    resident = session.model(found.base, "float32", found.chat, kept=kept)
    assert torch.equal(resident.model.lm_head.weight, kept.saved["lm_head.weight"].load())
    plain = session.model(found.base, "float32", found.chat)
    assert plain is not resident and not torch.equal(plain.model.lm_head.weight, resident.model.lm_head.weight)


def changed(folder: Path, out: Path, **settings) -> Path:
    shutil.copytree(folder, out)
    config = json.loads((out / "adapter_config.json").read_text()) | settings
    (out / "adapter_config.json").write_text(json.dumps(config))
    return out


def test_the_safety_sides_are_left_out_and_that_is_said(untied, tmp_path):
    workspace, base, utility, safety = untied
    plan = planned(workspace, base, safety, utility)
    assert not plan.problems
    assert any("have no part in the merge" in warning.fault for warning in plan.warnings)


def test_what_cannot_be_kept_is_refused_in_one_line(untied, tmp_path):
    workspace, base, utility, safety = untied
    headed = make_adapter(base, tmp_path / "headed", 3, target_modules=["q_proj", "lm_head"])
    both = planned(workspace, base, utility, headed).problems
    assert any("lm_head is fully trained there, and the safety adapter has a ΔW of it" in one.fault for one in both)
    with pytest.raises(AdapterError, match="no weights of embed_tokens"):
        adapters.read(changed(utility, tmp_path / "lacking", modules_to_save=["lm_head", "embed_tokens"]), saved=True)
    resized = shutil.copytree(utility, tmp_path / "resized")
    weights = load_file(resized / "adapter_model.safetensors")
    [key] = [key for key in weights if "lora_" not in key]
    weights[key] = torch.cat([weights[key], weights[key][:3]])
    save_file(weights, resized / "adapter_model.safetensors")
    [problem] = planned(workspace, base, resized, safety).problems
    assert "(98, 32), in the base (95, 32) (another vocabulary)" in problem.fault
    weights[key] = weights[key][:95] * float("nan")
    save_file(weights, resized / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="NaN"):
        adapters.read(resized, saved=True)
    wrapped = shutil.copytree(utility, tmp_path / "wrapped")
    weights = load_file(wrapped / "adapter_model.safetensors")
    weights[key.replace("lm_head.", "lm_head.modules_to_save.default.")] = weights.pop(key)
    save_file(weights, wrapped / "adapter_model.safetensors")
    assert list(adapters.read(wrapped, saved=True).saved) == ["lm_head.weight"]


def test_vllm_and_few_bits_are_refused_before_anything_runs(untied):
    workspace, base, utility, _ = untied
    entry = catalog.entry(utility, workspace, suite="facts")
    for options in (preflight.Options(backend="vllm"), preflight.Options(bits=8)):
        with pytest.raises(RecipeError, match="trained whole"):
            preflight._kept(
                catalog.base_at(base, workspace),
                (entry,),
                options.__class__(backend=options.backend, bits=options.bits, modules_to_save="utility"),
            )


def test_a_recipe_that_merges_what_is_no_matrix_is_refused_in_words_without_a_check_before(case, tmp_path):
    workspace, _, utility, _ = case
    if "norm" not in saved.modules(utility):
        return
    unchecked = recipe(*case).model_copy(update={"modules_to_save": "dense"})
    with pytest.raises(AdapterError, match="is no weight matrix"):
        execute.merge_to(unchecked, workspace, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_a_whole_weight_that_its_format_cannot_hold_is_refused(untied, tmp_path):
    workspace, base, utility, safety = untied
    loud = shutil.copytree(utility, tmp_path / "loud")
    weights = load_file(loud / "adapter_model.safetensors")
    weights = {key: one if "lora_" in key else one * 1e6 for key, one in weights.items()}
    save_file(weights, loud / "adapter_model.safetensors", metadata={"format": "pt"})
    found = recipe(workspace, base, loud, safety, "dense")
    with pytest.raises(AdapterError, match="not finite in float16"):
        execute.merge_to(found, workspace, tmp_path / "out", output=Output(dtype="float16"), device="cpu")
    assert not (tmp_path / "out").exists()


def test_the_factors_of_a_pair_are_compared_whatever_becomes_of_what_was_trained_whole(untied):
    workspace, _, utility, safety = untied
    sources = {side: catalog.entry(path, workspace).source for side, path in (("utility", utility), ("safety", safety))}
    pair = execute.inspect(sources, workspace)
    assert (workspace.pairs / pair / "events.jsonl").is_file()
