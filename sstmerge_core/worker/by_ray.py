"""Workers as actors of Ray: one on each GPU, or on a share of the CPUs, wherever the cluster has room for it.

An actor ends with the process that made it. Without an address Ray starts on this machine and ends with this process;
what it and the actors write goes into one temporary folder, which goes too, at the latest when the next one starts.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from sstmerge_core.jobs.backends import RAY, Assignment, Batch
from sstmerge_core.jobs.devices import threads
from sstmerge_core.resources import IMPORTED_FROM
from sstmerge_core.worker.remote import Remote

REPLY_SECONDS = 60.0
"""Within which a living actor answers a question that costs it nothing"""
OBJECT_STORE = 256 << 20
"""Bytes of memory for what travels, where Ray is started here"""
LONGEST = 40
"""Characters of a temporary folder: Ray's sockets lie 60 below it, and the address of a socket has 107"""
_SCRATCH = re.compile(r"sst-ray-(\d+)-.+")
_LEAVE_SECONDS = 10.0
"""Within which actors clear up after themselves"""


@dataclass
class Actor:
    """What is known here of one actor."""

    handle: Any
    greeting: Any
    ready: bool = False
    dead: bool = False
    asked: Any = None
    """The outstanding question for batches"""
    given: list[Any] = field(default_factory=list)


class RayBackend:
    """See `jobs.backends.Backend`."""

    name = RAY

    def __init__(self, address: str | None, workers: int, execute: str):
        import ray

        self._ray, self._execute = ray, execute
        self._actors: list[Actor] = []
        self._scratch: Path | None = None
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        if address is None:
            # what is started here has this process's variables: workers that are already there can be taken
            paths = [str(IMPORTED_FROM), *filter(None, [os.environ.get("PYTHONPATH")])]
            os.environ["PYTHONPATH"] = os.pathsep.join(paths)
            os.environ.setdefault("OMP_NUM_THREADS", str(threads(workers)))
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            self._scratch = scratch()
            with _temporary(self._scratch):
                ray.init(
                    address="local",
                    num_cpus=workers,
                    object_store_memory=OBJECT_STORE,
                    include_dashboard=False,
                    _temp_dir=str(self._scratch) if self._scratch else None,
                    **quiet,
                )
        else:
            ray.init(address=address, **quiet)
        gpus = ray.cluster_resources().get("GPU", 0)
        given: dict[str, Any] = {"num_cpus": 1, "num_gpus": 1 if gpus else 0, "max_concurrency": 4, "max_restarts": 0}
        if address is not None:  # of the GPUs of its machine an actor is shown its own, which it knows as the first
            variables = {"OMP_WAIT_POLICY": "PASSIVE", "SSTMERGE_DEVICE": "cuda:0" if gpus else "cpu"}
            given["runtime_env"] = {"env_vars": variables}
        self._actor: Any = ray.remote(Remote).options(**given)

    def start(self) -> Actor:
        made: Any = self._actor.remote(self._execute)
        self._actors.append(Actor(made, made.lacks.remote([])))
        return self._actors[-1]

    def ready(self, handle: Actor) -> bool:
        """Whether the actor has found a place and has been made."""
        if not handle.ready and not handle.dead:
            done, _ = self._ray.wait([handle.greeting], timeout=0)
            handle.ready = bool(done) and self._answer(handle, handle.greeting) is not None
        return handle.ready and not handle.dead

    def lacks(self, handle: Actor, paths: list[str]) -> list[str]:
        return self._answer(handle, handle.handle.lacks.remote(paths)) or []

    def bring(self, handle: Actor, path: str, name: str, content: bytes) -> None:
        self._answer(handle, handle.handle.bring.remote(path, name, content), seconds=None)

    def give(self, handle: Actor, work: Assignment) -> None:
        handle.asked = None
        self._answer(handle, handle.handle.give.remote(work))

    def take(self, handle: Actor, after: int) -> list[Batch]:
        """What an earlier question has been answered by; one question is under way at a time."""
        if handle.dead:
            return []
        if handle.asked is None:
            handle.asked = handle.handle.take.remote(after)
            return []
        done, _ = self._ray.wait([handle.asked], timeout=0)
        if not done:
            return []
        asked, handle.asked = handle.asked, None
        found: list[Batch] = self._answer(handle, asked) or []
        return found

    def alive(self, handle: Actor) -> bool:
        if not handle.dead and not handle.ready:
            self.ready(handle)
        return not handle.dead

    def cancel(self, handle: Actor) -> None:
        if not handle.dead:
            handle.handle.cancel.remote()

    def kill(self, handle: Actor) -> None:
        handle.dead = True
        self._ray.kill(handle.handle)

    def close(self) -> None:
        """Have the actors clear up, end Ray where it was started here, and remove what it wrote."""
        cleared = [one.handle.close.remote() for one in self._actors if one.ready and not one.dead]
        if cleared:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.wait(cleared, num_returns=len(cleared), timeout=_LEAVE_SECONDS)
        self._ray.shutdown()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _answer(self, handle: Actor, reference: Any, seconds: float | None = REPLY_SECONDS) -> Any:
        """What an actor replies; None, and the actor counts as dead, where it or its node is gone."""
        if handle.dead:
            return None
        try:
            return self._ray.get(reference, timeout=seconds)
        except (self._ray.exceptions.RayActorError, self._ray.exceptions.GetTimeoutError) as error:
            print(f"An actor is gone: {_said(error)}", file=sys.stderr, flush=True)
            handle.dead = True
            return None


def scratch() -> Path | None:
    """A new folder of this process for what Ray writes; None where the system's own is too deep for its sockets.

    Those of processes that have ended, as after a kill, are removed.
    """
    place = Path(tempfile.gettempdir())
    for left in place.glob("sst-ray-*"):
        match = _SCRATCH.fullmatch(left.name)
        if match is not None and not psutil.pid_exists(int(match[1])):
            shutil.rmtree(left, ignore_errors=True)
    prefix = f"sst-ray-{os.getpid()}-"
    if len(str(place / prefix)) + 8 > LONGEST:
        return None
    return Path(tempfile.mkdtemp(prefix=prefix))


@contextlib.contextmanager
def _temporary(folder: Path | None) -> Iterator[None]:
    """Processes that are started inside, and those that they start, have their temporary files in `folder`."""
    before = os.environ.get("TMPDIR")
    if folder is not None:
        os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        if before is not None:
            os.environ["TMPDIR"] = before
        elif folder is not None:
            del os.environ["TMPDIR"]


def _said(error: Exception) -> str:
    """The first and the last line of what Ray says, which may be pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " … ".join(dict.fromkeys([lines[0], lines[-1]]))
