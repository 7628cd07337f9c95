from __future__ import annotations

import json
import logging
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

from sstmerge_core.errors import AdapterError, DataError, RecipeError
from sstmerge_core.evaluate.generate import generate_suite, plan_batches
from sstmerge_core.models.chat import chat_text
from sstmerge_core.models.decoding import greedy
from sstmerge_core.models.resident import ResidentModel, chat_ids, to_answer
from sstmerge_core.suites.rows import Row

MODULE = "model.layers.1.mlp.down_proj"
PROMPTS = [" ".join(f"w{(3 * n + step) % 90}" for step in range(1 + n % 7)) for n in range(12)]
ROWS = [Row(f"p{n}", "t", prompt, "w1") for n, prompt in enumerate(PROMPTS)]


@pytest.fixture(scope="module")
def llama(tiny_base: Path) -> ResidentModel:
    return ResidentModel.load(tiny_base, "float32", "cpu")


@pytest.fixture(scope="module")
def gpt2_base(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-2, whose weights are (in, out), with the tiny tokenizer without its chat template."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("models") / "tiny-gpt2"
    torch.manual_seed(1)
    config = GPT2Config(vocab_size=95, n_embd=32, n_layer=2, n_head=4, n_positions=128, bos_token_id=1, eos_token_id=1)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    return folder


def library_answers(model: ResidentModel, prompts: list[list[int]], limit: int) -> list[list[int]]:
    """What `model.generate` of transformers gives, cut after the first end of sequence."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    eos = sorted(model.eos_ids)
    out = model.model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=limit, do_sample=False, eos_token_id=eos, pad_token_id=0
    )
    answers = []
    for tokens in out[:, width:].tolist():
        end = next((place for place, token in enumerate(tokens) if token in model.eos_ids), limit)
        answers.append(tokens[: end + 1])
    return answers


@pytest.mark.parametrize("base", ["tiny_base", "gpt2_base"])
def test_greedy_gives_the_tokens_of_the_librarys_generate_while_rows_leave_the_batch(
    base: str, request: pytest.FixtureRequest
) -> None:
    model = ResidentModel.load(request.getfixturevalue(base), "float32", "cpu")
    ids = [chat_ids(model.tokenizer, prompt) for prompt in PROMPTS]
    generator = torch.Generator().manual_seed(0)  # away from the initial weights, which only repeat the last token
    noise = {}
    for name, module in model.modules.items():
        if name != "lm_head" and not isinstance(module, torch.nn.Embedding):
            weight = module.weight.T if base == "gpt2_base" else module.weight
            noise[name] = torch.randn(weight.shape, generator=generator)
    model.set_delta({name: partial(noise.__getitem__, name) for name in noise})
    said = greedy(model.model, ids, 16, frozenset())
    model.eos_ids = frozenset({said[0][2], said[1][5], said[2][9]})
    answers = greedy(model.model, ids, 16, model.eos_ids)
    assert answers == library_answers(model, ids, 16)
    assert len({len(answer) for answer in answers}) > 1, "the test must see rows that end early"


def test_prompts_that_are_equal_or_of_one_token_need_no_padding(llama: ResidentModel) -> None:
    assert greedy(llama.model, [[5], [6]], 3, llama.eos_ids) == library_answers(llama, [[5], [6]], 3)
    one, two = greedy(llama.model, [[5, 6, 7], [5, 6, 7]], 3, llama.eos_ids)
    assert one == two == library_answers(llama, [[5, 6, 7]], 3)[0]
    assert greedy(llama.model, [], 3, llama.eos_ids) == []


def test_the_same_batch_gives_the_same_answers_and_eos_is_not_counted(llama: ResidentModel) -> None:
    first = llama.generate(PROMPTS, 6)
    assert first == llama.generate(PROMPTS, 6)
    assert all(answer.n_tokens == 6 and not answer.stopped for answer in first)
    ended = to_answer(llama.tokenizer, llama.eos_ids, [7, 8, 1])
    assert (ended.text, ended.n_tokens, ended.stopped) == ("w2 w3", 2, True)


def test_a_batch_that_does_not_fit_is_halved_and_that_is_said(
    llama: ResidentModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def small_memory(model, prompts, *rest):
        if len(prompts) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return greedy(model, prompts, *rest)

    expected = llama.generate(PROMPTS, 4)
    monkeypatch.setattr("sstmerge_core.models.resident.greedy", small_memory)
    with caplog.at_level(logging.WARNING):
        assert llama.generate(PROMPTS, 4) == expected
    assert "Out of memory with 12 prompts at once; going on with 6." in caplog.text


def test_deltas_are_added_to_the_base_and_none_restores_every_bit(tiny_base: Path) -> None:
    for dtype in ("float32", "bfloat16"):
        model = ResidentModel.load(tiny_base, dtype, "cpu")
        before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
        delta = torch.randn(32, 48, generator=torch.Generator().manual_seed(0))
        exact = ResidentModel.load(tiny_base, "float32", "cpu").modules[MODULE].weight
        for scale in (1.0, 3.0):  # the second does not build on the first
            model.set_delta({MODULE: partial(torch.mul, delta, scale)})
            expected = (exact + scale * delta).to(getattr(torch, dtype))
            assert torch.equal(model.modules[MODULE].weight, expected)
        model.set_delta({"model.layers.0.self_attn.q_proj": lambda: torch.ones(32, 32)})
        assert torch.equal(model.modules[MODULE].weight, before[f"{MODULE}.weight"]), "a module left out is the base"
        model.set_delta(None)
        after = model.model.state_dict()
        assert all(torch.equal(after[name], before[name]) for name in before)


def test_conv1d_takes_deltas_as_out_by_in(gpt2_base: Path) -> None:
    model = ResidentModel.load(gpt2_base, "float32", "cpu")
    assert model.template_kind == "plain"
    name = "transformer.h.0.mlp.c_fc"
    before = model.modules[name].weight.clone()
    delta = torch.randn(128, 32)
    model.set_delta({name: lambda: delta})
    assert torch.equal(model.modules[name].weight, before + delta.T)


def test_a_module_that_is_neither_linear_nor_an_embedding_cannot_be_moved(llama: ResidentModel) -> None:
    with pytest.raises(AdapterError, match=r"no linear module or embedding for 1 modules.*model\.norm is of class"):
        llama.set_delta({"model.norm": lambda: torch.zeros(32, 32)})


def logits(model: ResidentModel) -> torch.Tensor:
    with torch.inference_mode():
        return model.model(torch.tensor([[2, 5, 6, 7]])).logits


def test_tied_embeddings_move_apart_and_come_back_tied(tiny_base: Path) -> None:
    model = ResidentModel.load(tiny_base, "float32", "cpu")
    embedding, head = model.modules["model.embed_tokens"], model.modules["lm_head"]
    shared = head.weight
    assert shared is embedding.weight
    base, before = shared.clone(), logits(model)
    delta = torch.randn(32, 95, generator=torch.Generator().manual_seed(0))
    model.set_delta({"model.embed_tokens": lambda: delta})
    assert torch.equal(embedding.weight, base + delta.T) and torch.equal(head.weight, base)
    moved = logits(model)
    assert not torch.allclose(moved, before, atol=1e-2)
    model.set_delta({"lm_head": lambda: delta.T})
    assert torch.equal(embedding.weight, base) and torch.equal(head.weight, base + delta.T)
    assert not torch.allclose(logits(model), moved, atol=1e-2)
    for scale in (1.0, 2.0):  # the second does not build on the first
        model.set_delta({"lm_head": lambda: delta.T, "model.embed_tokens": partial(torch.mul, delta, scale)})
        assert torch.equal(head.weight, base + delta.T) and torch.equal(embedding.weight, base + scale * delta.T)
    model.set_delta(None)
    assert head.weight is embedding.weight is shared
    assert torch.equal(shared, base) and torch.equal(logits(model), before)


def test_a_moved_embedding_goes_back_when_another_module_fails(tiny_base: Path) -> None:
    model = ResidentModel.load(tiny_base, "float32", "cpu")
    before = logits(model)
    with pytest.raises(AdapterError, match=r"ΔW has shape"):
        model.set_delta({"model.embed_tokens": lambda: torch.ones(32, 95), MODULE: lambda: torch.ones(2, 2)})
    assert model.modules["lm_head"].weight is model.modules["model.embed_tokens"].weight
    assert torch.equal(logits(model), before)


def test_a_delta_of_the_wrong_shape_leaves_the_base(tiny_base: Path) -> None:
    model = ResidentModel.load(tiny_base, "float32", "cpu")
    before = model.model.state_dict()[f"{MODULE}.weight"].clone()
    with pytest.raises(AdapterError, match=r"ΔW has shape \(2, 2\)"):
        model.set_delta({MODULE: lambda: torch.ones(32, 48), "model.layers.0.mlp.down_proj": lambda: torch.ones(2, 2)})
    assert torch.equal(model.modules[MODULE].weight, before)


def test_an_interrupted_suite_goes_on_with_the_same_answers(llama: ResidentModel) -> None:
    plan = plan_batches(ROWS, llama, 5, 8)
    whole = {index: samples for index, _, samples in generate_suite(llama, ROWS, plan, set(), 5)}
    rest = {index: samples for index, _, samples in generate_suite(llama, ROWS, plan, {0, 2}, 5)}
    assert set(whole) == {0, 1, 2}
    assert rest == {1: whole[1]}
    sample = whole[1][0]
    assert set(sample) == {"prompt_id", "topic", "prompt", "response", "reference", "n_tokens", "stopped"}


def test_the_plan_holds_every_prompt_once_in_even_batches_longest_first(llama: ResidentModel) -> None:
    plan = plan_batches(ROWS, llama, 5, 8)
    assert [len(batch) for batch in plan] == [4, 4, 4]
    prompts = {row.prompt_id: row.prompt for row in ROWS}
    lengths = [len(prompts[prompt_id].split()) for batch in plan for prompt_id in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert plan_batches([], llama, 5, 8) == []


def test_batches_are_as_small_as_the_free_memory_makes_them(llama: ResidentModel, monkeypatch) -> None:
    whole = llama.room(100)
    assert whole > len(ROWS)
    monkeypatch.setattr("sstmerge_core.models.resident.free_memory", lambda device: 2 * 3 * 1_000_000)
    fitting = llama.room(100)
    assert 1 <= fitting < whole and llama.room(200) < fitting
    monkeypatch.setattr("sstmerge_core.models.resident.free_memory", lambda device: 1)
    assert [len(batch) for batch in plan_batches(ROWS, llama, 5, 8)] == [1] * len(ROWS)


def test_half_of_the_free_memory_holds_what_the_room_says(llama: ResidentModel, monkeypatch) -> None:
    config = llama.model.config
    width = config.hidden_size // config.num_attention_heads
    keys_and_values = 2 * config.num_hidden_layers * config.num_key_value_heads * width * 4
    monkeypatch.setattr("sstmerge_core.models.resident.free_memory", lambda device: 10**9)
    assert llama.room(100) * 100 * keys_and_values < 10**9 / 2


def test_a_plan_of_other_prompts_is_refused(llama: ResidentModel) -> None:
    with pytest.raises(DataError, match="does not hold exactly the suite's prompts"):
        list(generate_suite(llama, ROWS, [["p0"]], set(), 5))


def test_the_chat_text_does_not_depend_on_the_day(llama: ResidentModel) -> None:
    tokenizer = llama.tokenizer
    template = tokenizer.chat_template
    try:
        tokenizer.chat_template = "{{ date_string or strftime_now('%d %b %Y') }} {{ messages[0].content }}"
        assert chat_text(tokenizer, "w1") == "26 Jul 2024 w1"
    finally:
        tokenizer.chat_template = template


def edited(base: Path, folder: Path, **changes: object) -> Path:
    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_folder_that_cannot_be_used_gives_one_clear_error(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no config\.json"):
        ResidentModel.load(tmp_path)
    pickled = edited(tiny_base, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(DataError, match="has no safetensors weights"):
        ResidentModel.load(pickled)
    truncated = edited(tiny_base, tmp_path / "truncated")
    data = (truncated / "model.safetensors").read_bytes()
    (truncated / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="cannot be loaded"):
        ResidentModel.load(truncated)
    with pytest.raises(DataError, match="weights are missing"):
        ResidentModel.load(edited(tiny_base, tmp_path / "deeper", num_hidden_layers=3))
    with pytest.raises(DataError, match="is quantised"):
        ResidentModel.load(edited(tiny_base, tmp_path / "quantized", quantization_config={"quant_method": "gguf"}))


def test_an_unusable_dtype_or_device_is_refused(tiny_base: Path) -> None:
    with pytest.raises(RecipeError, match="Use one of float32, bfloat16, float16"):
        ResidentModel.load(tiny_base, "int8")
    with pytest.raises(RecipeError, match="is not a device"):
        ResidentModel.load(tiny_base, device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(RecipeError, match="no usable CUDA device"):
            ResidentModel.load(tiny_base, device="cuda")


def test_importing_the_package_imports_no_torch() -> None:
    import subprocess
    import sys

    modules = "judges, metric_rows, generate; from sstmerge_core.models import resident, decoding"
    code = (
        f"import sys; from sstmerge_core.evaluate import {modules}; from sstmerge_core.analysis import front, tax; "
        "from sstmerge_core import metrics, suites; metrics.metrics(); "
        "print([name for name in ('torch', 'transformers', 'rouge_score') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cpu_and_cuda_agree(tiny_base: Path) -> None:
    ids = torch.tensor([[2, 3, 10, 11, 12]])
    delta = torch.randn(32, 48, generator=torch.Generator().manual_seed(0))
    found = []
    for device in ("cpu", "cuda"):
        model = ResidentModel.load(tiny_base, "float32", device)
        for changes in ({MODULE: lambda: delta}, {"model.embed_tokens": lambda: delta.new_ones(32, 95)}, None):
            model.set_delta(changes)
            with torch.inference_mode():
                found.append(model.model(ids.to(device)).logits.cpu())
    for on_cpu, on_cuda in zip(found[:3], found[3:], strict=True):
        torch.testing.assert_close(on_cpu, on_cuda, atol=1e-5, rtol=1e-5)
