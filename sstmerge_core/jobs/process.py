"""Which process a job belongs to. A pid alone is not an identity: it is used again, and a zombie keeps it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """The leader of a worker's process group."""

    pid: int
    started: int
    """Start time in clock ticks since boot, from /proc/<pid>/stat; elsewhere what `psutil` tells"""
    host: str

    @classmethod
    def of(cls, pid: int) -> Process:
        """The running process `pid`. Raises OSError when there is none."""
        _, _, started = _stat(pid)
        return cls(pid, started, socket.gethostname())

    @property
    def name(self) -> str:
        """One text for all three, by which rows of the queue know a worker."""
        return f"{self.host}:{self.pid}:{self.started}"

    @property
    def local(self) -> bool:
        return self.host == socket.gethostname()

    def alive(self) -> bool:
        """Whether this very process still runs, one of its threads included; an unreaped child does not.

        After SIGKILL the first thread can be gone while others still hold the process's files and their locks.
        """
        try:
            state, threads, started = _stat(self.pid)
        except OSError:
            return False
        return started == self.started and (state not in "ZX" or threads > 1)

    def signal_group(self, number: int) -> None:
        """Send a signal to the process and all its children; silent when it is gone."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def kill(self, wait: float = 1.0) -> None:
        """SIGKILL the group and wait until it is gone."""
        self.signal_group(signal.SIGKILL)
        self.wait(wait)

    def wait(self, seconds: float) -> bool:
        """Whether the process ended within `seconds`."""
        deadline = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        return True


PROC = Path("/proc")


def _stat(pid: int) -> tuple[str, int, int]:
    """State letter of the first thread, number of threads, and start time of the process. Raises OSError without one.

    The command name may hold spaces and brackets, so fields count from the last one.
    """
    if not (PROC / "self").exists():  # macOS
        return _stat_by_psutil(pid)
    fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[17]), int(fields[19])


def _stat_by_psutil(pid: int) -> tuple[str, int, int]:
    """The same where the system has no /proc; the start time in hundredths of a second since 1970."""
    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            gone = process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
            # of a zombie nothing more is told, and its threads are gone
            return ("Z", 1, 0) if gone else ("R", process.num_threads(), round(100 * process.create_time()))
    except psutil.Error as error:
        raise ProcessLookupError(str(error)) from None
