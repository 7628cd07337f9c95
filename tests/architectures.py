"""Tiny random models of the architectures people bring, adapters of the kinds people have, and what is done with them.

`measured` does everything of one architecture and holds it to PEFT and autograd; docs/architectures.py writes what came
of it into docs/architectures.md, and tests/adapters/test_architectures.py compares.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.tiny_models import build_tokenizer

ENDS = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 1}
SMALL_GPT2 = {"vocab_size": 95, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
SIZE: dict[str, Any] = {
    **{"vocab_size": 95, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128},
    **ENDS,
}
EYES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
EYES |= {"image_size": 28, "patch_size": 14}
QWEN_EYES = {"depth": 1, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": 32}
QWEN_EYES |= {"patch_size": 14}
QWEN_TOKENS = {"image_token_id": 90, "video_token_id": 91, "vision_start_token_id": 92, "vision_end_token_id": 93}
MROPE = SIZE | {"rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": [1, 1, 2]}}
EXPERTS = {"num_local_experts": 3, "num_experts_per_tok": 2}
PIXEL = {"vision_output_dim": 16, "projector_input_dim": 16, "projector_output_dim": 16, "pixel_shuffle_ratio": 0.5}
ONE_EXPERT = {"num_local_experts": 3, "num_experts_per_tok": 1, "interleave_moe_layer_step": 1}


OWN = {"target_modules": ["q_proj", "down_proj"]}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "DoRA": ("LoraConfig", {"r": 3, "use_dora": True} | OWN),
    "LoRA with trained modules": ("LoraConfig", {"r": 3, "modules_to_save": ["lm_head"]} | OWN),
    "LoRA with trained tokens": ("LoraConfig", {"r": 3, "trainable_token_indices": [3, 7]} | OWN),
    "PiSSA": ("LoraConfig", {"r": 3, "init_lora_weights": "pissa"} | OWN),
    "OLoRA": ("LoraConfig", {"r": 3, "init_lora_weights": "olora"} | OWN),
    "LoHa": ("LoHaConfig", {"r": 2, "alpha": 4} | OWN),
    "LoKr": ("LoKrConfig", {"r": 2, "alpha": 4} | OWN),
    "OFT": ("OFTConfig", {"r": 0, "oft_block_size": 8} | OWN),
    "IA³": ("IA3Config", {"feedforward_modules": ["down_proj"]} | OWN),
    "VeRA": ("VeraConfig", {"r": 16, "target_modules": ["q_proj", "o_proj"]}),
    "AdaLoRA": ("AdaLoraConfig", {"init_r": 4, "target_r": 2, "total_step": 10} | OWN),
    "HRA": ("HRAConfig", {"r": 4} | OWN),
    "Trained tokens": ("TrainableTokensConfig", {"token_indices": [3, 7], "target_modules": ["embed_tokens"]}),
}
"""Kinds of adapter that are no plain LoRA and become one: PEFT's settings class, and what it is given"""


def settings(kind: str) -> Any:
    """PEFT's settings of one of `OTHERS`."""
    import peft

    name, given = OTHERS[kind]
    return getattr(peft, name)(task_type="CAUSAL_LM", **given)


@dataclass(frozen=True)
class Architecture:
    title: str
    config: dict[str, Any]
    kinds: tuple[str, ...] = ("LoRA", "DoRA, converted")


