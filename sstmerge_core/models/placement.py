"""A model larger than its device: over several GPUs, the host's memory and its disk, by accelerate's device map.

What does not lie on a device that computes is brought there module by module as it is called, and let go of after it.
Big Model Inference of accelerate (https://huggingface.co/docs/accelerate/usage_guides/big_modeling).
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from sstmerge_core.errors import DataError, Problem

if TYPE_CHECKING:
    import torch

SHARES = "SSTMERGE_SHARES"
"""Environment: the most that a model may take of each place, such as ``cuda:0=20GB,cuda:1=20GB,cpu=60GB``"""
_SHARE = re.compile(r"(?P<place>cpu|disk|cuda:\d+)=(?P<number>\d+(\.\d+)?) ?(?P<unit>B|kB|MB|GB|TB)")
_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def shares() -> dict[int | str, int]:
    """Bytes by place as accelerate names them, GPUs by number; empty where ``SSTMERGE_SHARES`` says nothing.

    Raises DataError for what cannot be read.
    """
    said = os.environ.get(SHARES, "").strip()
    found: dict[int | str, int] = {}
    for part in filter(None, (part.strip() for part in said.split(","))):
        match = _SHARE.fullmatch(part)
        if match is None:
            fix = "Write places and sizes like cuda:0=20GB,cuda:1=20GB,cpu=60GB."
            raise DataError(Problem(SHARES, f"{part} is no share of a device", fix))
        kind, _, index = match["place"].partition(":")
        found[int(index) if index else kind] = int(float(match["number"]) * _UNITS[match["unit"]])
    return found


def loading(device: str, dtype: torch.dtype) -> dict[str, Any]:
    """What transformers is told to spread a model over the shares; empty where there are none or others are meant.

    `device` is that of the session: its GPU must be among the shares, or it is the CPU and no GPU is. What the shares
    of GPUs and the CPU do not hold stays on disk, in the checkpoint's own files.
    """
    found = shares()
    gpus = sorted(place for place in found if isinstance(place, int))
    kind, _, index = device.partition(":")
    if not found or (int(index or 0) not in gpus if kind == "cuda" else kind != "cpu" or bool(gpus)):
        return {}
    most = {place: found[place] for place in gpus} | {place: found[place] for place in ("cpu",) if place in found}
    return {"device_map": "auto", "max_memory": most, "dtype": dtype}


def check(where: str, model: Any) -> None:
    """Raises DataError where not even the token embedding has a place on a device: answers begin there."""
    if model.get_input_embeddings().weight.is_meta:
        fix = f"Give the first place of {SHARES} more."
        raise DataError(Problem(where, "has a token embedding that is larger than the first share", fix))


def is_away(layer: Any) -> bool:
    """Whether a layer's weight is only brought to its device while it is called, so that it cannot be written to."""
    return bool(layer.weight.is_meta)


def device_of(layer: Any) -> torch.device:
    """Where a layer computes."""
    import torch

    weight = layer.weight
    return torch.device(layer._hf_hook.execution_device) if weight.is_meta else weight.device
