"""Keeps the queue moving: starts what may start, and tells the truth about workers that died.

Called by everyone who looks at the queue (a page, the command line, a worker that ends): there is no daemon.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator

from sstmerge_core.errors import OF_SQLITE, JobError, StoreError
from sstmerge_core.jobs import leases
from sstmerge_core.jobs.backends import local
from sstmerge_core.jobs.model import Job
from sstmerge_core.jobs.process import Process
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.jobs.trials import Trials
from sstmerge_core.store.events import EventWriter, last_status
from sstmerge_core.workspace import Workspace

GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""
RELEASE = 2.0
"""Seconds within which the system has closed the files of a killed process and of its children."""
SILENCE = 60.0
"""A worker on another machine is lost after this long without a heartbeat."""
POLL = 1.0
"""Seconds between two looks whether a device is free"""
LOST = "The worker ended without a word: it was killed, or the machine ran out of memory or was restarted."


def settle(workspace: Workspace) -> None:
    """Bring the queue in line with reality, then start every job whose device is free."""
    reconcile(workspace)
    queue = Queue(workspace)
    again = functools.partial(_after_worker, workspace)
    while queue.start_one(lambda job_id, device: local.start(workspace, job_id, device, on_exit=again)):
        pass


def reconcile(workspace: Workspace) -> None:
    """Take workers that are gone off the list, and kill those that will not stop.

    What such a worker was at goes back to the others of its job. A job that none is left of ends: ``cancelled`` if it
    was asked to, ``lost`` if it had but one worker, else it gets another one.
    """
    leases.forget_the_dead(workspace)
    queue = Queue(workspace)
    for worker in queue.workers():
        process, cancel_at = worker.process, worker.cancel_at
        if not process.local:
            gone = time.time() - worker.heartbeat_at > SILENCE
        else:
            # a clock that was set back since must not make the grace an hour
            if cancel_at is not None and not 0 <= time.time() - cancel_at < GRACE:
                local.kill(process)
            gone = not local.alive(process)
        if gone:
            queue.bury(worker)
    for job, cancel_at, trials in queue.unattended():
        if cancel_at is not None:
            close_runs(workspace, job)  # first, so that whoever sees a cancelled job finds its runs cancelled too
            queue.end_unattended(job.job_id, "cancelled")
        elif trials.done + trials.failed and not trials.open:  # it died after its last word
            faults = Trials(workspace, job.job_id, "").faults()
            queue.end_unattended(job.job_id, "failed" if faults else "done", "; ".join(faults) or None)
        elif job.workers == 1 or not trials.open:
            queue.end_unattended(job.job_id, "lost", LOST)


@contextlib.contextmanager
def holding(
    workspace: Workspace, device: str, holder: str, user: str = "", waiting: Callable[[str], None] = lambda by: None
) -> Iterator[None]:
    """A device for as long as the block takes, which begins when nobody else has it; `waiting` is told who does."""
    while (by := leases.take(workspace, device, holder, user)) is not None:
        waiting(by)
        time.sleep(POLL)
        reconcile(workspace)
    try:
        yield
    finally:
        leases.give_back(workspace, device)
        settle(workspace)


def stop(workspace: Workspace, process: Process) -> None:
    """SIGTERM a worker now and see to it, in a thread, that it is gone after the grace period."""
    local.cancel(process)

    def follow() -> None:
        if not process.wait(GRACE):
            local.kill(process)
        settle(workspace)

    # Not a daemon: a command line that cancels waits for these few seconds before it exits.
    threading.Thread(target=follow, name=f"stop {process.pid}").start()


def close_runs(workspace: Workspace, job: Job) -> None:
    """Say in the event files of a cancelled job's runs that they were cancelled, where the worker had no time to.

    A run that somebody holds for longer than `RELEASE` is another job's, which is at work on it: it goes on.
    """
    for run_id in job.run_ids:
        folder = workspace.run(run_id)
        if last_status(folder) == "running":
            with contextlib.suppress(StoreError), EventWriter(folder, wait=RELEASE) as events:
                if last_status(folder) == "running":  # its end may have been written while this waited
                    events.write("run_cancelled")


def _after_worker(workspace: Workspace) -> None:
    # The workspace may have been deleted meanwhile (tests), or its disk be full: who next looks at the queue does the
    # same again, and is told.
    if workspace.queue.exists():
        with contextlib.suppress(OSError, *OF_SQLITE, JobError):
            settle(workspace)
