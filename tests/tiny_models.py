"""Tiny random models and adapters: real files in PEFT's and transformers' own formats, for unit tests only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def build_tokenizer(folder: Path) -> None:
    """A word-level tokenizer with a chat template, saved to `folder`."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<|im_end|>", "<|im_start|>", "user", "assistant", *[f"w{i}" for i in range(90)]]
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        bos_token="<|im_start|>",
    )
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|> {{ message['role'] }} {{ message['content'] }} <|im_end|> "
        "{% endfor %}{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
    )
    tokenizer.save_pretrained(folder)


ARCHITECTURES = ("llama", "mistral", "qwen2", "gemma", "gemma2", "phi3", "gpt2")


def build_base(architecture: str, folder: Path, *, seed: int = 0, **changes: object) -> Path:
    """A random two-layer model of one of `ARCHITECTURES`, with a tokenizer, saved to `folder`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    size: dict[str, object] = {
        "vocab_size": 95,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 128,
    }
    if architecture == "gpt2":
        size = {"vocab_size": 95, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
    if architecture == "phi3":
        size["original_max_position_embeddings"] = 128
    tokens = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 1}
    config = AutoConfig.for_model(architecture, **(size | tokens | changes))
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    build_tokenizer(folder)
    return folder


def make_adapter(base: Path, folder: Path, seed: int, **options: Any) -> Path:
    """A random PEFT LoRA adapter of `base` with ΔW ≠ 0 everywhere, written by PEFT itself."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    settings: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **options}
    config = LoraConfig(**({"task_type": "CAUSAL_LM"} | settings))
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "lora_embedding_A" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(str(folder))
    written = json.loads((folder / "adapter_config.json").read_text())
    written["base_model_name_or_path"] = base.name
    (folder / "adapter_config.json").write_text(json.dumps(written))
    return folder


def make_whole_adapter(base: Path, folder: Path, seed: int, names: list[str], **options: Any) -> Path:
    """`make_adapter` with the modules `names` trained whole beside the factors, each away from the base."""
    import torch
    from safetensors.torch import load_file, save_file

    make_adapter(base, folder, seed, modules_to_save=names, **options)
    weights = load_file(folder / "adapter_model.safetensors")
    torch.manual_seed(seed)
    whole = [key for key in weights if "lora_" not in key]
    assert whole
    for key in whole:
        weights[key] = weights[key] + 0.3 * torch.randn_like(weights[key])
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder
