"""What the server holds stays what its pages need: freed memory goes back to the system, where the C library is glibc.

Streamlit runs a page in a new thread each time. Each thread may get an arena of the C library's of its own, up to eight
a core, and an arena keeps what was freed in it: with eight visitors a third of what the server had taken was free.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import time

ARENAS = 2
"""Pages wait for the interpreter far longer than for one of two arenas"""
TRIM_EVERY = 20.0
"""Seconds between two returns of memory while pages are drawn"""
_M_ARENA_MAX = -8
"""From glibc's malloc.h"""


def bound_arenas() -> bool:
    """Have threads that are started from now on share `ARENAS` arenas; whether that could be done."""
    with contextlib.suppress(OSError, AttributeError):
        return sys.platform == "linux" and bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, ARENAS))
    return False


def trim() -> bool:
    """Give back what is free; whether there was anything. Takes some milliseconds."""
    with contextlib.suppress(OSError, AttributeError):
        return sys.platform == "linux" and bool(ctypes.CDLL(None).malloc_trim(0))
    return False


class Trimmer:
    """`trim` now and then while somebody uses the server, and once after."""

    def __init__(self) -> None:
        self._last = 0.0

    def look(self, asked: float) -> bool:
        """Trim where a page was drawn (`asked`, by the monotonic clock) since the last time; whether it did."""
        now = time.monotonic()
        if asked <= self._last or now - self._last < TRIM_EVERY:
            return False
        self._last = now
        trim()
        return True
