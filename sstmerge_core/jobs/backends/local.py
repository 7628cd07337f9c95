"""Workers as detached processes of this machine: they survive the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

from sstmerge_core.jobs.backends import RAY, SLURM
from sstmerge_core.jobs.model import INSPECTION, NETWORK
from sstmerge_core.jobs.process import Process
from sstmerge_core.resources import IMPORTED_FROM
from sstmerge_core.workspace import Workspace

MALLOC = str(1 << 30)
"""Bytes below which glibc keeps freed memory: returning every tensor to the kernel costs a third of the time on CPU."""


def start(workspace: Workspace, job_id: str, device: str, *, on_exit: Callable[[], None]) -> Process:
    """Start the worker of a job, in a session of its own, its output in the job's log.

    `on_exit` is called in a thread once the worker has ended, if this process still lives. Raises OSError.
    """
    workspace.create()
    command = [sys.executable, "-m", "sstmerge_core.worker", "--workspace", str(workspace.root), "--job", job_id]
    with open(workspace.logs / f"{job_id}.log", "ab") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment(device),
        )
    threading.Thread(target=_reap, args=(child, on_exit), daemon=True, name=f"reap {job_id}").start()
    return Process.of(child.pid)


def alive(handle: Process) -> bool:
    """Whether the worker still runs."""
    return handle.alive()


def cancel(handle: Process) -> None:
    """Ask it to stop at its next look."""
    handle.signal_group(signal.SIGTERM)


def kill(handle: Process) -> None:
    """End it now, with its children."""
    handle.kill()


def environment(device: str) -> dict[str, str]:
    """The worker's environment. The package is found where this one was, installed or not."""
    paths = [str(IMPORTED_FROM), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "SSTMERGE_DEVICE": "cpu" if device in (INSPECTION, NETWORK, RAY, SLURM) else device,
        "MALLOC_MMAP_THRESHOLD_": MALLOC,
        "MALLOC_TRIM_THRESHOLD_": MALLOC,
    }


def _reap(child: subprocess.Popen[bytes], on_exit: Callable[[], None]) -> None:
    child.wait()
    on_exit()
