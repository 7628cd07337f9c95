"""Time and memory that one hostile input may take."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Iterator

SECONDS = 5.0
BYTES = 500_000_000


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Fails where the block takes more than `SECONDS` of this process's time, or `BYTES` more than it ever had."""
    before, begun = _most(), time.process_time()
    yield
    assert time.process_time() - begun < SECONDS
    assert _most() - before < BYTES


def _most() -> int:
    """The most bytes that the process had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
