"""Experts and multimodal names where they are odd: settings, names that meet, families that are not known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sstmerge_core import adapters
from sstmerge_core.adapters.check import EXPERTS_KNOWN
from sstmerge_core.adapters.names import canonical
from sstmerge_core.errors import AdapterError, DataError
from sstmerge_core.models.resident import ResidentModel
from tests import architectures


@pytest.fixture(scope="module")
def mixture(tmp_path_factory) -> Path:
    return architectures.build("mixtral", tmp_path_factory.mktemp("mixture") / "base")


@pytest.fixture(scope="module")
def seeing(tmp_path_factory) -> Path:
    return architectures.build("gemma3", tmp_path_factory.mktemp("seeing") / "base")


def changed(folder: Path, **settings: object) -> Path:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


@pytest.mark.parametrize(
    ("name", "one"),
    [
        ("language_model.model.layers.0.mlp.up_proj", "model.layers.0.mlp.up_proj"),
        ("model.language_model.layers.0.mlp.up_proj", "model.layers.0.mlp.up_proj"),
        ("model.layers.0.mlp.up_proj", "model.layers.0.mlp.up_proj"),
        ("language_model.lm_head", "lm_head"),
        ("vision_tower.vision_model.encoder.layers.0.mlp.fc1", "vision_tower.encoder.layers.0.mlp.fc1"),
        ("model.vision_tower.encoder.layers.0.mlp.fc1", "vision_tower.encoder.layers.0.mlp.fc1"),
        ("model.layers.1.block_sparse_moe.experts.7.w3", "model.layers.1.mlp.experts.7.up_proj"),
        ("model.layers.1.block_sparse_moe.gate", "model.layers.1.mlp.gate"),
        ("transformer.h.0.attn.c_attn", "transformer.h.0.attn.c_attn"),
        ("my.language_model.model.layers.0.mlp.up_proj", "my.language_model.model.layers.0.mlp.up_proj"),
    ],
)
def test_a_module_has_one_name_whatever_age_its_file_has(name, one):
    assert canonical(name) == one


def test_patterns_of_ranks_are_matched_with_the_names_that_the_file_has(seeing, tmp_path):
    folder, _ = architectures.adapter("gemma3", "LoRA", seeing, tmp_path / "a", 1)
    module = "model.language_model.layers.0.self_attn.q_proj"
    tensors = load_file(folder / "adapter_model.safetensors")
    stem = f"base_model.model.{module}.lora_"
    tensors[f"{stem}A.weight"] = tensors[f"{stem}A.weight"][:2].contiguous()
    tensors[f"{stem}B.weight"] = tensors[f"{stem}B.weight"][:, :2].contiguous()
    save_file(tensors, folder / "adapter_model.safetensors")
    changed(folder, rank_pattern={module: 2}, alpha_pattern={module: 32})
    assert adapters.read(folder).modules["model.layers.0.self_attn.q_proj"].scaling == 16.0


def test_two_names_of_one_module_are_refused(seeing, tmp_path):
    folder, _ = architectures.adapter("gemma3", "LoRA", seeing, tmp_path / "a", 1)
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    old = {key.replace("model.language_model.", "language_model.model.") for key in tensors if "q_proj" in key}
    tensors |= {key: tensors[key.replace("language_model.model.", "model.language_model.")].clone() for key in old}
    save_file(tensors, path)
    with pytest.raises(AdapterError, match="two names are one module"):
        adapters.read(folder)


def test_a_base_with_two_weights_for_one_module_is_refused(seeing, tmp_path):
    import shutil

    base = shutil.copytree(seeing, tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    key = next(key for key in tensors if "layers.0.self_attn.q_proj" in key and "language" in key)
    tensors["model.layers.0.self_attn.q_proj.weight"] = tensors[key].clone()
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="two weights are one module"):
        adapters.read_base(base)


def test_a_parameter_that_is_no_known_stack_is_refused_by_name(mixture, tmp_path):
    folder, _ = architectures.adapter("mixtral", "experts as stacks", mixture, tmp_path / "a", 1)
    changed(folder, target_parameters=["experts.gate_up_proj", "experts.odd_proj"])
    with pytest.raises(AdapterError, match="parameters that are not known here") as error:
        adapters.read(folder)
    assert len(error.value.problems) == 1


def test_a_stack_whose_factors_do_not_fit_the_rank_is_refused_by_name(mixture, tmp_path):
    folder, _ = architectures.adapter("mixtral", "experts as stacks", mixture, tmp_path / "a", 1)
    changed(folder, rank_pattern={"experts.gate_up_proj": 5, "experts.down_proj": 2})
    with pytest.raises(AdapterError, match="no multiple of r") as error:
        adapters.read(folder)
    assert len(error.value.problems) == 1


def test_experts_one_by_one_of_a_family_that_is_not_known_are_refused_by_its_class(mixture, tmp_path):
    import shutil

    folder, _ = architectures.adapter("mixtral", "experts one by one", mixture, tmp_path / "a", 1)
    base = shutil.copytree(mixture, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    named = {"model_type": "another_moe", "architectures": ["AnotherMoeForCausalLM"]}
    (base / "config.json").write_text(json.dumps(config | named))
    report = adapters.check_many(base, {"utility": folder})
    assert len(report.problems) == 1 and "AnotherMoeForCausalLM" in report.problems[0].fault


def test_the_families_whose_experts_are_known_are_those_of_the_installed_transformers():
    from transformers.conversion_mapping import _MODEL_TO_CONVERSION_PATTERN

    of_it = {name for name, like in _MODEL_TO_CONVERSION_PATTERN.items() if like in ("mixtral", "qwen2_moe")}
    unknown = EXPERTS_KNOWN - of_it - {"mixtral", "qwen2_moe"}
    assert not unknown


def test_old_and_new_adapters_of_experts_merge_into_one(mixture, tmp_path):
    old, _ = architectures.adapter("mixtral", "experts one by one", mixture, tmp_path / "old", 1)
    new, _ = architectures.adapter("mixtral", "experts as stacks", mixture, tmp_path / "new", 2)
    report = adapters.check_many(mixture, {"utility": old, "safety": new})
    assert report.compatible
    shared = set(adapters.read(old).modules) & set(adapters.read(new).modules)
    assert {name for name in shared if ".experts." in name} == {
        f"model.layers.{layer}.mlp.experts.{expert}.{part}"
        for layer in range(2)
        for expert in range(3)
        for part in ("gate_up_proj", "down_proj")
    }


def test_a_side_path_beside_an_expert_is_what_its_moved_weight_gives(mixture, tmp_path):
    from sstmerge_core.fitting.side_path import side_path
    from sstmerge_core.space import core_space

    folder, wanted = architectures.adapter("mixtral", "experts as stacks", mixture, tmp_path / "a", 1)
    factors = adapters.read(folder).load()
    space = core_space([factors])
    cores = {
        name: own.q_out.T @ (factors[name].scaling * factors[name].b @ factors[name].a) @ own.q_in
        for name, own in space.items()
    }
    resident = ResidentModel.load(mixture, "float32", "cpu")
    plain = resident.model(torch.tensor(architectures.IDS)).logits
    with side_path(resident.model, space, cores):
        torch.testing.assert_close(resident.model(torch.tensor(architectures.IDS)).logits, wanted, atol=1e-4, rtol=1e-4)
    assert torch.equal(resident.model(torch.tensor(architectures.IDS)).logits, plain)


def test_columns_of_the_playground_each_have_their_own_experts(mixture, tmp_path):
    from sstmerge_core.playground.model import Patch

    folder, wanted = architectures.adapter("mixtral", "experts as stacks", mixture, tmp_path / "a", 1)
    factors = adapters.read(folder).load()
    resident = ResidentModel.load(mixture, "float32", "cpu")
    ids = torch.tensor(architectures.IDS)
    plain = resident.model(ids).logits
    patch = Patch.of([factors], torch.tensor([[0.0], [1.0]]), torch.float32)
    with patch.applied(resident.modules):
        both = resident.model(ids.repeat(2, 1)).logits
    torch.testing.assert_close(both, torch.cat([plain, wanted]), atol=1e-4, rtol=1e-4)
