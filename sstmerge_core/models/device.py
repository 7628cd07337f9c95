"""Which device and which number format to use here."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

DTYPES = ("float32", "bfloat16", "float16")


def best_device() -> str:
    """``cuda`` where there is a GPU, otherwise ``cpu``. Imports torch."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def gpu_present() -> bool:
    """Whether this machine shows a GPU of NVIDIA or AMD and SSTMERGE_DEVICE does not ask for the CPU. No torch."""
    if os.environ.get("SSTMERGE_DEVICE", "").startswith("cpu") or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return False
    return Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists()


@cache
def fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; where it does not, float32 is three times faster (measured)."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def free_memory(device: str) -> int:
    """Bytes that can still be had on ``cpu`` or a CUDA device without swapping."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return int(psutil.virtual_memory().available)


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
