"""A LoRA that stands for an adapter of another kind: the logits are those of the adapter in PEFT."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sstmerge_core import adapters
from sstmerge_core.adapters.convert import convert
from sstmerge_core.cli import main
from sstmerge_core.errors import AdapterError, RecipeError
from tests.architectures import OTHERS, settings
from tests.tiny_models import build_base

IDS = torch.tensor([[2, 3, 10, 11, 12, 40, 1], [2, 7, 7, 9, 94, 4, 5]])
TARGETS = ["q_proj", "down_proj"]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return build_base("llama", tmp_path_factory.mktemp("base") / "llama", tie_word_embeddings=True)


def trained(base: Path, folder: Path, config) -> torch.Tensor:
    """An adapter moved in all its parameters from where PEFT begins, saved; its logits."""
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
        found = model.eval()(IDS).logits
    model.save_pretrained(folder)
    return found


def in_peft(base: Path, folder: Path) -> torch.Tensor:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(folder)).eval()(IDS).logits


@pytest.mark.parametrize("kind", OTHERS)
def test_the_lora_computes_what_the_adapter_computes(kind, base, tmp_path):
    logits = trained(base, tmp_path / "A", settings(kind))
    with pytest.raises(AdapterError, match="sstmerge adapters convert"):
        adapters.read(tmp_path / "A")
    made = convert(tmp_path / "A", base, tmp_path / "L")
    assert made.rank_error < 1e-5
    assert adapters.check_many(base, {"utility": tmp_path / "L"}).compatible
    torch.testing.assert_close(in_peft(base, tmp_path / "L"), logits, atol=2e-6, rtol=1e-5)


def test_of_a_lower_rank_the_stated_error_is_that_of_the_update(base, tmp_path):
    logits = trained(base, tmp_path / "A", settings("OFT"))
    exact, small = convert(tmp_path / "A", base, tmp_path / "X"), convert(tmp_path / "A", base, tmp_path / "S", rank=5)
    assert small.adapter.rank == 5 < exact.adapter.rank
    whole, part = exact.adapter.load(), small.adapter.load()
    deltas = {name: one.scaling * one.b @ one.a for name, one in whole.items()}
    left = {name: deltas[name] - part[name].scaling * part[name].b @ part[name].a for name in deltas}
    error = sum(float(one.norm() ** 2) for one in left.values()) / sum(
        float(one.norm() ** 2) for one in deltas.values()
    )
    assert small.rank_error == pytest.approx(error**0.5, rel=1e-4) and small.rank_error > 0.01
    assert float((in_peft(base, tmp_path / "S") - logits).abs().max()) > 1e-4
    with pytest.raises(RecipeError, match="is no rank"):
        convert(tmp_path / "A", base, tmp_path / "N", rank=-1)


@pytest.mark.parametrize("architecture", ["gpt2", "qwen2"])
def test_other_layouts_and_biases_of_the_base_are_no_obstacle(architecture, tmp_path):
    import peft

    base = build_base(architecture, tmp_path / architecture)
    targets = {"gpt2": ["c_attn", "c_fc"], "qwen2": ["q_proj", "up_proj"]}[architecture]
    config = peft.LoraConfig(r=2, use_dora=True, target_modules=targets, task_type="CAUSAL_LM")
    logits = trained(base, tmp_path / "A", config)
    convert(tmp_path / "A", base, tmp_path / "L")
    torch.testing.assert_close(in_peft(base, tmp_path / "L"), logits, atol=2e-6, rtol=1e-5)


def test_what_no_lora_stands_for_is_refused_in_one_line_and_leaves_nothing(base, tmp_path):
    import peft

    own: dict[str, Any] = {"task_type": "CAUSAL_LM", "target_modules": TARGETS}
    qwen = build_base("qwen2", tmp_path / "qwen2")
    for number, (on, config, said) in enumerate(
        (
            (base, peft.PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"), "PROMPT_TUNING"),
            (base, peft.LNTuningConfig(target_modules=["input_layernorm"], task_type="CAUSAL_LM"), "LN_TUNING"),
            (base, peft.LoraConfig(lora_bias=True, **own), "lora_bias"),
            (qwen, peft.LoraConfig(bias="all", **own), "which is no matrix of a module"),
        )
    ):
        folder = tmp_path / f"A{number}"
        if on == base and said == "PROMPT_TUNING":
            from peft import get_peft_model
            from transformers import AutoModelForCausalLM

            get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
        else:
            trained(on, folder, config)
        with pytest.raises(AdapterError, match=said) as caught:
            convert(folder, on, tmp_path / "L")
        (problem,) = caught.value.problems
        assert problem.fix and "\n" not in str(problem) and not (tmp_path / "L").exists()


def test_an_adapter_of_another_base_is_not_converted_half(base, tmp_path):
    other = build_base("llama", tmp_path / "other", num_hidden_layers=3)
    trained(other, tmp_path / "A", settings("LoHa"))
    with pytest.raises(AdapterError, match="finds no place for|cannot put it on"):
        convert(tmp_path / "A", base, tmp_path / "L")


def test_a_pattern_that_would_hang_peft_does_not(base, tmp_path):
    trained(base, tmp_path / "A", settings("LoHa"))
    path = tmp_path / "A" / "adapter_config.json"
    config = json.loads(path.read_text())
    for changes in (
        {"target_modules": "((.|[a-z])+)+!"},
        {"target_modules": r"(.+)+\1!"},
        {"rank_pattern": {"((.|a)+)+!": 3}},
    ):
        path.write_text(json.dumps(config | changes))
        if "rank_pattern" in changes:
            assert convert(tmp_path / "A", base, tmp_path / "L").rank_error < 1e-5
        else:
            with pytest.raises(AdapterError):
                convert(tmp_path / "A", base, tmp_path / "L")


@pytest.fixture
def plain(base, tmp_path) -> Path:
    import peft

    trained(base, tmp_path / "plain", peft.LoraConfig(r=3, lora_alpha=7, target_modules=TARGETS, task_type="CAUSAL_LM"))
    return tmp_path / "plain"


def same(one: Path, other: Path) -> bool:
    found, expected = adapters.read(one).load(), adapters.read(other).load()
    return set(found) == set(expected) and all(
        torch.equal(found[name].a, expected[name].a)
        and torch.equal(found[name].b, expected[name].b)
        and found[name].scaling == pytest.approx(expected[name].scaling, rel=1e-12)
        for name in expected
    )


def test_pickled_weights_become_safetensors_bit_for_bit(base, plain, tmp_path):
    folder = shutil.copytree(plain, tmp_path / "bin")
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    assert convert(folder, base, tmp_path / "L").rank_error == 0.0
    assert same(tmp_path / "L", plain)


class Evil:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("content", ["code", "list", "noise", "model"])
def test_a_pickle_of_anything_else_is_refused_and_runs_nothing(content, base, plain, tmp_path):
    folder = shutil.copytree(plain, tmp_path / "bin")
    (folder / "adapter_model.safetensors").unlink()
    target = folder / "adapter_model.bin"
    if content == "code":
        torch.save({"a": Evil(tmp_path / "ran")}, target)
    elif content == "list":
        torch.save([torch.zeros(2)], target)
    elif content == "noise":
        target.write_bytes(b"\x80\x04nonsense")
    else:
        target.write_bytes(pickle.dumps({"a": Evil(tmp_path / "ran")}))
    with pytest.raises(AdapterError, match="is no pickle of tensors alone") as caught:
        convert(folder, base, tmp_path / "L")
    assert "\n" not in str(caught.value.problems[0])
    assert not (tmp_path / "ran").exists() and not (tmp_path / "L").exists()


def test_mlx_and_kohya_are_renamed_and_turned_without_a_loss(base, plain, tmp_path):
    stored = load_file(plain / "adapter_model.safetensors")
    modules = {key.removeprefix("base_model.model.").rpartition(".lora_")[0] for key in stored}
    pair = {name: [stored[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB"] for name in modules}
    mlx = tmp_path / "mlx"
    mlx.mkdir()
    turned = {f"{name}.lora_a": a.T.contiguous() for name, (a, _) in pair.items()}
    turned |= {f"{name}.lora_b": b.T.contiguous() for name, (_, b) in pair.items()}
    save_file(turned, mlx / "adapters.safetensors")
    settings = {"fine_tune_type": "lora", "lora_parameters": {"rank": 3, "scale": 7 / 3, "dropout": 0.0}}
    (mlx / "adapter_config.json").write_text(json.dumps(settings))
    convert(mlx, base, tmp_path / "of-mlx")
    assert same(tmp_path / "of-mlx", plain)
    kohya = {f"lora_te_{name.replace('.', '_')}.lora_down.weight": a for name, (a, _) in pair.items()}
    kohya |= {f"lora_te_{name.replace('.', '_')}.lora_up.weight": b for name, (_, b) in pair.items()}
    kohya |= {f"lora_te_{name.replace('.', '_')}.alpha": torch.tensor(7.0) for name in modules}
    save_file(kohya, tmp_path / "style.safetensors")
    convert(tmp_path / "style.safetensors", base, tmp_path / "of-kohya")
    assert same(tmp_path / "of-kohya", plain)
    save_file({key.replace("layers_0", "layers_9"): one for key, one in kohya.items()}, tmp_path / "other.safetensors")
    with pytest.raises(AdapterError, match="a module that the base does not have"):
        convert(tmp_path / "other.safetensors", base, tmp_path / "L")
    (mlx / "adapter_config.json").write_text(json.dumps(settings | {"fine_tune_type": "dora"}))
    with pytest.raises(AdapterError, match="no LoRA of MLX with a scale: fine_tune_type dora"):
        convert(mlx, base, tmp_path / "L")


def test_the_command_says_rank_and_error_and_what_it_writes_merges(base, plain, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(tmp_path / "ws"))
    trained(base, tmp_path / "A", settings("LoKr"))
    command = ["adapters", "convert", str(tmp_path / "A"), "--base", str(base), "--out", str(tmp_path / "L")]
    assert main([*command, "--rank", "2"]) == 0
    assert "LoRA of rank 2 of LOKR, 4 modules, relative error" in capsys.readouterr().out
    merge = ["merge", "--base", str(base), "--utility", str(tmp_path / "L"), "--safety", str(plain)]
    assert main([*merge, "--method", "linear", "--out", str(tmp_path / "M")]) == 0
    assert (
        main(["adapters", "convert", str(tmp_path / "nowhere"), "--base", str(base), "--out", str(tmp_path / "N")]) == 3
    )
    assert capsys.readouterr().err.count("\n") <= 2
