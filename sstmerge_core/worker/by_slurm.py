"""Workers as jobs of Slurm, by `submitit`, which needs a folder that every node sees: they are spoken to through files.

A worker looks into its folder for what it is to do, and puts what it has to tell beside it.
"""

from __future__ import annotations

import os
import pickle
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sstmerge_core.jobs.backends import SLURM, Assignment, Batch
from sstmerge_core.worker.remote import Remote
from sstmerge_core.workspace import write_file

LOOK = 0.2
"""Seconds between two looks into the folder"""
UNWATCHED = 120.0
"""Seconds without a sign of whoever started a worker, after which it ends"""
DAYS = 3


@dataclass
class Submitted:
    """What is known here of one job of Slurm."""

    job: Any
    folder: Path
    given: int = 0
    work: Assignment | None = None
    killed: bool = False
    brought: dict[str, str] = field(default_factory=dict)


class SlurmBackend:
    """See `jobs.backends.Backend`. `cluster` ``local`` runs the same as processes of this machine."""

    name = SLURM

    def __init__(self, folder: Path, execute: str, cluster: str | None = None):
        import submitit

        self._folder, self._execute, self._count = folder, execute, 0
        self._executor = submitit.AutoExecutor(folder=folder / "log", cluster=cluster)
        asked: dict[str, Any] = {"timeout_min": DAYS * 24 * 60, "tasks_per_node": 1, "name": "sstmerge"}
        if os.environ.get("SSTMERGE_SLURM_GPUS", "1") != "0" and cluster != "local":
            asked["gpus_per_node"] = 1
        self._executor.update_parameters(**asked)

    def start(self) -> Submitted:
        self._count += 1
        folder = self._folder / f"worker-{os.getpid()}-{self._count}"
        folder.mkdir(parents=True)
        touch(folder / "watched")
        return Submitted(self._executor.submit(serve, str(folder), self._execute), folder)

    def ready(self, handle: Submitted) -> bool:
        return (handle.folder / "ready").exists() and self.alive(handle)

    def lacks(self, handle: Submitted, paths: list[str]) -> list[str]:
        return []  # the folder is seen by every node, and so are the others

    def bring(self, handle: Submitted, path: str, name: str, content: bytes) -> None:
        raise AssertionError("nothing is lacking")

    def give(self, handle: Submitted, work: Assignment) -> None:
        handle.given, handle.work = handle.given + 1, work
        write_file(handle.folder / f"work-{handle.given}", pickle.dumps(work))

    def take(self, handle: Submitted, after: int) -> list[Batch]:
        touch(handle.folder / "watched")
        found = []
        number = after + 1
        while (path := handle.folder / f"batch-{handle.given}-{number}").exists():
            found.append(pickle.loads(path.read_bytes()))  # of our own worker, in a folder of our own
            number += 1
        return found

    def alive(self, handle: Submitted) -> bool:
        """Whether it waits for a place or runs; what it wrote before it ended is taken first."""
        touch(handle.folder / "watched")
        return not handle.killed and not handle.job.done()

    def cancel(self, handle: Submitted) -> None:
        touch(handle.folder / "cancel")

    def kill(self, handle: Submitted) -> None:
        handle.killed = True
        touch(handle.folder / "end")
        handle.job.cancel(check=False)

    def close(self) -> None:
        pass


def serve(folder: str, execute: str) -> None:
    """What the job of Slurm does: one assignment after another, until it is told to end or nobody is there any more."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    place = Path(folder)
    remote = Remote(execute)
    touch(place / "ready")
    given = sent = 0
    try:
        while not (place / "end").exists() and time.time() - (place / "watched").stat().st_mtime < UNWATCHED:
            if (work := place / f"work-{given + 1}").exists():
                given, sent = given + 1, 0
                remote.give(pickle.loads(work.read_bytes()))
            if (place / "cancel").exists():
                remote.cancel()
            for batch in remote.take(sent) if given else []:
                write_file(place / f"batch-{given}-{batch.number}", pickle.dumps(batch))
                sent = batch.number
            time.sleep(LOOK)
    finally:
        remote.close()


def touch(path: Path) -> None:
    """A file that is there, with the time of now."""
    path.touch()
    os.utime(path)
