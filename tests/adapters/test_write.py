from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import load_file

from sstmerge_core.adapters import read
from sstmerge_core.adapters.fingerprint import file_sha256
from sstmerge_core.adapters.safetensors_header import read_header
from sstmerge_core.adapters.safetensors_writer import layout, write_tensors
from sstmerge_core.adapters.weighted import weighted_sum
from sstmerge_core.adapters.write import Lazy, write_adapter
from sstmerge_core.errors import AdapterError, DataError, RecipeError
from tests.tiny_models import build_tokenizer

DTYPES = {"float32": 0.0, "bfloat16": 4e-3, "float16": 5e-4}
"""Relative error that rounding to the format may cost"""


@pytest.fixture(scope="module")
def tiny_gpt2(tmp_path_factory):
    """A random one-layer GPT-2: Conv1D weights, some of them square."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("models") / "tiny-gpt2"
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=95, n_embd=32, n_layer=1, n_head=4, n_positions=64, eos_token_id=1, bos_token_id=2)
    GPT2LMHeadModel(config).save_pretrained(folder)
    build_tokenizer(folder)
    return folder


def random_pair(rank: int, width: int, height: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rank, width, generator=generator), torch.randn(height, rank, generator=generator)


def reloaded(base, folder):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(folder)).base_model.model


def distance(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first.double() - second.double()).norm() / second.double().norm())


@pytest.mark.parametrize("dtype", DTYPES)
def test_peft_reads_back_the_same_update_in_every_format_and_the_rounding_is_what_was_said(dtype, tiny_base, tmp_path):
    shapes = {"model.layers.0.self_attn.q_proj": (32, 32), "model.layers.1.mlp.down_proj": (48, 32)}
    factors = {name: random_pair(5, *shape, seed) for seed, (name, shape) in enumerate(shapes.items())}
    written = write_adapter(factors, tmp_path / "out", base_name=tiny_base.name, dtype=dtype)
    model = reloaded(tiny_base, tmp_path / "out")
    said = {row["module"]: row["value"] for row in written.weights.statistics}
    lost = total = 0.0
    for name, (a, b) in factors.items():
        delta, loaded = b.double() @ a.double(), model.get_submodule(name).get_delta_weight("default")
        error = distance(loaded, delta)
        assert error <= DTYPES[dtype] + 1e-6
        if dtype != "float32":
            assert said[name] == pytest.approx(error, rel=1e-2) and error > DTYPES[dtype] / 20
        lost, total = lost + (loaded - delta).norm().item() ** 2, total + delta.norm().item() ** 2
    assert (dtype == "float32") == (said == {})
    if said:
        assert said[""] == pytest.approx((lost / total) ** 0.5, rel=1e-2)
    assert {tensor.dtype for tensor in read_header(tmp_path / "out" / "adapter_model.safetensors").values()} == {
        {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}[dtype]
    }


def test_an_embedding_is_written_under_pefts_own_keys_and_reloads_to_the_same_update(tiny_base, tmp_path):
    name = "model.embed_tokens"
    factors = {name: random_pair(3, 95, 32, 1), "model.layers.0.mlp.up_proj": random_pair(3, 32, 48, 2)}
    write_adapter(factors, tmp_path / "out", base_name=tiny_base.name, embeddings={name})
    keys = read_header(tmp_path / "out" / "adapter_model.safetensors")
    assert keys[f"base_model.model.{name}.lora_embedding_A"].shape == (3, 95)
    assert keys[f"base_model.model.{name}.lora_embedding_B"].shape == (32, 3)
    model = reloaded(tiny_base, tmp_path / "out")
    a, b = factors[name]
    assert distance(model.get_submodule(name).get_delta_weight("default"), (b @ a).T) <= 1e-6
    a, b = factors["model.layers.0.mlp.up_proj"]
    assert distance(model.get_submodule("model.layers.0.mlp.up_proj").get_delta_weight("default"), b @ a) <= 1e-6


def test_an_adapter_for_conv1d_says_so_and_reloads_to_the_same_update(tiny_gpt2, tmp_path):
    shapes = {"transformer.h.0.attn.c_attn": (32, 96), "transformer.h.0.attn.c_proj": (32, 32)}
    factors = {name: random_pair(4, *shape, seed) for seed, (name, shape) in enumerate(shapes.items())}
    write_adapter(factors, tmp_path / "out", base_name=tiny_gpt2.name, fan_in_fan_out=True)
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["fan_in_fan_out"] is True
    model = reloaded(tiny_gpt2, tmp_path / "out")
    for name, (a, b) in factors.items():
        assert distance(model.get_submodule(name).get_delta_weight("default"), (b @ a).T) <= 1e-6


def test_auto_keeps_the_format_of_the_factors_and_an_unknown_format_is_refused(tmp_path):
    a, b = random_pair(2, 6, 5, 1)
    pair = (a.bfloat16(), b.bfloat16())
    written = write_adapter({"m": pair}, tmp_path / "out", base_name="b", dtype="auto")
    assert written.weights.dtype == "bfloat16"
    assert [row["value"] for row in written.weights.statistics] == [0.0, 0.0]
    mixed = {"m": pair, "n": random_pair(2, 6, 5, 2)}
    assert write_adapter(mixed, tmp_path / "out", base_name="b", dtype="auto").weights.dtype == "float32"
    with pytest.raises(RecipeError, match="cannot be written"):
        write_adapter({"m": pair}, tmp_path / "out", base_name="b", dtype="int8")


@pytest.mark.parametrize(("value", "dtype", "fix"), [(1e6, "float16", "bfloat16"), (float("nan"), "float32", "Check")])
def test_values_that_do_not_fit_the_format_are_refused_and_leave_nothing(tmp_path, value, dtype, fix):
    a, b = random_pair(2, 6, 5, 1)
    b[4, 1] = value
    with pytest.raises(AdapterError, match="not finite") as caught:
        write_adapter({"good": random_pair(2, 6, 5, 3), "m": (a, b)}, tmp_path / "out", base_name="b", dtype=dtype)
    assert fix in str(caught.value) and list(tmp_path.iterdir()) == []


def test_a_disk_that_changes_a_byte_is_noticed(tmp_path, monkeypatch):
    from sstmerge_core.adapters import safetensors_writer

    def careless(descriptor, data, offset):
        changed = bytearray(data)
        changed[-1] ^= len(changed) == 5 * 3 * 4  # the one B of rank 3
        return pwrite(descriptor, changed, offset)

    pwrite = os.pwrite
    monkeypatch.setattr(safetensors_writer.os, "pwrite", careless)
    pairs = {"first": random_pair(2, 6, 5, 1), "second": random_pair(3, 6, 5, 2), "third": random_pair(2, 6, 5, 3)}
    with pytest.raises(DataError, match=r"second.lora_B.weight: was not written faithfully"):
        write_adapter(pairs, tmp_path / "out", base_name="b")
    assert list(tmp_path.iterdir()) == []


def test_what_is_streamed_to_a_file_is_what_safetensors_reads(tmp_path):
    tensors = {
        "odd": torch.arange(3, dtype=torch.uint8),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "empty": torch.zeros(0, 4),
        "turned": torch.randn(4, 6).T,
        "half": torch.randn(5).bfloat16(),
        "flags": torch.tensor([True, False]),
        "whole": torch.tensor([[1, -2]], dtype=torch.int64),
    }
    codes = {"odd": "U8", "scalar": "F64", "empty": "F32", "turned": "F32", "half": "BF16", "flags": "BOOL"}
    plan = layout({name: ((codes | {"whole": "I64"})[name], tuple(one.shape)) for name, one in tensors.items()})
    sha256 = write_tensors(tmp_path / "x.safetensors", plan, (tensors[name] for name in plan.tensors))
    assert file_sha256(tmp_path / "x.safetensors") == sha256
    loaded = load_file(tmp_path / "x.safetensors")
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    with pytest.raises(ValueError, match="not F32"):
        write_tensors(tmp_path / "y.safetensors", layout({"x": ("F32", (2,))}), [torch.zeros(3)])


def test_a_streamed_weighted_sum_is_the_dense_weighted_sum(tiny_base, tiny_pair, tmp_path):
    pair = [read(path) for path in tiny_pair]
    lazy = weighted_sum(pair, (0.7, -1.3))
    loaded = [adapter.load() for adapter in pair]
    assert all(isinstance(one, Lazy) and one.rank == 7 for one in lazy.values())
    write_adapter(lazy, tmp_path / "out", base_name=tiny_base.name)
    merged = read(tmp_path / "out").load()
    assert len(merged) == 14
    for name, factors in merged.items():
        parts = [
            weight * one[name].scaling * one[name].b.double() @ one[name].a.double()
            for weight, one in zip((0.7, -1.3), loaded, strict=True)
            if name in one
        ]
        assert distance(factors.b @ factors.a, torch.stack(parts).sum(0)) <= 1e-6


def test_texts_beside_the_weights_are_made_from_what_was_written(tmp_path):
    def describe(weights):
        return {"README.md": f"{weights.files['adapter_model.safetensors']} {weights.dtype}"}

    written = write_adapter({"m": random_pair(2, 6, 5, 1)}, tmp_path / "out", base_name="b", describe=describe)
    file = tmp_path / "out" / "adapter_model.safetensors"
    assert (tmp_path / "out" / "README.md").read_text() == f"{file_sha256(file)} float32"
    assert written.weights.files == {file.name: file_sha256(file)}
