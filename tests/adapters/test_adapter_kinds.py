"""Every kind of adapter that PEFT writes: applied as PEFT itself applies it, or refused by name."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from sstmerge_core import adapters
from sstmerge_core.adapters import settings
from sstmerge_core.errors import AdapterError
from sstmerge_core.fisher import core_gradients
from sstmerge_core.merge import deltas, merge
from sstmerge_core.models.resident import ResidentModel
from sstmerge_core.models.supervised import collate, encode, sample_losses
from sstmerge_core.space import core_space
from tests.there import there
from tests.tiny_models import ARCHITECTURES, build_base, make_adapter

IDS = torch.tensor([[2, 3, 10, 11, 12, 40, 1], [2, 7, 7, 9, 94, 4, 5]])
ROWS = [("w1 w2 w3", "w4 w5"), ("w6", "w7 w8 w9 w10"), ("w1 w1 w2 w2 w3 w3", "w11")]

TARGETS = {
    "llama": ["q_proj", "k_proj", "down_proj", "embed_tokens", "lm_head"],
    "mistral": ["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj"],
    "qwen2": "all-linear",
    "gemma": ["q_proj", "down_proj", "embed_tokens"],
    "gemma2": ["o_proj", "gate_proj", "embed_tokens"],
    "phi3": ["qkv_proj", "gate_up_proj", "o_proj", "down_proj"],
    "gpt2": ["c_attn", "c_fc", "c_proj", "wte", "wpe"],
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Random models by architecture, made when first asked for."""
    root, made = tmp_path_factory.mktemp("bases"), {}

    def base(architecture, **changes):
        key = architecture + "".join(f"-{name}-{value}" for name, value in sorted(changes.items()))
        if key not in made:
            made[key] = build_base(architecture, root / key, **changes)
        return made[key]

    return base


def in_peft(base, folder):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(folder)).eval()


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def applied(base, folder) -> ResidentModel:
    model = ResidentModel.load(base, "float32", "cpu")
    model.set_delta(deltas(merge([adapters.read(folder).load()], "adapter", {})))
    return model


def assert_applied_as_peft_does(base, folder):
    """ΔW of every module, and the logits, are PEFT's; the base comes back bit for bit."""
    report = adapters.check_many(base, {"utility": folder})
    assert report.compatible, report.problems
    adapter, peft = adapters.read(folder), in_peft(base, folder)
    layers = {
        name.removeprefix("base_model.model."): module
        for name, module in peft.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    assert set(layers) == set(adapter.modules)
    for name, factors in adapter.load().items():
        own = factors.scaling * factors.b @ factors.a
        delta = layers[name].get_delta_weight("default")
        torch.testing.assert_close(
            own if delta.shape == own.shape and not _stored_transposed(layers[name]) else own.T, delta
        )
    model = ResidentModel.load(base, "float32", "cpu")
    before, plain = {name: t.clone() for name, t in model.model.state_dict().items()}, logits(model.model)
    model.set_delta(deltas(merge([adapter.load()], "adapter", {})))
    torch.testing.assert_close(logits(model.model), logits(peft), atol=1e-5, rtol=1e-5)
    assert float((logits(model.model) - plain).abs().max()) > 1e-3, "the adapter must do something"
    model.set_delta(None)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.model.state_dict().items())


def _stored_transposed(layer) -> bool:
    return type(layer.get_base_layer()).__name__ in ("Conv1D", "Embedding", "GemmaTextScaledWordEmbedding")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_adapter_of_any_architecture_is_applied_as_peft_applies_it(architecture, bases, tmp_path):
    base = bases(architecture)
    folder = make_adapter(base, tmp_path / "A", 1, r=3, lora_alpha=7, target_modules=TARGETS[architecture])
    assert_applied_as_peft_does(base, folder)


