"""The header of a safetensors file, read without torch: names, shapes, dtypes, and whether the file is whole.

Format: 8 bytes little-endian header length, a JSON header, the data. Source: the safetensors format description.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sstmerge_core import documents

_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}
_BYTES |= {"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1}
_NOT_FINITE: dict[str, tuple[Any, int]] = {
    "F64": (np.uint64, 0x7FF0000000000000),
    "F32": (np.uint32, 0x7F800000),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
    "F8_E5M2": (np.uint8, 0x7C),
    "F8_E4M3": (np.uint8, 0x7F),
}
"""Bits that are all ones in NaN and infinity; numpy has no bfloat16, its bit patterns suffice here."""
_PRECISION = {"F64": 0.0, "F32": 2.0**-24, "F16": 2.0**-11, "BF16": 2.0**-8}
"""Largest relative error of rounding to the format; bfloat16's is 2⁻⁹ when rounded, 2⁻⁸ when cut"""
_CHUNK = 1 << 19
"""Numbers looked at together: they stay in a core's cache, and an embedding of a gigabyte costs no memory"""


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
            header = documents.from_json(file.read(length))
            entries = list(header.items())
        except (ValueError, AttributeError):
            raise ValueError("is not a safetensors file: its header is not JSON") from None
    tensors = {}
    for name, entry in entries:
        if name == "__metadata__":
            continue
        try:
            start, end = entry["data_offsets"]
            tensor = TensorHeader(tuple(entry["shape"]), entry["dtype"], 8 + length + start, 8 + length + end)
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"has a damaged header entry for {name}") from None
        if not 8 + length <= tensor.start <= tensor.end:
            raise ValueError(f"has a damaged header entry for {name}")
        if tensor.end > size:
            raise ValueError(f"is truncated: {tensor.end - size} bytes are missing from tensor {name} on")
        expected = int(np.prod(tensor.shape, dtype=np.int64)) * _BYTES.get(tensor.dtype, 0)
        if tensor.dtype in _BYTES and expected != tensor.end - tensor.start:
            raise ValueError(f"has a damaged header: the shape of {name} does not match its length")
        tensors[name] = tensor
    return tensors


def is_float(tensor: TensorHeader) -> bool:
    """Whether the tensor holds floating point numbers."""
    return tensor.dtype in _NOT_FINITE


def is_finite(path: Path, tensor: TensorHeader) -> bool:
    """Whether the tensor holds no NaN and no infinity; integer tensors always are."""
    if tensor.dtype not in _NOT_FINITE or tensor.start == tensor.end:
        return True
    return all(finite_bits(bits, tensor.dtype) for bits in _bits(path, tensor))


def finite_bits(bits: np.ndarray, dtype: str) -> bool:
    """Whether bit patterns of a floating-point format, one unsigned number each, hold no NaN and no infinity."""
    kind, mask = _NOT_FINITE[dtype]
    return all(int((bits[at : at + _CHUNK] & kind(mask)).max()) != mask for at in range(0, len(bits), _CHUNK))


def same_values(path: Path, tensor: TensorHeader, other_path: Path, other: TensorHeader) -> bool:
    """Whether two tensors hold the same numbers, up to the rounding of the coarser format where the formats differ."""
    if tensor.shape != other.shape or not {tensor.dtype, other.dtype} <= set(_PRECISION):
        return False
    relative = 0.0 if tensor.dtype == other.dtype else max(_PRECISION[tensor.dtype], _PRECISION[other.dtype])
    absolute = 2.0**-24 if relative and "F16" in (tensor.dtype, other.dtype) else 0.0  # half's smallest number
    for chunk, other_chunk in zip(_bits(path, tensor), _bits(other_path, other), strict=True):
        if tensor.dtype == other.dtype and np.array_equal(chunk, other_chunk):
            continue
        x, y = _numbers(chunk, tensor.dtype), _numbers(other_chunk, other.dtype)
        if not bool((np.abs(x - y) <= relative * np.maximum(np.abs(x), np.abs(y)) + absolute).all()):
            return False
    return True


def _bits(path: Path, tensor: TensorHeader) -> Iterator[np.ndarray]:
    """The tensor's bit patterns, one unsigned number each, some at a time.

    Read rather than mapped: threads that map files at once wait for each other (measured: twice the time).
    """
    kind = np.dtype(_NOT_FINITE[tensor.dtype][0])
    count = (tensor.end - tensor.start) // kind.itemsize
    with path.open("rb", buffering=0) as file:
        file.seek(tensor.start)
        for at in range(0, count, _CHUNK):
            yield np.fromfile(file, kind, min(_CHUNK, count - at))


def _numbers(bits: np.ndarray, dtype: str) -> np.ndarray:
    """The same as float64."""
    if dtype == "BF16":
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return bits.view({"F64": np.float64, "F32": np.float32, "F16": np.float16}[dtype]).astype(np.float64)
