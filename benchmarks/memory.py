"""Peak memory of evaluation and of a Fisher pass against the checkpoint, and what writing a dense merge costs.

    python -m benchmarks.memory [--only beside weights dense fisher ties 8b] [--samples 4]

A random model of Llama-3.2-1B's shape (1.24 billion weights in bfloat16, 2.5 GB) and two random adapters of all its
linear modules, r = 16, are made in a temporary folder. Each figure is had in a process of its own: by how many bytes it
grew at most over what its imports take, pages of the checkpoint's own mapping included, against the checkpoint's bytes.

- "evaluation": 8 prompts answered with a merge on, as low-rank factors beside the weights, added to the weights, or
  dense (TIES). At most 1.3.
- "Fisher pass": per-sample gradients of every module from samples of exactly 512 tokens, half of them the answer's; the
  pass is told that no more memory is free than a quarter of the checkpoint, as on a card that the model nearly fills.
  At most 1.6.
- "ties": TIES of all modules written as an adapter, against the time of the merge alone, in seconds of the CPU, as one
  comes after the other and what else the machine does changes between them. At most 1.5.
- "8b": not measured but calculated, by the estimate that the pages tell: SST on Llama-3.1-8B's shape in bfloat16, 500 +
  500 samples of 512 tokens on a card of 24 GB, against 22 GB.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.lines import Line, compared, parser, peak_growth, report
from sstmerge_core.models.device import share_the_machine

LENGTH, ANSWER, PROMPTS, NEW_TOKENS, RANK = 512, 256, 8, 4, 16
SMALL = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
}
"""Llama-3.2-1B"""
LARGE = SMALL | {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "head_dim": 128,
    "tie_word_embeddings": False,
}
"""Llama-3.1-8B"""
EVALUATION, PASS, WRITTEN, CARD = 1.3, 1.6, 1.5, 22e9
FIGURES = ("beside", "weights", "dense", "fisher", "ties", "8b")


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--only", nargs="+", choices=FIGURES, default=list(FIGURES))
    options.add_argument(
        "--samples", type=int, default=4, help="of the Fisher pass; what a batch holds of them is chosen from the room"
    )
    arguments = options.parse_args()
    share_the_machine()
    with tempfile.TemporaryDirectory() as folder:
        return report(figures(Path(folder), arguments))


def figures(folder: Path, arguments: argparse.Namespace) -> Iterator[Line]:
    base = folder / "base"
    if set(arguments.only) - {"8b"}:
        random_model(base)
        for seed, name in enumerate(("U", "S")):
            random_adapter(folder / name, shapes(SMALL), seed)
        checkpoint = (base / "model.safetensors").stat().st_size
    works: dict[str, tuple[str, Callable[[], Any], float]] = {
        "beside": ("evaluation, low-rank beside the weights", partial(evaluate, folder, "linear", True), EVALUATION),
        "weights": ("evaluation, low-rank in the weights", partial(evaluate, folder, "linear", False), EVALUATION),
        "dense": ("evaluation, dense in the weights", partial(evaluate, folder, "ties", False), EVALUATION),
        "fisher": (f"Fisher pass at T={LENGTH}", partial(fisher, folder, arguments.samples), PASS),
    }
    for name in arguments.only:
        if name in works:
            title, work, limit = works[name]
            grown = peak_growth(work)
            yield compared(f"memory: 1B in bf16, {title}, against the checkpoint", grown, checkpoint, limit, "bytes")
    if "ties" in arguments.only:
        yield compared("ties of a 1B, merged and written, against merged, seconds of the CPU", *ties(folder), WRITTEN)
    if "8b" in arguments.only:
        name = "memory: 8B in bf16, SST of 500+500 samples at T=512, calculated, against 22 GB"
        yield compared(name, calculated(folder / "8b"), CARD, 1.0, "bytes") | {"device": "calculated for 24 GB"}


def evaluate(folder: Path, method: str, beside: bool) -> None:
    """Load the base, put a merge on, and answer; then the base again."""
    from sstmerge_core.merge import deltas, dense_and_low_rank
    from sstmerge_core.models.resident import ResidentModel

    resident = ResidentModel.load(folder / "base", "bfloat16", "cpu")
    merged = merge_of(folder, method)
    if beside:
        resident.set_delta(*dense_and_low_rank(merged))
    else:
        resident.set_delta(deltas(merged))
    resident.generate([" ".join(f"w{n}" for n in range(16 + prompt)) for prompt in range(PROMPTS)], NEW_TOKENS)
    resident.set_delta(None)


def fisher(folder: Path, samples: int) -> None:
    """Gradients at base + ΔU, as a run takes them."""
    from sstmerge_core import adapters
    from sstmerge_core.fisher import core_gradients, expansion
    from sstmerge_core.models.resident import ResidentModel
    from sstmerge_core.space import core_space

    resident = ResidentModel.load(folder / "base", "bfloat16", "cpu")
    pair = [adapters.read(folder / name).load() for name in ("U", "S")]
    resident.set_delta(None, expansion.low_rank(pair, expansion.weights("utility", 2)))
    # the template and the end of sequence make up the rest of a sample; what is too long is cut
    rows = [(" ".join(["w1"] * LENGTH), " ".join(["w2"] * (ANSWER - 1)))] * samples
    room = (folder / "base" / "model.safetensors").stat().st_size // 4
    core_gradients(resident.model, resident.tokenizer, core_space(pair), rows, max_length=LENGTH, room=room)


def ties(folder: Path) -> tuple[float, float]:
    """CPU seconds of merging every module and writing the adapter, and of merging alone; one after the other, once."""
    from sstmerge_core import adapters

    merged = merge_of(folder, "ties")
    begun = time.process_time()
    for module in merged.modules.values():
        module.delta()
    alone = time.process_time() - begun
    begun = time.process_time()
    adapters.write_adapter(merged.factors()[0], folder / "written", base_name="1b")
    return time.process_time() - begun, alone


def merge_of(folder: Path, method: str) -> Any:
    """The merge of both adapters by its defaults."""
    from sstmerge_core import adapters
    from sstmerge_core.merge import merge

    return merge([adapters.read(folder / name).load() for name in ("U", "S")], method, {})


def calculated(folder: Path) -> int:
    """The estimate for the large model; its checkpoint is a header and a hole."""
    from sstmerge_core import catalog
    from sstmerge_core.adapters.safetensors_writer import layout
    from sstmerge_core.builder import preflight
    from sstmerge_core.models.device import Memory

    folder.mkdir()
    plan = layout({f"{name}.weight": ("BF16", shape) for name, shape in weights(LARGE).items()})
    with (folder / "model.safetensors").open("wb") as file:
        file.write(plan.header)
        file.truncate(plan.bytes)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    base = catalog.Base(name="8b", path=folder, sha256="", ready=True, description="")
    pair = []
    for seed, name in enumerate(("U", "S")):
        random_adapter(folder / name, shapes(LARGE), seed)
        pair.append(catalog.entry(folder / name, name=name, role="utility" if name == "U" else "safety"))
    options = preflight.Options(**preflight.how_to_compute("cuda:0"))
    recipe = preflight.merge_recipe(base, pair[:1], pair[1], "sst_gevp", {"alpha": 1.0}, options)
    assert recipe.calibration is not None
    enough = recipe.calibration.model_copy(update={"n_harm": 500, "n_benign": 500})
    recipe = recipe.model_copy(update={"calibration": enough})
    return preflight.memory(base, pair, recipe, "cuda:0", Memory(24 << 30, 24 << 30))


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """(out, in) of every linear module but the head."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    heads, keys = config["num_attention_heads"], config["num_key_value_heads"]
    width = config["head_dim"]
    layer = {
        "self_attn.q_proj": (heads * width, hidden),
        "self_attn.k_proj": (keys * width, hidden),
        "self_attn.v_proj": (keys * width, hidden),
        "self_attn.o_proj": (hidden, heads * width),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    return {
        f"model.layers.{number}.{name}": shape
        for number in range(config["num_hidden_layers"])
        for name, shape in layer.items()
    }


def weights(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shape of every weight of a Llama by module name."""
    hidden = (config["hidden_size"],)
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens": (config["vocab_size"], *hidden)}
    if not config["tie_word_embeddings"]:
        found["lm_head"] = (config["vocab_size"], *hidden)
    found |= shapes(config)
    for number in range(config["num_hidden_layers"]):
        found |= {f"model.layers.{number}.{name}_layernorm": hidden for name in ("input", "post_attention")}
    return found | {"model.norm": hidden}


def random_model(folder: Path, sizes: dict[str, Any] = SMALL) -> None:
    """A Llama of these sizes, one tensor in memory at a time, with a tokenizer of its own words."""
    import torch
    from transformers import LlamaConfig

    from sstmerge_core.adapters.safetensors_writer import layout, write_tensors

    folder.mkdir()
    all_shapes = weights(sizes)
    plan = layout({f"{name}.weight": ("BF16", shape) for name, shape in all_shapes.items()})
    # one block of numbers again and again: a billion of them would take longer to draw than to use
    block = torch.randn(1 << 22, generator=torch.Generator().manual_seed(0)).mul_(0.02).bfloat16()

    def tensors() -> Iterator[torch.Tensor]:
        for name in plan.tensors:
            shape = all_shapes[name.removesuffix(".weight")]
            if len(shape) == 1:
                yield torch.ones(shape, dtype=torch.bfloat16)
            else:
                count = shape[0] * shape[1]
                yield block.repeat(-(-count // len(block)))[:count].view(shape)

    write_tensors(folder / "model.safetensors", plan, tensors(), checked=False)
    ends = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 1}
    settings: dict[str, Any] = {**sizes, **ends}
    config = LlamaConfig(**settings, dtype="bfloat16", architectures=["LlamaForCausalLM"])
    config.save_pretrained(folder)
    _tokenizer(folder)


def _tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<|im_end|>", "<|im_start|>", "user", "assistant", *[f"w{n}" for n in range(90)]]
    core = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "bos_token": "<|im_start|>"}
    PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", **ends).save_pretrained(folder)


def random_adapter(folder: Path, modules: dict[str, tuple[int, int]], seed: int) -> None:
    """A PEFT folder of random bfloat16 factors, scaling 2."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (height, width) in modules.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = torch.randn(RANK, width, generator=generator).bfloat16()
        tensors[f"base_model.model.{name}.lora_B.weight"] = torch.randn(height, RANK, generator=generator).bfloat16()
    tensors = {key: 0.01 * tensor for key, tensor in tensors.items()}
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "",
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "target_modules": sorted({name.split(".")[-1] for name in modules}),
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


if __name__ == "__main__":
    sys.exit(main())
