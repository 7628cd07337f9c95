"""How fast this machine is just now: half a second of matrix products, kept for a while. Needs NumPy alone.

Times of earlier jobs are from a machine that was as busy as it was then, and the guess before the first job is one of
another machine; what half a second of the same kind of work takes now, against what it took then, corrects both. Of a
GPU nothing is measured: what it does hangs little on what else the machine does.
"""

from __future__ import annotations

import threading
import time

REFERENCE = 0.0014
"""Seconds that `measure` gave on a machine for which `estimate.GUESS` was written: two cores, nothing else running"""
SIZE = 512
"""Rows and columns of the matrices: together 3 MB, out of the nearer caches as a model's weights are"""
MEASURE_SECONDS = 0.5
KEPT_SECONDS = 120.0
BOUNDS = (0.1, 20.0)
"""A factor beyond these is no pace but a mistake, such as a machine that slept while it was measured"""

_LOCK = threading.Lock()
_kept: tuple[float, float] | None = None
"""When it was measured, and what was found"""


def measure(seconds: float = MEASURE_SECONDS) -> float:
    """Mean seconds of one float32 product of two (512, 512) matrices, over `seconds` of wall-clock time.

    The mean, not the fastest: what other processes take is what a job will miss too.
    """
    import numpy as np

    numbers = np.random.default_rng(0)
    left, right = (numbers.standard_normal((SIZE, SIZE), dtype=np.float32) for _ in range(2))
    left @ right  # the first one starts the threads
    begun, products = time.perf_counter(), 0
    while (passed := time.perf_counter() - begun) < seconds or not products:
        left @ right
        products += 1
    return passed / products


def now(device: str, *, kept: float = KEPT_SECONDS) -> float | None:
    """`measure` of the last `kept` seconds, or of now; None where `device` is no CPU. One measurement at a time."""
    global _kept
    if device != "cpu":
        return None
    with _LOCK:
        if _kept is None or time.monotonic() - _kept[0] > kept:
            _kept = time.monotonic(), measure()
        return _kept[1]


def factor(pace: float | None, then: float | None) -> float:
    """By how much seconds that were known at the pace `then` (None: the reference) are longer now; 1 where unknown."""
    if pace is None:
        return 1.0
    return min(BOUNDS[1], max(BOUNDS[0], pace / (then or REFERENCE)))