@pytest.mark.parametrize("targets", [["embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"]])
@pytest.mark.parametrize("tied", [True, False])
def test_an_update_of_one_embedding_does_not_leak_to_the_other(targets, tied, bases, tmp_path):
    base = bases("llama", tie_word_embeddings=tied)
    folder = make_adapter(base, tmp_path / "A", 2, target_modules=targets)
    assert_applied_as_peft_does(base, folder)
    model = applied(base, folder)
    original = ResidentModel.load(base, "float32", "cpu")
    for name, target in (("model.embed_tokens", "embed_tokens"), ("lm_head", "lm_head")):
        same = torch.equal(model.modules[name].weight, original.modules[name].weight)
        assert same == (target not in targets)
    model.set_delta(None)
    assert (model.modules["lm_head"].weight is model.modules["model.embed_tokens"].weight) == tied


def test_adapters_that_peft_tied_are_read_apart(bases, tmp_path):
    folder = make_adapter(
        bases("llama", tie_word_embeddings=True),
        tmp_path / "A",
        3,
        target_modules=["embed_tokens", "q_proj"],
        ensure_weight_tying=True,
    )
    adapter = adapters.read(folder)
    assert {"model.embed_tokens", "lm_head"} <= set(adapter.modules)
    factors = adapter.load()
    embedding, head = factors["model.embed_tokens"], factors["lm_head"]
    torch.testing.assert_close(embedding.b @ embedding.a, (head.b @ head.a).T)
    assert_applied_as_peft_does(bases("llama", tie_word_embeddings=True), folder)


def test_a_lossy_format_gives_tied_base_weights_back_as_they_were(bases, tmp_path):
    base = bases("llama", tie_word_embeddings=True)
    folder = make_adapter(base, tmp_path / "A", 2, target_modules=["embed_tokens", "lm_head"])
    model = ResidentModel.load(base, "bfloat16", "cpu")
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    merged = merge([adapters.read(folder).load()], "adapter", {})
    model.set_delta(deltas(merged))
    exact = ResidentModel.load(base, "float32", "cpu").modules["lm_head"].weight
    assert torch.equal(model.modules["lm_head"].weight, (exact + merged.modules["lm_head"].delta()).bfloat16())
    model.set_delta(None)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.model.state_dict().items())


@pytest.mark.parametrize("rslora", [False, True])
def test_ranks_and_alphas_by_pattern_are_matched_as_peft_matches_them(rslora, bases, tmp_path):
    base = bases("llama", tie_word_embeddings=True)
    folder = make_adapter(
        base,
        tmp_path / "A",
        4,
        r=4,
        lora_alpha=6,
        use_rslora=rslora,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "embed_tokens"],
        rank_pattern={
            "proj": 9,  # the end of no name: it must follow a dot
            r"layers\.0\.self_attn\.q_proj": 2,
            "q_proj": 3,
            "model.layers.1.mlp.up_proj": 5,
            "embed_tokens": 6,
        },
        alpha_pattern={"[kv]_proj": 20, "v_proj": 99, r"^model\.layers\.1\.self_attn\.o_proj": 11, "embed_tokens": 3},
    )
    assert_applied_as_peft_does(base, folder)
    modules, peft = adapters.read(folder).modules, in_peft(base, folder)
    for name, module in modules.items():
        layer = peft.base_model.model.get_submodule(name)
        assert module.rank == layer.r["default"]
        assert module.scaling == pytest.approx(layer.scaling["default"], rel=1e-12)
    layer = "model.layers.0.self_attn"
    assert [modules[f"{layer}.{name}_proj"].rank for name in "qko"] == [2, 4, 4]
    assert modules["model.layers.1.self_attn.q_proj"].rank == 3
    assert modules[f"{layer}.v_proj"].scaling == pytest.approx(20 / (2 if rslora else 4)), "the first pattern counts"


def test_an_adapter_says_which_of_its_modules_are_embeddings_and_how_its_base_keeps_weights(bases, tmp_path):
    llama = adapters.read(make_adapter(bases("llama"), tmp_path / "L", 5, target_modules=["embed_tokens", "q_proj"]))
    assert llama.embeddings == {"model.embed_tokens"} and not llama.fan_in_fan_out
    embedding = llama.modules["model.embed_tokens"]
    assert (embedding.in_features, embedding.out_features) == (95, 32)
    gpt2 = adapters.read(make_adapter(bases("gpt2"), tmp_path / "G", 5, target_modules=["c_attn"], fan_in_fan_out=True))
    assert gpt2.embeddings == frozenset() and gpt2.fan_in_fan_out


