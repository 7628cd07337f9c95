"""What a tensor's name in an adapter's file says: a factor of which module, a copy of a base weight, or neither.

PEFT writes ``base_model.model.<module>.lora_A.weight``. Trainers that save by themselves leave names of their wrappers
in it (torch.compile, DDP, FSDP, DeepSpeed, activation checkpointing) or the prefix out; those are taken away and filled
in. Nothing else is: a name with an unknown part would otherwise be merged into a module that PEFT does not find.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sstmerge_core.adapters.json_file import shown, typed

Kind = Literal["linear", "embedding"]

_WRAPPERS = frozenset(
    {
        "_orig_mod",  # torch.compile (torch/_dynamo/eval_frame.py, OptimizedModule)
        *("_fsdp_wrapped_module", "_fpw_module"),  # torch.distributed.fsdp
        "_checkpoint_wrapped_module",  # torch.distributed.algorithms._checkpoint
        "_forward_module",  # Lightning Fabric
    }
)
"""Names of modules that hold the model, or a part of it, and compute nothing themselves"""
_OUTER = frozenset({"module", "_module"})
"""Those of DDP, DeepSpeed's engine and Opacus, which hold a whole model: only in front of one"""
_PEFT = "base_model.model."
_BODIES = {"layers": "model", "embed_tokens": "model"} | dict.fromkeys(("h", "wte", "wpe"), "transformer")
"""The name of a causal model's body where a name begins inside of it, as of an adapter of the bare body"""
_FACTOR = re.compile(
    r"(?P<module>.+)\.lora_(?:(?P<linear>[AB])(?:\.(?P<name>[^.]+))?\.weight|"
    r"embedding_(?P<embedding>[AB])(?:\.(?P<embedding_name>[^.]+))?)"
)
"""PEFT keeps a linear module's factors as modules with a weight, an embedding's as bare parameters."""
_COPY = re.compile(r"(?P<module>(?!.*lora_).+?)(?:\.base_layer)?\.weight")
"""PEFT saves the whole base weight beside the factors of embed_tokens and lm_head."""
_IMAGE = re.compile(r"(unet|text_encoder\w*|vae|prior|transformer\.(single_)?transformer_blocks)\.")


@dataclass(frozen=True)
class Name:
    """A tensor's name, understood."""

    module: str
    """The full module name in the base, such as ``model.layers.0.self_attn.q_proj``"""
    side: Literal["A", "B", ""]
    """Empty for a copy of the base weight"""
    kind: Kind = "linear"
    adapter: str = ""
    """The adapter's name in the training program, where the file keeps it"""


def understand(key: str) -> Name | None:
    """The parts of a tensor's name; None where it has parts that are not known."""
    bare = _module(key)
    if match := _FACTOR.fullmatch(bare):
        kind: Kind = "linear" if match["linear"] else "embedding"
        adapter = match["name"] or match["embedding_name"] or ""
        side: Literal["A", "B"] = "A" if "A" in (match["linear"], match["embedding"]) else "B"
        return Name(_complete(match["module"]), side, kind, adapter)
    if (match := _COPY.fullmatch(bare)) and not foreign(key):
        return Name(_complete(match["module"]), "")
    return None


def trained(key: str) -> str:
    """What the base calls a tensor of a fully trained module, whether PEFT's wrapper is in the name or not."""
    return _complete(re.sub(r"\.modules_to_save\.[^.]+(?=\.)", "", _module(key)))


_TEXT = re.compile(
    r"(?:model\.(?:language_model|text_model)(?:\.model)?|language_model(?:\.model)?)"
    r"\.(?=(?:layers|embed_tokens|norm|embed_tokens_per_layer)(?:\.|$))"
)
"""Where a model of several modalities keeps its text part: by the transformers that wrote it, and whether the whole"""
_OTHER_PARTS = re.compile(
    r"model\.(?=(?:vision_tower|vision_model|visual|multi_modal_projector|connector|audio_tower|embed_vision)\.)"
)
_W123 = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}
_BLOCK_SPARSE = re.compile(
    r"(?P<layer>.+)\.block_sparse_moe\.(?:(?P<gate>gate)|experts\.(?P<expert>\d+)\.(?P<w>w[123]))"
)


def canonical(module: str) -> str:
    """The one name of a module that files of several ages call otherwise; every other name as it is.

    Text parts of models of several modalities lose what they are kept in: ``language_model.model.layers.0`` (before
    transformers 4.52), ``model.language_model.layers.0`` (since then) and ``model.layers.0`` (the text model alone, and
    Qwen2-VL's files) are one module, and so are vision towers with and without ``model.`` before them. Mixtral's
    ``block_sparse_moe.experts.3.w1`` is ``mlp.experts.3.gate_proj`` (transformers 5, conversion_mapping.py).
    """
    if module == "language_model.lm_head":
        return "lm_head"
    if match := _TEXT.match(module):
        module = f"model.{module[match.end() :]}"
    elif match := _OTHER_PARTS.match(module):
        module = module[match.end() :]
    if module.startswith("vision_tower.vision_model."):
        module = f"vision_tower.{module.removeprefix('vision_tower.vision_model.')}"
    if match := _BLOCK_SPARSE.fullmatch(module):
        inner = "gate" if match["gate"] else f"experts.{match['expert']}.{_W123[match['w']]}"
        module = f"{match['layer']}.mlp.{inner}"
    return module


def with_prefix(key: str) -> str:
    """The name as PEFT itself writes it: without wrappers, and with its prefix."""
    bare = _inner(".".join(part for part in key.split(".") if part not in _WRAPPERS))
    if bare.startswith(_PEFT):
        return f"{_PEFT}{_module(key)}"
    return bare if bare.startswith("base_model.") else f"{_PEFT}{bare}"  # VeRA keeps factors beside the model


