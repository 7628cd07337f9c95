"""What every benchmark here shares: ours and the peer take turns, medians, one JSON object a line."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from sstmerge_core.models.device import share_the_machine

Line = dict[str, Any]


def parser(about: str | None) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks have."""
    found = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--times", type=int, default=5, help="turns that count; the first one never does")
    return found


def take_turns(ours: Callable[[], Any], peer: Callable[[], Any], times: int) -> tuple[float, float]:
    """Median seconds of both, so that a busy machine slows both; the first turn warms up, and who is first changes."""
    seconds: dict[int, list[float]] = {0: [], 1: []}
    for turn in range(times + 1):
        for side in (0, 1) if turn % 2 else (1, 0):
            begun = time.perf_counter()
            (ours, peer)[side]()
            _wait()
            if turn:
                seconds[side].append(time.perf_counter() - begun)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def compared(name: str, own: float, other: float, limit: float, unit: str = "s") -> Line:
    """A result; `limit` is the most that ours/peer may be."""
    digits = 3 if unit == "s" else None
    values = {f"ours_{unit}": round(own, digits), f"peer_{unit}": round(other, digits)}
    return {"name": name, **values, "ratio": round(own / other, 3), "limit": limit}


def within(name: str, seconds: float, allowed: float) -> Line:
    """A result without a peer: seconds of those that are allowed."""
    values = {"ours_s": round(seconds, 3), "allowed_s": allowed}
    return {"name": name, **values, "ratio": round(seconds / allowed, 3), "limit": 1.0}


def peak_growth(work: Callable[[], Any]) -> int:
    """By how many bytes `work` (it can be pickled) makes a process of its own larger at most, imports not counted."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_growth, work).result()


def _growth(work: Callable[[], Any]) -> int:
    share_the_machine()
    import torch

    torch.ones(8, 8) @ torch.ones(8, 8)  # the arithmetic library takes its memory at the first product
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = memory("VmRSS")
    work()
    return memory("VmHWM") - before


def memory(entry: str) -> int:
    """Bytes of an entry of /proc/self/status: VmRSS is the process's memory, VmHWM its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{entry}:"))) * 1024


def report(lines: Iterable[Line]) -> int:
    """Print each result as it comes, with its device; 1 if one is over its limit, else 0."""
    over = []
    for line in lines:
        print(json.dumps({**line, "device": line.get("device", device())}), flush=True)
        if line["ratio"] > line["limit"]:
            over.append(line["name"])
    if over:
        print(f"over the limit: {', '.join(over)}", file=sys.stderr)
    return 1 if over else 0


def device() -> str:
    """The GPU where there is one, otherwise the processor, in words."""
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} cores, {platform.machine()}"


def _wait() -> None:
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        torch.cuda.synchronize()