def gradient_of_the_base(base, space, adapter, index):
    """Autograd's gradient with respect to ΔW in core coordinates, ΔW being a parameter of its own in every module."""
    from torch.func import functional_call
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            module.padding_idx = None  # torch leaves the padding token out of the gradient, though it moves the loss
    # untied, so that each module's gradient is its own
    weights = {name: model.get_submodule(name).weight.detach().clone().requires_grad_() for name in space}
    replaced = {f"{name}.weight": weight for name, weight in weights.items()}

    class Called:
        get_input_embeddings = model.get_input_embeddings

        def __call__(self, **inputs):
            return functional_call(model, replaced, kwargs=inputs, tie_weights=False)

    prompt, answer = ROWS[index]
    losses, _ = sample_losses(Called(), collate([encode(tokenizer, prompt, answer, 256)], 1))
    losses.sum().backward()
    found = {}
    for name, module in space.items():
        gradient = there(weights[name].grad)
        transposed = name in adapter.embeddings or type(model.get_submodule(name)).__name__ == "Conv1D"
        found[name] = module.q_out.T @ (gradient.T if transposed else gradient) @ module.q_in
    return found


@pytest.mark.parametrize(
    ("architecture", "targets"),
    [
        ("llama", ["embed_tokens", "lm_head", "q_proj"]),
        ("gemma", ["embed_tokens", "down_proj"]),
        ("phi3", ["qkv_proj", "gate_up_proj"]),
        ("gpt2", ["wte", "wpe", "c_attn", "c_fc", "c_proj"]),
    ],
)
def test_gradients_of_every_kind_of_module_are_autograds(architecture, targets, bases, tmp_path):
    changes = {"tie_word_embeddings": True} if architecture == "llama" else {}
    base = bases(architecture, **changes)
    adapter = adapters.read(make_adapter(base, tmp_path / "A", 6, target_modules=targets))
    space = core_space([adapter.load()])
    model = ResidentModel.load(base, "float32", "cpu")
    found = core_gradients(model.model, model.tokenizer, space, ROWS, batch_size=2)
    for index in range(len(ROWS)):
        expected = gradient_of_the_base(base, space, adapter, index)
        for name in space:
            assert float(expected[name].abs().max()) > 1e-6, name
            torch.testing.assert_close(found.modules[name][index], expected[name], atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("moved", ["embed_tokens", "lm_head"])
def test_gradients_are_taken_at_a_moved_tied_embedding(moved, bases, tmp_path):
    base = bases("llama", tie_word_embeddings=True)
    adapter = adapters.read(make_adapter(base, tmp_path / "A", 6, target_modules=[moved, "q_proj"]))
    space, model = core_space([adapter.load()]), ResidentModel.load(base, "float32", "cpu")
    at_base = core_gradients(model.model, model.tokenizer, space, ROWS)
    model.set_delta(deltas(merge([adapter.load()], "adapter", {})))
    moved = core_gradients(model.model, model.tokenizer, space, ROWS)
    assert all(not torch.equal(moved.modules[name], at_base.modules[name]) for name in space)
    model.set_delta(None)
    again = core_gradients(model.model, model.tokenizer, space, ROWS)
    assert torch.equal(again.rows, at_base.rows)


class Experts(torch.nn.Module):
    """A model whose linear module sees tokens without their sample, all of them or some."""

    def __init__(self, everything: bool):
        super().__init__()
        self.embedding, self.expert = torch.nn.Embedding(9, 4), torch.nn.Linear(4, 4, bias=False)
        self.everything = everything

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, ids):
        x = self.embedding(ids)
        flat = x.flatten(0, 1)
        return self.expert(flat if self.everything else flat[:3]).sum(-1)


class Twice(Experts):
    """A model that passes one module two times."""

    def forward(self, ids):
        return self.expert(torch.tanh(self.expert(self.embedding(ids))))


def test_a_module_that_is_passed_twice_has_the_gradient_of_both_passages():
    from sstmerge_core.fisher.gradients import _recording

    space = core_space([{"expert": adapters.Factors(torch.randn(2, 4), torch.randn(4, 2), 1.0)}])
    model, ids = Twice(True), torch.tensor([[1, 2, 3]])
    with _recording(model, space) as recorded:
        model(ids).square().sum().backward()
    model(ids).square().sum().backward()
    expected = space["expert"].q_out.T @ there(model.expert.weight.grad) @ space["expert"].q_in
    torch.testing.assert_close(recorded["expert"][0], expected)


def test_tokens_given_without_their_sample_are_sorted_again_or_refused():
    from sstmerge_core.fisher.gradients import _recording

    factors = adapters.Factors(torch.randn(2, 4), torch.randn(4, 2), 1.0)
    space = core_space([{"expert": factors}])
    model, ids = Experts(True), torch.tensor([[1, 2, 3], [4, 5, 6]])
    with _recording(model, space) as recorded:
        model(ids).square().sum().backward()
    for row in range(2):
        model.zero_grad()
        model(ids[row : row + 1]).square().sum().backward()
        expected = space["expert"].q_out.T @ there(model.expert.weight.grad) @ space["expert"].q_in
        torch.testing.assert_close(recorded["expert"][row], expected)
    some = Experts(False)
    with _recording(some, space), pytest.raises(AdapterError, match="belong to no one sample"):
        some(ids)


def edit(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def folder(bases, tmp_path):
    return make_adapter(bases("llama"), tmp_path / "A", 7, target_modules=["q_proj", "v_proj"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"bias": "lora_only"}, "biases"),
        ({"lora_bias": True}, "adds a bias to lora_B"),
        ({"modules_to_save": ["embed_tokens"]}, r"fully trained modules \(embed_tokens\)"),
        ({"trainable_token_indices": {"embed_tokens": [1]}}, "single token embeddings"),
        ({"layer_replication": [[0, 1], [0, 2]]}, "replicated layers"),
        ({"alora_invocation_tokens": [3]}, "activated LoRA"),
        ({"use_qalora": True}, "QALoRA"),
        ({"megatron_config": {"hidden_size": 3}}, "Megatron"),
        ({"monteclora_config": {"num_samples": 3}}, "MonteCLoRA"),
        ({"use_bdlora": {"nblocks": 2}}, "BD-LoRA"),
        ({"arrow_config": {"top_k": 2}}, "routes between adapters"),
        ({"kasa_config": {"beta": 1.0}}, "KaSA"),
        ({"init_lora_weights": "pissa_niter_16"}, "initialised by pissa_niter_16"),
        ({"init_lora_weights": "OLoRA"}, "initialised by OLoRA"),
        ({"init_lora_weights": "corda"}, "changed the base weights"),
        ({"init_lora_weights": "lora_ga"}, "changed the base weights"),
        ({"init_lora_weights": "loftq"}, "changed the base weights"),
        ({"peft_type": "IA3"}, "rescales activations"),
        ({"peft_type": "ADALORA"}, "ADALORA, not LORA"),
        ({"peft_type": "VERA"}, "VERA, not LORA"),
        ({"peft_type": "LOHA"}, "Hadamard"),
        ({"peft_type": "PROMPT_TUNING"}, "prompt vectors"),
        ({"peft_type": "SOMETHING_NEW"}, "SOMETHING_NEW, not LORA"),
        ({"peft_type": None}, "peft_type is None"),
        ({"peft_type": "lora"}, "peft_type is lora, not LORA"),
        ({"r": 0}, "a rank must be at least 1"),
        ({"r": "four"}, 'r is "four"'),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"rank_pattern": {"q_proj": 0}}, "rank_pattern gives q_proj the value 0"),
        ({"alpha_pattern": {"(q_proj": 3}}, "no regular expression"),
        ({"rank_pattern": {"q_proj": 2}}, "1*2 modules have another rank than r and rank_pattern say"),
        ({"r": 5}, "4 modules have another rank"),
    ],
)
def test_what_is_no_plain_lora_is_refused_by_name_with_a_fix(folder, changes, message):
    adapters.read(folder)
    edit(folder, **changes)
    with pytest.raises(AdapterError, match=message) as caught:
        adapters.read(folder)
    assert all(problem.fix for problem in caught.value.problems)