def _module(key: str) -> str:
    """The name without wrappers and PEFT's prefix."""
    bare = _inner(".".join(part for part in key.split(".") if part not in _WRAPPERS))
    return _inner(bare.removeprefix(_PEFT)) if bare.startswith(_PEFT) else bare


def _inner(name: str) -> str:
    while name.split(".", 1)[0] in _OUTER and "." in name:
        name = name.split(".", 1)[1]
    return name


def _complete(module: str) -> str:
    body = _BODIES.get(module.split(".", 1)[0])
    return f"{body}.{module}" if body else module


@dataclass(frozen=True)
class Foreign:
    """A kind of tensor that is no factor of a plain LoRA."""

    fault: str
    converts: bool
    """`sstmerge adapters convert` makes a LoRA of it"""
    fix: str = ""
    """What to do where it does not"""


_IMAGES = "This program merges adapters of language models."
_FOREIGN: tuple[tuple[re.Pattern[str], Foreign], ...] = tuple(
    (re.compile(pattern), found)
    for pattern, found in (
        (r"\.lora_magnitude_vector(\.|$)", Foreign("magnitudes of DoRA", True)),
        (r"\.lora_B(\.[^.]+)?\.bias$", Foreign("biases of lora_B (lora_bias)", False, "Train with lora_bias=False.")),
        (r"\.token_adapter\.|\.trainable_tokens_", Foreign("single token embeddings (trainable_token_indices)", True)),
        (r"\.modules_to_save\.|\.original_module\.", Foreign("fully trained modules (modules_to_save)", True)),
        (r"\.hada_w\d", Foreign("factors of LoHa", True)),
        (r"\.lokr_w\d", Foreign("factors of LoKr", True)),
        (r"\.oft_(r|R|blocks?)(\.|$)|\.boft_|\.hra_", Foreign("rotations of OFT", True)),
        (r"\.ia3_l(\.|$)", Foreign("scales of IA³", True)),
        (r"(^|\.)vera_", Foreign("factors of VeRA", True)),
        (r"\.lora_E(\.|$)|\.ranknum(\.|$)", Foreign("singular values of AdaLoRA", True)),
        (r"prompt_embeddings|prefix_", Foreign("prompt vectors, which are no weights", False, "Train a LoRA.")),
        (r"_flat_param|\.__\d+_\d+\.distcp", Foreign("flat shards of FSDP", False, "Save it with full_state_dict.")),
        (r"^lora_(unet|prior|transformer)_", Foreign("names of an image model in kohya's format", False, _IMAGES)),
        (r"^lora_te\d?_.+\.(lora_(down|up)\.weight|alpha)$", Foreign("names in kohya's format", True)),
        (r"^blk\.\d+\.", Foreign("llama.cpp's names", False, "Give the PEFT folder that it was converted from.")),
        (r"\.lora_[ab]$", Foreign("names in MLX's format", True)),
        (
            r"\.lora\.(down|up)\.weight$|lora_linear_layer\.|\.processor\.",
            Foreign("names of an image model in diffusers' format", False, _IMAGES),
        ),
        (
            r"\.lora_[ab]\.weight$",
            Foreign("names in torchtune's format", False, "Save it there with save_adapter_weights in PEFT's format."),
        ),
        (
            r"\.adapter\.linear_(in|out)\.|\.lora_kqv_adapter\.|\.adapter_layer\.",
            Foreign("names in NeMo's format", False, "Export it to Hugging Face's format with NeMo's own converter."),
        ),
        (
            r"\.lora_[AB]$",
            Foreign("bare parameters lora_A and lora_B, as loralib writes them", False, "Save it with PEFT."),
        ),
        (
            r"(^|\.)(v_head|value_head|reward_head|score_head|classifier|score)\.",
            Foreign("a head for scores or classes", False, "Give an adapter of the language model alone."),
        ),
        (
            r"(norm|layernorm|ln_\w+)\.(weight|bias)$",
            Foreign("norms that were trained beside the factors", False, "Train with target_modules alone."),
        ),
        (
            r"\.inv_freq$|rotary_emb\.|\.masked_bias$",
            Foreign("buffers of the base", False, "Save the adapter alone, with PEFT's save_pretrained."),
        ),
        (
            r"\.alpha$",
            Foreign("an α beside each module", False, "Save it with PEFT, which keeps α in its settings."),
        ),
        (r"\.bias$", Foreign("biases", False, "Train with bias='none'.")),
    )
)


def foreign(key: str) -> Foreign | None:
    """The kind of a tensor that is no factor of a plain LoRA, where it is a known one."""
    return next((found for pattern, found in _FOREIGN if pattern.search(key)), None)


def image_model(modules: Iterable[str]) -> str:
    """The first module that only models of images have; empty where there is none."""
    return next((module for module in modules if _IMAGE.match(module)), "")


def about_foreign(keys: list[str], folder: str) -> tuple[str, str]:
    """Fault and fix for tensors that are no factors, by the first one of a known kind, else the first one."""
    key, found = next(((key, found) for key in keys if (found := foreign(key))), (keys[0], None))
    if found is None:
        fault = f"{len(keys)} tensors have names that are not known here, the first is {shown(key)}"
        return fault, "Only PEFT's lora_A and lora_B, lora_embedding_A and lora_embedding_B can be merged: rename them."
    return f"holds {found.fault}, such as {shown(key)}", conversion(folder) if found.converts else found.fix


def conversion(folder: str) -> str:
    """The command that makes a plain LoRA of what is none."""
    return f"`sstmerge adapters convert {typed(folder)} --base BASE --out DIR` makes a LoRA of it."
