"""The header of a safetensors file, read without torch: names, shapes, dtypes, and whether the file is whole.

Format: 8 bytes little-endian header length, a JSON header, the data. Source: the safetensors format description.
"""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sstmerge_core.adapters.json_file import shown, stand_in

_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "C64": 64}
_BITS |= {"I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8}
_BITS |= {"F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4}
LARGEST_HEADER = 32_000_000
"""Bytes; the format permits 100 million. An adapter of 100,000 expert matrices has about 30 million"""
MOST_TENSORS = 200_000
"""Of one file: 100,000 matrices of experts, A and B. Entries without end, each of a few bytes, would take minutes"""
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

    Raises ValueError that says what is wrong with the file. What the format forbids is refused even where the tensors
    could be found: bytes after the last tensor, tensors that overlap or leave a gap, a header in another encoding.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for, a device never ends
        raise ValueError("is not a file but a folder, pipe or device")
    size = found.st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        whole = len(prefix) == 8 and length <= LARGEST_HEADER and 8 + length <= size
        data = file.read(length if whole else 512)
    if not whole and (fault := stand_in(prefix + data)):
        raise ValueError(fault)
    if len(prefix) < 8:
        raise ValueError(f"is only {size} bytes long; it was truncated or is not a safetensors file")
    if 8 + length > size:
        raise ValueError("is truncated or not a safetensors file: its header is longer than the file")
    if not whole:
        raise ValueError(f"has a header of more than {LARGEST_HEADER / 1e6:.0f} MB")
    # an entry has three brackets and four colons; the metadata and names with colons have room
    if data.count(b"[") + data.count(b"{") > 3 * MOST_TENSORS + 2 or data.count(b":") > 5 * MOST_TENSORS:
        raise ValueError(f"has a damaged header: it has entries for more than {MOST_TENSORS:,} tensors")
    entries = _entries(data)
    tensors = {name: _tensor(name, entry, 8 + length) for name, entry in entries.items()}
    _check_places(tensors, 8 + length, size)
    return tensors


def _entries(data: bytes) -> dict[str, Any]:
    """The header's entries by tensor name, without its metadata."""
    try:
        pairs = json.loads(data.decode("utf-8"), object_pairs_hook=_Pairs)
    except RecursionError:
        raise ValueError("has a damaged header: it is nested too deeply") from None
    except ValueError:
        raise ValueError("is not a safetensors file: its header is not JSON in UTF-8") from None
    if not isinstance(pairs, _Pairs):
        raise ValueError("is not a safetensors file: its header is not a JSON object")
    entries: dict[str, Any] = {}
    for name, value in pairs:
        if name in entries:
            raise ValueError(f"has a damaged header: {shown(name)} is in it twice")
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ValueError("has a damaged header: a name in it is not valid text") from None
        entries[name] = value
    metadata = entries.pop("__metadata__", None) or _Pairs()
    if not isinstance(metadata, _Pairs) or not all(isinstance(value, str) for _, value in metadata):
        raise ValueError("has a damaged header: its __metadata__ is not a mapping from text to text")
    return entries


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as its pairs: a name that is there twice is a fault, and not the last one's."""


def _tensor(name: str, entry: Any, begin: int) -> TensorHeader:
    """One entry of the header; `begin` is where the data begin."""
    if not isinstance(entry, _Pairs):
        raise _damaged(name)
    fields = dict(entry)
    shape: Any = fields.get("shape")
    offsets: Any = fields.get("data_offsets")
    dtype = fields.get("dtype")
    if not _whole(shape) or not _whole(offsets) or len(offsets) != 2 or not isinstance(dtype, str):
        raise _damaged(name)
    start, end = offsets
    if dtype not in _BITS:
        raise ValueError(f"has a tensor of an unknown format: {shown(name)} is {shown(dtype, 40)}")
    # Python's own whole numbers: no product is too large for them
    if start > end or math.prod(shape) * _BITS[dtype] != 8 * (end - start):
        raise ValueError(f"has a damaged header: the shape of {shown(name)} does not match its length")
    return TensorHeader(tuple(shape), dtype, begin + start, begin + end)


def _damaged(name: str) -> ValueError:
    return ValueError(f"has a damaged header entry for {shown(name)}")


def _whole(value: Any) -> bool:
    """Whether it is a list of counts; JSON's true is no count, nor is 4.0."""
    return isinstance(value, list) and len(value) <= 64 and all(type(one) is int and one >= 0 for one in value)


def _check_places(tensors: dict[str, TensorHeader], begin: int, size: int) -> None:
    """The tensors fill the file from `begin` to its end, one after another."""
    at = begin
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.end > size:
            raise ValueError(f"is truncated: {tensor.end - size} bytes are missing from tensor {shown(name)} on")
        if tensor.start != at:
            how = "overlaps another one" if tensor.start < at else "leaves a gap before it"
            raise ValueError(f"has a damaged header: tensor {shown(name)} {how}")
        at = tensor.end
    if at != size:
        raise ValueError(f"has {size - at} bytes after its last tensor, which the format forbids")


def is_float(tensor: TensorHeader) -> bool:
    """Whether the tensor holds floating point numbers."""
    return tensor.dtype in _NOT_FINITE


def magnitude(path: Path, tensor: TensorHeader) -> float:
    """Largest absolute value of the tensor, infinity where it holds NaN or infinity; 0 for integers and empty ones."""
    if tensor.dtype not in _NOT_FINITE or tensor.start == tensor.end:
        return 0.0
    kind, mask = _NOT_FINITE[tensor.dtype]
    # without the sign, bit patterns of floating-point numbers are in the order of the numbers
    unsigned = kind(np.iinfo(kind).max >> 1)
    largest = max(int((bits & unsigned).max()) for bits in _bits(path, tensor))
    return math.inf if largest >= mask else _number(largest, tensor.dtype)


def _number(bits: int, dtype: str) -> float:
    """A positive floating-point number of its bit pattern."""
    if dtype == "F8_E4M3":  # one sign, four exponent (bias 7) and three fraction bits
        exponent, fraction = bits >> 3, (bits & 7) / 8
        return fraction * 2.0**-6 if exponent == 0 else (1 + fraction) * 2.0 ** (exponent - 7)
    if dtype == "F8_E5M2":
        return _number(bits << 8, "F16")
    return float(_numbers(np.array([bits], _NOT_FINITE[dtype][0]), dtype)[0])


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


def values(path: Path, tensor: TensorHeader) -> np.ndarray | None:
    """The tensor's numbers as float32, in its shape; None for formats that are not those of weights (`_PRECISION`)."""
    if tensor.dtype not in _PRECISION:
        return None
    parts = [_numbers(bits, tensor.dtype).astype(np.float32) for bits in _bits(path, tensor)]
    return (np.concatenate(parts) if parts else np.zeros(0, np.float32)).reshape(tensor.shape)
