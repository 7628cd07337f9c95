"""The header of a safetensors file, read without torch: names, shapes, dtypes, and whether the file is whole.

Format: 8 bytes little-endian header length, a JSON header, the data. Source: the safetensors format description.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_EXPONENT = {"BF16": (np.uint16, 0x7F80), "F16": (np.uint16, 0x7C00), "F32": (np.uint32, 0x7F800000)}
"""Bits that are all ones in NaN and infinity; numpy has no bfloat16, its bit patterns suffice here."""


@dataclass(frozen=True)
class TensorHeader:
    shape: tuple[int, ...]
    dtype: str
    start: int
    """Offset of the first byte within the file."""
    end: int


def read_header(path: Path) -> dict[str, TensorHeader]:
    """Tensors of the file at `path`.

    Raises ValueError that says what is wrong with the file (truncated, not safetensors, inconsistent offsets).
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise ValueError(f"is only {size} bytes long; it was truncated or is not a safetensors file")
        length = int.from_bytes(prefix, "little")
        if length > 100_000_000 or 8 + length > size:
            raise ValueError("is truncated or not a safetensors file: its header is longer than the file")
        try:
            header = json.loads(file.read(length))
        except ValueError:
            raise ValueError("is not a safetensors file: its header is not JSON") from None
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            start, end = entry["data_offsets"]
            tensor = TensorHeader(tuple(entry["shape"]), entry["dtype"], 8 + length + start, 8 + length + end)
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"has a damaged header entry for {name}") from None
        if tensor.end > size:
            raise ValueError(f"is truncated: {tensor.end - size} bytes are missing from tensor {name} on")
        expected = int(np.prod(tensor.shape, dtype=np.int64)) * _BYTES.get(tensor.dtype, 0)
        if tensor.dtype in _BYTES and expected != tensor.end - tensor.start:
            raise ValueError(f"has a damaged header: the shape of {name} does not match its length")
        tensors[name] = tensor
    return tensors


def is_finite(path: Path, tensor: TensorHeader) -> bool:
    """Whether the tensor holds no NaN and no infinity; integer tensors always are."""
    if tensor.dtype not in _EXPONENT or tensor.start == tensor.end:
        return True
    kind, mask = _EXPONENT[tensor.dtype]
    bits = np.memmap(path, dtype=np.uint8, mode="r", offset=tensor.start, shape=(tensor.end - tensor.start,))
    return not bool(((np.asarray(bits).view(kind) & mask) == mask).any())