def test_all_that_forbids_a_merge_is_said_at_once(folder):
    edit(
        folder,
        use_dora=True,
        bias="all",
        lora_bias=True,
        init_lora_weights="pissa",
        lora_alpha="x",
        layer_replication=[1],
    )
    with pytest.raises(AdapterError) as caught:
        adapters.read(folder)
    assert len(caught.value.problems) == 6
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(AdapterError) as caught:
        adapters.read(folder)
    assert len(caught.value.problems) == 7


@pytest.mark.parametrize(
    "changes",
    [
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "eva", "eva_config": {"rho": 1.0}},
        {"init_lora_weights": "orthogonal"},
        {"init_lora_weights": False, "lora_dropout": 0.1, "layers_to_transform": [0]},
        {"trainable_token_indices": None, "modules_to_save": [], "velora_config": {"num_groups": 2}},
    ],
)
def test_settings_that_leave_the_update_alone_are_no_obstacle(folder, changes):
    before = adapters.read(folder).modules
    edit(folder, **changes)
    assert adapters.read(folder).modules == before


def test_every_setting_of_the_installed_peft_is_decided():
    from peft import LoraConfig

    fields = {one.name for one in dataclasses.fields(LoraConfig)}
    decided = settings.ENTERS | settings.WITHOUT_EFFECT | set(settings.REFUSED)
    assert fields <= decided, f"decide what {sorted(fields - decided)} mean for ΔW"
    assert not settings.ENTERS & settings.WITHOUT_EFFECT and not settings.WITHOUT_EFFECT & set(settings.REFUSED)


def test_a_setting_that_nobody_knows_is_a_warning(bases, folder):
    edit(folder, use_tomorrows_trick=True, quiet_setting=None)
    report = adapters.check_many(bases("llama"), {"utility": folder})
    assert report.compatible
    assert any("use_tomorrows_trick" in str(one) and "quiet_setting" not in str(one) for one in report.warnings)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"use_dora": True}, "magnitudes of DoRA"),
        ({"bias": "all"}, "holds biases"),
        ({"lora_bias": True}, "biases of lora_B"),
        ({"trainable_token_indices": [3, 4]}, "single token embeddings"),
    ],
)
def test_what_peft_writes_for_other_kinds_is_refused_even_where_its_setting_is_lost(options, named, bases, tmp_path):
    folder = make_adapter(bases("qwen2"), tmp_path / "A", 8, target_modules=["q_proj"], **options)
    with pytest.raises(AdapterError) as caught:
        adapters.read(folder)
    assert len(caught.value.problems) == 1
    edit(folder, use_dora=False, bias="none", lora_bias=False, trainable_token_indices=None)
    with pytest.raises(AdapterError, match=named):
        adapters.read(folder)


def reweigh(folder, change):
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")


def first(tensors, part):
    return next(key for key in sorted(tensors) if part in key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update({first(t, "lora_A"): torch.zeros(4, 32, 3, 3)}), "convolutions"),
        (lambda t: t.update({first(t, "lora_A"): torch.zeros(0)}), "empty factors"),
        (lambda t: t.update({first(t, "lora_A"): torch.zeros(3, 32)}), "do not fit"),
        (lambda t: t.update({first(t, "lora_A"): torch.zeros(4, 32, dtype=torch.int8)}), "not floating point"),
        (lambda t: t.pop(first(t, "lora_A")), "1 modules lack a factor"),
        (lambda t: t.update({"base_model.model.model.norm.weight": torch.ones(32)}), "model.norm.weight"),
    ],
)
def test_a_tensor_that_is_no_factor_of_a_matrix_is_named(folder, change, message):
    reweigh(folder, change)
    with pytest.raises(AdapterError, match=message):
        adapters.read(folder)


