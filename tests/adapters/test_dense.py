from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sstmerge_core import workspace
from sstmerge_core.adapters import dense
from sstmerge_core.adapters.dense import write_model
from sstmerge_core.errors import AdapterError, DataError
from sstmerge_core.models.resident import ResidentModel
from tests.processes import died
from tests.tiny_models import build_tokenizer

IDS = torch.tensor([[2, 7, 9, 30, 41, 8]])


@pytest.fixture(scope="module")
def tiny_gpt2(tmp_path_factory) -> Path:
    """A random GPT-2 saved without its head, as the well-known checkpoints are: no key has the body's prefix."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("models") / "tiny-gpt2"
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=95, n_embd=32, n_layer=1, n_head=4, n_positions=64, eos_token_id=1, bos_token_id=2)
    model = GPT2LMHeadModel(config)
    model.save_pretrained(folder)
    model.transformer.save_pretrained(folder / "body")
    shutil.copy(folder / "body" / "model.safetensors", folder / "model.safetensors")
    shutil.rmtree(folder / "body")
    build_tokenizer(folder)
    return folder


def in_dtype(base: Path, folder: Path, dtype: torch.dtype) -> Path:
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(base, dtype=dtype).save_pretrained(folder)
    build_tokenizer(folder)
    return folder


def random_deltas(base: Path, names: list[str], scale: float = 0.05) -> dict:
    """Closures that make the same random ΔW each time they are called, as those of a merge do."""
    model = ResidentModel.load(base, device="cpu").model

    def make(seed: int, shape: tuple[int, int]):
        return lambda: scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    shapes = {name: tuple(model.get_submodule(name).weight.shape) for name in names}
    conv = {name for name in names if type(model.get_submodule(name)).__name__ == "Conv1D"}
    return {name: make(i, shapes[name][::-1] if name in conv else shapes[name]) for i, name in enumerate(names)}


def logits(folder: Path, dtype: str = "auto") -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)(IDS).logits


def resident_logits(base: Path, deltas: dict, dtype: str) -> torch.Tensor:
    resident = ResidentModel.load(base, dtype, "cpu")
    resident.set_delta(deltas)
    return resident.model(IDS).logits


LLAMA = ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj", "model.layers.1.self_attn.v_proj"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_written_model_has_the_logits_of_the_model_in_memory(tiny_base, tmp_path, dtype):
    base = in_dtype(tiny_base, tmp_path / "base", getattr(torch, dtype))
    deltas = random_deltas(base, LLAMA)
    written = write_model(base, deltas, tmp_path / "out")
    assert torch.equal(logits(tmp_path / "out"), resident_logits(base, deltas, dtype))
    assert not torch.equal(logits(tmp_path / "out"), logits(base))
    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()} == {
        getattr(torch, dtype)
    }
    said = {row["module"]: row["value"] for row in written.weights.statistics}
    assert set(said) == ({*LLAMA, ""} if dtype == "bfloat16" else set())
    if said:
        kept, new = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "out"))
        for name in LLAMA:
            delta = deltas[name]()
            lost = (kept[f"{name}.weight"].float() + delta) - new[f"{name}.weight"].float()
            assert said[name] == pytest.approx(float(lost.norm() / delta.norm()), rel=1e-4) and said[name] > 0


def test_conv1d_weights_and_keys_without_prefix_are_moved_the_right_way_round(tiny_gpt2, tmp_path):
    names = ["transformer.h.0.attn.c_attn", "transformer.h.0.attn.c_proj", "transformer.h.0.mlp.c_fc"]
    deltas = random_deltas(tiny_gpt2, names)
    write_model(tiny_gpt2, deltas, tmp_path / "out")
    assert torch.equal(logits(tmp_path / "out"), resident_logits(tiny_gpt2, deltas, "float32"))


def test_tokenizer_template_and_configuration_travel_and_the_place_of_the_base_does_not(tiny_base, tmp_path):
    from transformers import AutoTokenizer

    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"_name_or_path": "/home/someone/model"}))
    (base / "LICENSE").write_text("terms")
    (base / "modeling_evil.py").write_text("raise SystemExit")
    write_model(base, random_deltas(base, LLAMA), tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"generation_config.json", "LICENSE", "sstmerge.json"} <= names and "modeling_evil.py" not in names
    assert "someone" not in (tmp_path / "out" / "config.json").read_text()


def test_another_format_is_written_and_said_in_the_configuration(tiny_base, tmp_path):
    deltas = random_deltas(tiny_base, LLAMA)
    written = write_model(tiny_base, deltas, tmp_path / "out", dtype="bfloat16")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    assert logits(tmp_path / "out").dtype == torch.bfloat16
    assert written.weights.statistics[-1]["module"] == "" and 0 < written.weights.statistics[-1]["value"] < 0.2


def test_shards_hold_every_tensor_once_and_load_as_one_model(tiny_base, tmp_path):
    deltas = random_deltas(tiny_base, LLAMA)
    written = write_model(tiny_base, deltas, tmp_path / "out", shard_bytes=20_000)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert len(written.weights.files) > 3 and set(index["weight_map"].values()) == set(written.weights.files)
    held = {name for file in written.weights.files for name in load_file(tmp_path / "out" / file)}
    assert held == set(index["weight_map"]) == set(load_file(tiny_base / "model.safetensors"))
    assert torch.equal(logits(tmp_path / "out"), resident_logits(tiny_base, deltas, "float32"))
    again = write_model(tmp_path / "out", deltas, tmp_path / "twice")  # a sharded base is read by its index
    assert list(again.weights.files) == ["model.safetensors"]


def test_tied_embeddings_stay_tied_until_a_delta_moves_one_of_them(tiny_base, tmp_path):
    write_model(tiny_base, random_deltas(tiny_base, LLAMA), tmp_path / "tied")
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / "model.safetensors")
    moved = 0.1 * torch.randn(32, 95, generator=torch.Generator().manual_seed(3))
    before = load_file(tiny_base / "model.safetensors")["model.embed_tokens.weight"]
    write_model(tiny_base, {"model.embed_tokens": moved.clone}, tmp_path / "apart")
    after = load_file(tmp_path / "apart" / "model.safetensors")
    assert torch.equal(after["model.embed_tokens.weight"], before + moved.T)
    assert torch.equal(after["lm_head.weight"], before)
    assert json.loads((tmp_path / "apart" / "config.json").read_text())["tie_word_embeddings"] is False
    head = 0.1 * torch.randn(95, 32, generator=torch.Generator().manual_seed(4))
    write_model(tiny_base, {"lm_head": head.clone}, tmp_path / "head")
    after = load_file(tmp_path / "head" / "model.safetensors")
    assert torch.equal(after["lm_head.weight"], before + head)
    assert torch.equal(after["model.embed_tokens.weight"], before)
    assert not torch.equal(logits(tmp_path / "head"), logits(tiny_base))


def test_a_quantized_base_is_refused(tiny_base, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "bitsandbytes"}}))
    with pytest.raises(DataError, match="quantized"):
        write_model(base, {}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("deltas", "message"),
    [
        ({"model.layers.9.mlp.up_proj": lambda: torch.zeros(48, 32)}, "no floating-point weight of 1 modules"),
        ({LLAMA[0]: lambda: torch.zeros(32, 31)}, "has shape"),
        ({LLAMA[0]: lambda: torch.full((32, 32), float("inf"))}, "not finite"),
    ],
)
def test_what_does_not_fit_the_base_is_refused_and_leaves_nothing(tiny_base, tmp_path, deltas, message):
    with pytest.raises(AdapterError, match=message):
        write_model(tiny_base, deltas, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_the_middle_leaves_nothing_and_an_older_model_untouched(tiny_base, tmp_path):
    deltas = random_deltas(tiny_base, LLAMA)
    write_model(tiny_base, deltas, tmp_path / "out")
    before = (tmp_path / "out" / "model.safetensors").read_bytes()

    def broken():
        raise MemoryError

    with pytest.raises(MemoryError):
        write_model(tiny_base, deltas | {LLAMA[2]: broken}, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_disk_too_small_is_noticed_before_anything_is_written(tiny_base, tmp_path, monkeypatch):
    monkeypatch.setattr(dense.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(DataError, match="GB free"):
        write_model(tiny_base, {}, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys, torch
from sstmerge_core.adapters.dense import write_model

def die():
    os.kill(os.getpid(), signal.SIGKILL)

write_model(sys.argv[1], {sys.argv[3]: die}, sys.argv[2])
"""


def test_a_kill_in_the_middle_leaves_no_model_and_the_next_try_clears_what_it_left(tiny_base, tmp_path, monkeypatch):
    assert died(KILLED, str(tiny_base), str(tmp_path / "out"), LLAMA[0]) == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert [name.startswith(".out.partial-") for name in os.listdir(tmp_path)] == [True]
    monkeypatch.setattr(workspace, "_YOUNG_SECONDS", 0.0)
    write_model(tiny_base, {}, tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]


def test_the_temporary_folder_of_a_writer_at_work_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(workspace, "_YOUNG_SECONDS", 0.0)
    with workspace.new_folder(tmp_path / "out") as first:
        (first / "mine").write_text("1")
        with workspace.new_folder(tmp_path / "out") as second:
            (second / "mine").write_text("2")
            assert (first / "mine").exists()
        assert (first / "mine").exists()
    assert (tmp_path / "out" / "mine").read_text() == "1"
