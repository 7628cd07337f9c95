"""Which devices a job may take, what they are called, and which of them are one and the same. No torch."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sstmerge_core.errors import JobError, Problem
from sstmerge_core.models.device import devices
from sstmerge_core.models.placement import SHARES

CPU_WORKERS = "SSTMERGE_WORKERS"
"""How many workers a job may have at once on the CPU where nothing else is said"""


def default_device() -> str:
    """Where a job runs unless told otherwise, found without torch: ``SSTMERGE_DEVICE``, the first GPU, or the CPU."""
    if named := os.environ.get("SSTMERGE_DEVICE"):
        return canonical(named)
    return next((name for name in devices() if name.startswith("cuda")), "cpu")


def canonical(device: str) -> str:
    """``cuda`` is ``cuda:0``."""
    return f"{device}:0" if device in ("cuda", "mps") else device


def place(device: str) -> str:
    """What a device is in the machine: ``cuda:0`` of a process that is shown GPU 2 alone is GPU 2.

    Two processes with another CUDA_VISIBLE_DEVICES each call other GPUs by the same name.
    """
    kind, _, index = canonical(device).partition(":")
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if kind != "cuda" or shown is None:
        return canonical(device)
    names = [name.strip() for name in shown.split(",") if name.strip()]
    chosen = names[int(index)] if index.isdigit() and int(index) < len(names) else index
    return f"cuda:{chosen}"


def is_shared(device: str) -> bool:
    """Whether the system shares a device out itself, as it does the CPU; a GPU's memory is one holder's."""
    return canonical(device).partition(":")[0] not in ("cuda", "mps")


def spread(device: str, workers: int | None = None) -> tuple[list[str], int]:
    """The devices that a sweep asked for on `device` may take, and how many workers it may have at most.

    On a GPU that nobody named, every GPU that this process is shown; on the CPU one worker unless `workers` or
    ``SSTMERGE_WORKERS`` says more. One on a GPU where ``SSTMERGE_SHARES`` spreads a model, as it takes them all. Raises
    JobError for a number that is none.
    """
    device = canonical(device)
    if not is_shared(device) and os.environ.get(SHARES, "").strip():
        return [device], 1
    named = os.environ.get(CPU_WORKERS, "")
    if workers is None and named and not is_shared(device):
        named = ""  # of the CPU
    count = _whole(workers if workers is not None else named or None)
    if is_shared(device):
        return [device], count or 1
    every = [device, *(name for name in devices() if name.partition(":")[0] == device.partition(":")[0])]
    found = list(dict.fromkeys(every))
    return found, count or len(found)


def threads(workers: int) -> int:
    """Threads of each of so many workers that share the CPU."""
    return max(1, len(os.sched_getaffinity(0)) // workers if hasattr(os, "sched_getaffinity") else 1)


def _whole(given: int | str | None) -> int | None:
    if given is None:
        return None
    try:
        count = int(given)
    except ValueError:
        count = 0
    if count < 1:
        raise JobError(Problem(f"workers {given}", "is no number of workers", "Give a whole number from 1 on."))
    return count


def allowed(named: Sequence[str], device: str) -> list[str]:
    """A job's devices: those of its row, in older rows its one device."""
    return list(named) or [device]
