"""Write a safetensors file one tensor at a time, and prove by reading it back that the disk holds what was meant.

Format: 8 bytes little-endian header length, a JSON header, the data without gaps. Source: the safetensors format
description. The package's own `save_file` wants every tensor in memory at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sstmerge_core.adapters.safetensors_header import TensorHeader, read_header

if TYPE_CHECKING:
    import torch

CODES = {
    "float64": "F64",
    "float32": "F32",
    "bfloat16": "BF16",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
"""torch's names of number formats, and those of safetensors"""
NAMES = {code: name for name, code in CODES.items()}
_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True)
class Layout:
    """Where each tensor of a file will lie, known before any value is."""

    header: bytes
    tensors: dict[str, TensorHeader]

    @property
    def bytes(self) -> int:
        return max((tensor.end for tensor in self.tensors.values()), default=len(self.header))


def layout(shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> Layout:
    """The layout of tensors given by name as (safetensors dtype code, shape).

    Formats of more bytes come first, so that every tensor is aligned to its own size; otherwise the order is kept.
    """
    ordered = sorted(shapes.items(), key=lambda item: -_BYTES[item[1][0]])
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    places: dict[str, tuple[int, int]] = {}
    position = 0
    for name, (code, shape) in ordered:
        start, position = position, position + size(code, shape)
        places[name] = (start, position)
        entries[name] = {"dtype": code, "shape": list(shape), "data_offsets": [start, position]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data = 8 + len(text)
    tensors = {
        name: TensorHeader(tuple(shape), code, data + places[name][0], data + places[name][1])
        for name, (code, shape) in ordered
    }
    return Layout(len(text).to_bytes(8, "little") + text, tensors)


def size(code: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor."""
    total = _BYTES[code]
    for length in shape:
        total *= length
    return total


def write_tensors(path: Path, plan: Layout, tensors: Iterable[torch.Tensor], *, hashed: bool = True) -> str:
    """Write `tensors`, given in the order of `plan`, to `path`; returns the SHA-256 of the bytes meant to be there.

    One tensor is held at a time; it is hashed while it is written. Without `hashed` the answer is empty. Raises
    ValueError where a tensor is not of the planned shape and format.
    """
    digest = hashlib.sha256(plan.header)
    with ThreadPoolExecutor(1) as beside, path.open("wb") as file:
        file.write(plan.header)
        for (name, planned), tensor in zip(plan.tensors.items(), tensors, strict=True):
            code = CODES[str(tensor.dtype).removeprefix("torch.")]
            if (code, tuple(tensor.shape)) != (planned.dtype, planned.shape):
                raise ValueError(f"{name} is {code} {tuple(tensor.shape)}, not {planned.dtype} {planned.shape}")
            data = _bytes(tensor)
            hashing = beside.submit(digest.update, data) if hashed else None
            file.write(data)
            if hashing:
                hashing.result()
    return digest.hexdigest() if hashed else ""


def is_faithful(path: Path, plan: Layout, sha256: str) -> bool:
    """Whether the file at `path`, read again, names every tensor of `plan` at its place and has the SHA-256 given."""
    try:
        if read_header(path) != plan.tensors:
            return False
    except ValueError:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def _bytes(tensor: torch.Tensor) -> memoryview:
    import torch

    return tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().data
