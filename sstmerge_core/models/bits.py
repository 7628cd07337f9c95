"""Base weights in 8 or 4 bits: which folders hold them, what they need, and how a float base is loaded so.

By bitsandbytes, which has a build for CPUs too: LLM.int8() (Dettmers et al. 2022, arXiv 2208.07339) and NF4 (Dettmers
et al. 2023, QLoRA, arXiv 2305.14314). An adapter works beside such weights, which are never written to. No torch here.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sstmerge_core.adapters.json_file import read_object
from sstmerge_core.errors import Problem

BITS = (8, 4)
TOOL = "bitsandbytes"


def method(config: Mapping[str, Any]) -> str:
    """How a base says that its weights are quantised, such as ``gptq``; empty where they are floats."""
    said = config.get("quantization_config")
    if not said:
        return ""
    return str(said.get("quant_method") or "an unknown method") if isinstance(said, Mapping) else "an unknown method"


def problem(where: str, quantised: str, bits: int | None, *, gradients: str = "") -> Problem | None:
    """What keeps a base from answering in so many bits, or as it is quantised already; None: nothing.

    `gradients` is the method that wants them of it, by its title.
    """
    if quantised and bits:
        fix = "Leave --bits out, or give its float checkpoint."
        return Problem(where, f"is quantised already ({quantised}); it cannot be in {bits} bits too", fix)
    if quantised and quantised != TOOL:
        fix = f"Give its float checkpoint, and --bits 8 or 4; or one that {TOOL} quantised."
        return Problem(where, f"is quantised by {quantised}, which is not read here", fix)
    if quantised and gradients:
        fix = "Give its float checkpoint, and --bits for the answers; or choose a method that needs no samples."
        return Problem(where, f"is quantised ({quantised}), so that {gradients} has no gradients of it", fix)
    lacking = [name for name in (TOOL, "accelerate") if importlib.util.find_spec(name) is None]
    if (quantised or bits) and lacking:
        fix = "Install the extra: pip install 'sstmerge[bits]'."
        return Problem(where, f"needs {' and '.join(lacking)} for 8 or 4 bits, which is not installed", fix)
    return None


def untrainable(base: Path) -> Problem | None:
    """Why no adapter can be trained on a base's folder: its weights are quantised; None where they are floats.

    A folder that cannot be read is told where it is.
    """
    try:
        found = method(read_object(base / "config.json"))
    except (OSError, ValueError):
        return None
    if not found:
        return None
    fault = f"is quantised ({found}), so that there are no gradients of it to train by"
    return Problem(f"base model {base}", fault, "Give its float checkpoint; an adapter of that works on this one too.")


def loading(bits: int) -> dict[str, Any]:
    """What transformers is told to load a float base in 8 or 4 bits."""
    from transformers import BitsAndBytesConfig

    if bits == 8:
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    import torch

    compute = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute
        )
    }
