"""Time and memory that one hostile input may take."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

SECONDS = 5.0
BYTES = 500_000_000


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Fails where the block takes more than `SECONDS` of this process's time, or `BYTES` more than it has now."""
    before, begun = reset_peak(), time.process_time()
    yield
    assert time.process_time() - begun < SECONDS
    assert peak() - before < BYTES


def reset_peak() -> int:
    """Set the high-water mark of this process's memory to what it has now, where the system can; returns it in bytes.

    Elsewhere it is the most that the process ever had, and what stays below that is not seen.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """The most bytes that the process had in memory since the last `reset_peak`."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