MIXTURE = ("LoRA", "experts as stacks", "experts one by one", "DoRA, converted")
ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture("Llama", SIZE, ("LoRA", *(f"{kind}, converted" for kind in OTHERS))),
    "qwen3": Architecture("Qwen 3", SIZE),
    "gemma3_text": Architecture("Gemma 3, text", SIZE),
    "gpt2": Architecture("GPT-2", SMALL_GPT2 | ENDS),
    "gemma3": Architecture(
        "Gemma 3",
        {
            "text_config": SIZE,
            "vision_config": EYES,
            **{"image_token_index": 90, "boi_token_index": 91, "eoi_token_index": 92, "mm_tokens_per_image": 4},
        },
        ("LoRA", "LoRA, names before transformers 4.52", "LoRA of the text model", "DoRA, converted"),
    ),
    "mistral3": Architecture(
        "Mistral 3",
        {
            "text_config": SIZE | {"model_type": "mistral"},
            "vision_config": EYES | {"model_type": "pixtral", "head_dim": 8},
            "image_token_index": 90,
        },
        ("LoRA", "LoRA, names before transformers 4.52", "DoRA, converted"),
    ),
    "qwen2_5_vl": Architecture(
        "Qwen 2.5 VL",
        {"text_config": MROPE, "vision_config": QWEN_EYES, **QWEN_TOKENS},
        ("LoRA", "LoRA of the text model", "DoRA, converted"),
    ),
    "qwen3_vl": Architecture(
        "Qwen 3 VL",
        {
            "text_config": MROPE,
            "vision_config": QWEN_EYES | {"deepstack_visual_indexes": [0], "num_position_embeddings": 16},
            **QWEN_TOKENS,
        },
    ),
    "llama4": Architecture(
        "Llama 4",
        {
            "text_config": SIZE | ONE_EXPERT | {"intermediate_size_mlp": 48, "attn_temperature_tuning": False},
            "vision_config": EYES | PIXEL,
            **{"image_token_index": 90, "boi_token_index": 91, "eoi_token_index": 92},
        },
        ("LoRA", "experts as stacks"),
    ),
    "mixtral": Architecture("Mixtral", SIZE | EXPERTS, MIXTURE),
    "qwen3_moe": Architecture(
        "Qwen 3 MoE",
        SIZE | {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 40, "decoder_sparse_step": 1},
        MIXTURE,
    ),
    "gpt_oss": Architecture(
        "gpt-oss", SIZE | EXPERTS | {"layer_types": ["full_attention"] * 2}, ("LoRA", "experts as stacks")
    ),
}
STEPS = ("merge", "gradients", "evaluate", "dense", "page")
STACKED = {
    "target_modules": ["q_proj"],
    "target_parameters": ["experts.gate_up_proj", "experts.down_proj"],
    "rank_pattern": {"experts.down_proj": 2},
    "alpha_pattern": {"experts.down_proj": 6},
}
IDS = [[3, 7, 9, 20, 44, 51, 60, 8]]
ROWS = [("w1 w2 w3", "w7 w8"), ("w9 w5", "w30 w31 w32")]


def build(name: str, folder: Path) -> Path:
    """A random two-layer model with a tokenizer; experts are of a size that is seen in the logits."""
    import torch
    from transformers import AutoConfig

    from sstmerge_core.adapters.skeleton import model_class

    config = AutoConfig.for_model(name, **ARCHITECTURES[name].config)
    torch.manual_seed(0)
    model = model_class(config).from_config(config)
    with torch.no_grad():
        for own, parameter in model.named_parameters():
            if ".experts." in own and parameter.dim() == 3:
                parameter.normal_(std=0.2)
    model.save_pretrained(folder)
    build_tokenizer(folder)
    return folder


def load(base: Path) -> Any:
    import torch
    from transformers import AutoConfig

    from sstmerge_core.adapters.skeleton import model_class

    return model_class(AutoConfig.from_pretrained(base)).from_pretrained(base, dtype=torch.float32).eval()


def adapter(name: str, kind: str, base: Path, folder: Path, seed: int) -> tuple[Path, Any]:
    """An adapter of a kind, as PEFT writes it or as older versions did, and the logits that PEFT gives with it."""
    import torch
    from peft import LoraConfig, get_peft_model

    options: dict[str, Any] = {"target_modules": "all-linear"}
    if name in ("llama4", "gpt_oss") or kind.startswith(("DoRA", "experts one")):
        options = {"target_modules": ["c_attn"] if name == "gpt2" else ["q_proj", "v_proj"]}
    if kind.endswith(("4.52", "of the text model")):
        options = {"target_modules": r".*language_model.*\.(q_proj|up_proj|down_proj)"}
    if kind == "experts as stacks":
        options = STACKED
    if kind == "experts one by one":
        options |= {"target_modules": "all-linear", "exclude_modules": ["k_proj"]}
    if kind.startswith("DoRA"):
        options["use_dora"] = True
    other = kind.removesuffix(", converted")
    plain = name != "llama" or other not in OTHERS
    torch.manual_seed(seed)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, **options) if plain else settings(other)
    model = get_peft_model(load(base), config)
    with torch.no_grad():
        for own, parameter in model.named_parameters():
            if plain and ("lora_A" in own or "lora_B" in own):
                parameter.normal_(std=0.2)
            if not plain and parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
        wanted = model.eval()(torch.tensor(IDS)).logits
    model.save_pretrained(str(folder))
    _settings(folder, base_model_name_or_path=base.name)
    if kind.endswith("4.52"):
        _rename(folder, "model.language_model.", "language_model.model.")
    if kind.endswith("of the text model"):
        _rename(folder, "model.language_model.", "model.")
    if kind == "experts one by one":
        _one_by_one(folder, name)
    return folder, wanted