def test_a_copy_of_the_base_embedding_is_accepted_and_another_one_refused(bases, tmp_path):
    base = bases("llama", tie_word_embeddings=True)
    folder = make_adapter(base, tmp_path / "A", 9, target_modules=["embed_tokens", "lm_head"])
    assert set(adapters.read(folder).copied) == {"model.embed_tokens", "lm_head"}
    assert adapters.check_many(base, {"utility": folder}).compatible
    key = "base_model.model.model.embed_tokens.base_layer.weight"
    reweigh(folder, lambda tensors: tensors.update({key: tensors[key].bfloat16()}))
    assert adapters.check_many(base, {"utility": folder}).compatible, "rounding to 16 bits is no training"
    reweigh(folder, lambda tensors: tensors[key][94].mul_(1.02))
    problems = adapters.check_many(base, {"utility": folder}).problems
    assert ["carries whole weights of model.embed_tokens" in str(one) for one in problems] == [True]


def test_an_embedding_of_another_vocabulary_is_refused(bases, tmp_path):
    folder = make_adapter(bases("llama", vocab_size=99), tmp_path / "A", 9, target_modules=["embed_tokens", "q_proj"])
    edit(folder, base_model_name_or_path="")
    problems = adapters.check_many(bases("llama"), {"utility": folder}).problems
    assert any("model.embed_tokens is (32, 99), not (32, 95) (another vocabulary)" in str(one) for one in problems)


def test_an_embedding_of_any_name_is_held_against_its_own_layout(bases, tmp_path):
    import shutil

    base = shutil.copytree(bases("llama"), tmp_path / "odd")
    folder = make_adapter(base, tmp_path / "A", 9, target_modules=["embed_tokens"])
    for file in (base / "model.safetensors", folder / "adapter_model.safetensors"):
        tensors = {name.replace("embed_tokens", "table"): tensor for name, tensor in load_file(file).items()}
        save_file(tensors, file)
    assert adapters.check_many(base, {"utility": folder}).compatible


def test_weights_named_without_the_models_prefix_are_found(bases, tmp_path):
    import shutil

    base = shutil.copytree(bases("gpt2"), tmp_path / "gpt2")
    tensors = load_file(base / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file(bare, base / "model.safetensors", metadata={"format": "pt"})
    folder = make_adapter(base, tmp_path / "A", 1, target_modules=["c_attn", "c_fc", "wte", "lm_head"])
    assert_applied_as_peft_does(base, folder)


def test_a_square_module_of_gpt2_is_held_against_its_own_layout(bases, tmp_path):
    folder = make_adapter(bases("gpt2"), tmp_path / "A", 1, target_modules=["c_fc"])

    def swap(tensors):
        for key in [key for key in tensors if "lora_A" in key]:
            other = key.replace("lora_A", "lora_B")
            tensors[key], tensors[other] = tensors[other].T.contiguous(), tensors[key].T.contiguous()

    reweigh(folder, swap)
    problems = adapters.check_many(bases("gpt2"), {"utility": folder}).problems
    assert any("c_fc is (32, 128), not (128, 32)" in str(one) for one in problems)


def test_many_adapters_are_checked_at_once_and_their_targets_compared_in_one_line(bases, tmp_path):
    base = bases("llama")
    targets = {"math": ["q_proj", "v_proj"], "code": ["q_proj"], "law": ["q_proj", "down_proj"], "broken": ["q_proj"]}
    folders = {
        name: make_adapter(base, tmp_path / name, seed, target_modules=modules)
        for seed, (name, modules) in enumerate(targets.items())
    }
    good = {name: folder for name, folder in folders.items() if name != "broken"}
    report = adapters.check_many(base, good)
    assert report.compatible
    assert report.facts["shared modules"] == "2 of 6"
    assert all(f"{name} rank" in report.facts for name in good)
    (warning,) = report.warnings
    assert "math leaves 2 modules alone" in str(warning) and "code leaves 4 modules alone" in str(warning)
    edit(folders["broken"], use_dora=True)
    edit(folders["law"], base_model_name_or_path="another")
    report = adapters.check_many(base, folders)
    assert len(report.problems) == 1 and "broken" in report.problems[0].where
    assert any(warning.where.startswith("law adapter") for warning in report.warnings)
