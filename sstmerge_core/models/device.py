"""Which device and which number format to use here."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

DTYPES = ("float32", "bfloat16", "float16")


APPLIED = ("in_weights", "beside")
"""How ΔW gets into the model that answers: added to its weights, or as low-rank factors beside them"""


@dataclass(frozen=True)
class Computing:
    """How a model is computed with where nothing else is said."""

    dtype: str
    applied: str
    max_length: int
    """Tokens of a calibration sample"""


_ON_CPU = Computing("float32", "in_weights", 256)
"""As it always was, so that a recipe keeps its id and its answers, bit for bit"""
_ON_CUDA = Computing("bfloat16", "beside", 512)
"""In 16 bits ΔW is beside the weights, which would round most of it away; merge arithmetic is float32 anywhere"""


def computing(device: str) -> Computing:
    """The defaults on ``cpu``, ``cuda:0``, ``mps`` … MPS is treated as the CPU is until somebody has measured it."""
    return _ON_CUDA if device.startswith("cuda") else _ON_CPU


def best_device() -> str:
    """``cuda`` where there is a GPU, otherwise ``cpu``. Imports torch."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def is_here(name: str) -> bool:
    """Whether torch can compute on a device of this name on this machine. Imports torch."""
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        return False
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    return device.type == "cpu" or (device.type == "mps" and torch.backends.mps.is_available())


def gpu_present() -> bool:
    """Whether this machine shows a GPU of NVIDIA or AMD and SSTMERGE_DEVICE does not ask for the CPU. No torch."""
    if os.environ.get("SSTMERGE_DEVICE", "").startswith("cpu") or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return False
    return Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists()


def devices() -> list[str]:
    """What can be computed on here, ``cpu`` first: ``cuda:0`` …, ``mps`` on a Mac of Apple's chips. No torch.

    CUDA_VISIBLE_DEVICES is respected: those that it names are counted from 0. None of NVIDIA's is named where the
    installed torch was built without CUDA.
    """
    found = ["cpu"]
    if sys.platform == "darwin" and platform.machine() == "arm64":
        found.append("mps")
    if not _torch_is_for_cpus():
        count = sum(1 for _ in Path("/dev").glob("nvidia[0-9]*"))
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is not None:
            count = min(count, len([name for name in visible.split(",") if name.strip() not in ("", "-1")]))
        found += [f"cuda:{index}" for index in range(count)]
    return found


@cache
def _torch_is_for_cpus() -> bool:
    try:
        return importlib.metadata.version("torch").endswith("+cpu")
    except importlib.metadata.PackageNotFoundError:
        return False


@cache
def fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; where it does not, float32 is three times faster (measured)."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def free_memory(device: str) -> int:
    """Bytes that can still be had on ``cpu``, ``mps`` or a CUDA device without swapping.

    On CUDA that is what the driver has left and what torch's allocator holds without using it.
    """
    if device.startswith("cuda"):
        import torch

        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + max(0, idle)
    import psutil

    return int(psutil.virtual_memory().available)


def total_memory(device: str) -> int:
    """Bytes that ``cpu``, ``mps`` (the same) or a CUDA device has in all: it does not depend on who else is at work."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[1])
    import psutil

    return int(psutil.virtual_memory().total)


class Memory(NamedTuple):
    """Bytes."""

    free: int
    total: int


def memory_of(device: str) -> Memory | None:
    """Memory of a device without torch, for estimates: a GPU's by NVIDIA's own tool; None where that is not there."""
    if not device.startswith("cuda"):
        import psutil

        found = psutil.virtual_memory()
        return Memory(int(found.available), int(found.total))
    return _memory_of_gpu(device.partition(":")[2] or "0", int(time.monotonic()) // 10)


@lru_cache(maxsize=32)
def _memory_of_gpu(index: str, _ten_seconds: int) -> Memory | None:
    """Asked of the driver every ten seconds at most; a page is drawn more often."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    chosen = named[int(index)] if index.isdigit() and int(index) < len(named) else index
    command = [tool, f"--id={chosen}", "--query-gpu=memory.free,memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
        free, total = (int(part) << 20 for part in told.splitlines()[0].split(","))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
    return Memory(free, total)


def peak_memory(device: str) -> int:
    """Most bytes that this process had at once: of a GPU those that torch took there, otherwise of main memory.

    0 where the system does not tell.
    """
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_reserved(device))
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(getattr(psutil.Process().memory_info(), "peak_wset", 0))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024)  # macOS counts bytes, Linux KiB


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch says so, of a GPU or of main memory."""
    import torch

    said = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return said or isinstance(error, torch.OutOfMemoryError)


def give_memory_back() -> None:
    """What nothing refers to any more. Call it outside the except block: an error's traceback holds its tensors."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def share_the_machine() -> None:
    """Settings of this process that cost nothing alone and save a lot beside others. Call it before torch is imported.

    OpenMP threads sleep while they wait instead of spinning: with a second busy process on the same two cores a batch
    took 248 s spinning and 28 s sleeping (measured). They spin for some 50 µs first, since waking costs about as much
    in a virtual machine: alone, batches then took 9.1 s instead of 10.4 (medians of 6). glibc keeps freed memory
    instead of returning it at once: tensors of a few MB otherwise cost a page fault per 4 KiB each time.
    """
    import ctypes

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # not glibc
        return
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, 1 << 30)