def _settings(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _rename(folder: Path, old: str, new: str) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    stem = "base_model.model."
    tensors = {key.replace(f"{stem}{old}", f"{stem}{new}"): one for key, one in load_file(path).items()}
    assert any(f".{new}" in key for key in tensors)
    save_file(tensors, path)


def _one_by_one(folder: Path, name: str) -> None:
    """The same ΔW under the names of PEFT before transformers 5: every expert has a gate, an up and a down of its own.

    PEFT's own stack of gate and up has twice the rank, and any B: it is cut into the halves of a rank of 8 each.
    """
    import torch
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    tensors, found, ranks = load_file(path), {}, {}
    for key, tensor in tensors.items():
        if ".mlp.gate." in key:
            key = key.replace(".mlp.", ".block_sparse_moe.") if name == "mixtral" else key
        if ".experts." not in key:
            found[key] = tensor
    stem = "base_model.model.model.layers.{}.{}.experts.{}.{}.lora_{}.weight"
    block = "block_sparse_moe" if name == "mixtral" else "mlp"
    gate, up, down = ("w1", "w3", "w2") if name == "mixtral" else ("gate_proj", "up_proj", "down_proj")
    for layer in range(2):
        own = f"base_model.model.model.layers.{layer}.mlp.experts"
        a, b = (tensors[f"{own}.base_layer.lora_{side}.weight"] for side in "AB")
        rank = a.shape[0] // 3
        left, right = a.view(3, rank, -1), b.view(b.shape[0], rank, 3)
        for expert in range(3):
            half = b.shape[0] // 2
            for part, rows in ((gate, slice(0, half)), (up, slice(half, None))):
                found[stem.format(layer, block, expert, part, "A")] = left[expert].contiguous()
                found[stem.format(layer, block, expert, part, "B")] = right[rows, :, expert].contiguous()
                ranks[f"experts.{expert}.{part}"] = rank
        a, b = (tensors[f"{own}.lora_{side}.weight"] for side in "AB")
        for expert in range(3):
            found[stem.format(layer, block, expert, down, "A")] = a.view(3, -1, a.shape[1])[expert].contiguous()
            b_of = b.view(b.shape[0], -1, 3)[:, :, expert]
            found[stem.format(layer, block, expert, down, "B")] = b_of.contiguous()
    save_file({key: torch.clone(tensor) for key, tensor in found.items()}, path)
    plain = {"target_modules": ["q_proj", "v_proj", "o_proj", "gate", gate, up, down], "target_parameters": None}
    _settings(folder, rank_pattern=ranks, alpha_pattern={one: 2 * rank for one, rank in ranks.items()}, **plain)


def measured(name: str, folder: Path) -> list[tuple[str, str, dict[str, str]]]:
    """Title, kind of adapter, and what came of each of `STEPS`: ``yes``, or the fault in whose words it is refused."""
    base = build(name, folder / name)
    return [(ARCHITECTURES[name].title, kind, _steps(name, kind, base, folder)) for kind in ARCHITECTURES[name].kinds]


def _steps(name: str, kind: str, base: Path, folder: Path) -> dict[str, str]:
    from sstmerge_core import adapters
    from sstmerge_core.adapters.convert import convert
    from sstmerge_core.errors import SSTMergeError

    place = folder / f"{name}-{kind}".replace(" ", "_").replace(",", "")
    made = [adapter(name, kind, base, place / str(seed), seed) for seed in (1, 2)]
    folders, wanted = [one for one, _ in made], made[0][1]
    if kind.endswith("converted"):
        folders = [convert(one, base, place / f"{one.name}-lora").path for one in folders]
    report = adapters.check_many(base, {"utility": folders[0], "safety": folders[1]})
    assert report.compatible, report.problems
    found = {}
    for step, do in (("merge", _merge), ("gradients", _gradients), ("evaluate", _evaluate), ("dense", _dense)):
        try:
            do(base, folders, wanted, place)
            found[step] = "yes"
        except SSTMergeError as error:
            assert len(error.problems) == 1 and step == "gradients", (step, error)
            found[step] = error.problems[0].fault
    found["page"] = _page(base, folders, place, gradients=found["gradients"] == "yes")
    shutil.rmtree(place)
    return found


def _delta(own: Any) -> Any:
    return own.scaling * own.b @ own.a


def _sides(own: Any) -> Any:
    return own.a, own.scaling * own.b


def _logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(torch.tensor(IDS)).logits


def _close(found: Any, wanted: Any) -> None:
    assert float((found - wanted).norm() / wanted.norm()) < 2e-5


def _merge(base: Path, folders: list[Path], wanted: Any, place: Path) -> None:
    """The weighted sum of two adapters, written, and loaded by PEFT: the logits of the two ΔW in the weights."""
    from peft import PeftModel

    from sstmerge_core import adapters
    from sstmerge_core.adapters.skeleton import spelling
    from sstmerge_core.merge import merge
    from sstmerge_core.models.resident import ResidentModel

    pair = [adapters.read(one) for one in folders]
    merged = merge([one.load() for one in pair], "linear", {"alpha": 0.3})
    resident = ResidentModel.load(base, "float32", "cpu")
    plain = _logits(resident.model)
    resident.set_delta({name: module.delta for name, module in merged.modules.items()})
    both = _logits(resident.model)
    assert float((both - plain).norm() / plain.norm()) > 0.01
    out = place / "merged"
    adapters.write_adapter(
        merged.factors()[0],
        out,
        base_name=base.name,
        embeddings=pair[0].embeddings,
        fan_in_fan_out=pair[0].fan_in_fan_out,
        spelling=spelling(base),
    )
    _close(_logits(PeftModel.from_pretrained(load(base), out).eval()), both)


def _evaluate(base: Path, folders: list[Path], wanted: Any, place: Path) -> None:
    """PEFT's logits by moved weights and by side paths, and the base again bit for bit."""
    import torch

    from sstmerge_core import adapters
    from sstmerge_core.models.resident import ResidentModel

    factors = adapters.read(folders[0]).load()
    resident = ResidentModel.load(base, "float32", "cpu")
    plain = _logits(resident.model)
    resident.set_delta({name: partial(_delta, own) for name, own in factors.items()})
    _close(_logits(resident.model), wanted)
    resident.set_delta(None)
    assert torch.equal(_logits(resident.model), plain)
    resident.set_delta({}, {name: partial(_sides, own) for name, own in factors.items()})
    _close(_logits(resident.model), wanted)
    assert len(resident.generate(["w1 w2", "w3"], 3)) == 2


def _dense(base: Path, folders: list[Path], wanted: Any, place: Path) -> None:
    from sstmerge_core import adapters
    from sstmerge_core.adapters.dense import write_model

    factors = adapters.read(folders[0]).load()
    write_model(
        base,
        {name: partial(_delta, own) for name, own in factors.items()},
        place / "dense",
    )
    _close(_logits(load(place / "dense")), wanted)


def _gradients(base: Path, folders: list[Path], wanted: Any, place: Path) -> None:
    """Of every adapted matrix what autograd gives of the whole weight, in core coordinates."""
    import torch

    from sstmerge_core import adapters
    from sstmerge_core.fisher.gradients import core_gradients
    from sstmerge_core.models.resident import ResidentModel
    from sstmerge_core.models.supervised import collate, encode, sample_losses
    from sstmerge_core.space import core_space

    space = core_space([adapters.read(one).load() for one in folders])
    resident = ResidentModel.load(base, "float32", "cpu")
    model, matrices = resident.model, resident.modules
    found = core_gradients(model, resident.tokenizer, space, ROWS, batch_size=2)
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            module.padding_idx = None
    for index, (prompt, answer) in enumerate(ROWS):
        model.zero_grad()
        model.requires_grad_()
        losses, _ = sample_losses(model, collate([encode(resident.tokenizer, prompt, answer, 256)], 1))
        losses.sum().backward()
        for name, module in space.items():
            own = matrices[name]
            stack = getattr(own, "experts", None)
            whole = getattr(stack, own.part).grad if stack is not None else own.weight.grad
            gradient = torch.zeros_like(own.weight) if whole is None else whole
            gradient = gradient[own.index] if stack is not None and whole is not None else gradient
            turned = gradient.shape != (module.q_out.shape[0], module.q_in.shape[0])
            turned = own.is_transposed if stack is not None and not turned else turned
            turned = turned or type(own).__name__ == "Conv1D"
            expected = module.q_out.T @ (gradient.T if turned else gradient) @ module.q_in
            torch.testing.assert_close(found.modules[name][index], expected, atol=3e-6, rtol=2e-4)
    assert float(found.rows.abs().max()) > 1e-4


def _page(base: Path, folders: list[Path], place: Path, *, gradients: bool) -> str:
    """What the page of a merge asks before it launches one, of a method without gradients and of one with them."""
    from sstmerge_core import catalog
    from sstmerge_core.builder import preflight
    from sstmerge_core.workspace import Workspace

    workspace = Workspace(place / "workspace").create()
    on = catalog.base_at(base, workspace)
    utility, safety = (
        catalog.entry(one, workspace, name=name, role=role)
        for one, name, role in zip(folders, "US", ("utility", "safety"), strict=True)
    )
    for method, wanted in (("linear", True), ("sst_gevp", gradients)):
        planned = preflight.plan(
            workspace, base=on, utility=utility, safety=safety, method=method, parameters={}, evaluate=False
        )
        assert bool(planned.recipe) == wanted, (method, planned.problems)
    return "yes"
