"""Where a child dies, or its disk fills up, or its clock jumps: at the n-th line it runs of a stage's code."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from benchmarks.browser import ROOT

Scope = tuple[str, ...]
"""Files, or functions of files behind a colon, by the end of the path: ``store/owner.py:ingest``; ``/`` ends folders"""

STAGES: dict[str, Scope] = {
    "queue": (
        *("worker/__init__.py", "worker/trial_loop.py", "jobs/queue.py", "jobs/trials.py", "jobs/choice.py"),
        *("jobs/database.py", "jobs/dispatch.py"),
    ),
    "gradients": ("sstmerge_core/fisher/", "runs/session.py:_gradients", "runs/session.py:calibrated"),
    "fitting": ("sstmerge_core/fitting/", "runs/fit_stage.py"),
    "merge": ("sstmerge_core/merge/", "runs/execute.py:_merge_stage", "runs/execute.py:merge_now", "gevp/"),
    "adapter writing": (
        "adapters/write.py",
        "adapters/safetensors_writer.py",
        "workspace.py:new_folder",
        "workspace.py:write_file",
        "runs/artifact.py",
        "runs/card.py",
    ),
    "generation": (
        "evaluate/generate.py",
        "models/resident.py",
        "runs/execute.py:_generate",
        "runs/session.py:planned_rows",
    ),
    "scoring": (
        "evaluate/judge.py",
        "evaluate/judges_refusal.py",
        "evaluate/metric_rows.py",
        "runs/execute.py:_evaluate_stages",
        "runs/execute.py:measure",
        "runs/execute.py:_against",
    ),
}
"""Stages of a worker. ``reference`` is all of them within the run that the Safety Tax is measured against."""
REFERENCE = "reference"
OTHER: dict[str, Scope] = {
    "ingest": ("store/owner.py", "store/fold.py"),
    "snapshot": ("store/snapshot.py", "store/owner.py:publish"),
    "rebuild": ("store/owner.py", "store/snapshot.py", "store/fold.py"),
    "backup": ("upkeep/backup.py",),
    "restore": ("upkeep/backup.py", "workspace.py:new_folder"),
    "import": ("upkeep/importing.py", "store/events.py", "store/saved.py", "workspace.py:new_folder"),
    "training": ("train/__init__.py", "train/trainer.py", "train/checkpoint.py", "workspace.py:new_folder"),
    "registration": ("sstmerge_core/catalog/", "adapters/fingerprint.py", "store/events.py"),
    "page": ("/pages/", "studio/"),
    "launch": (
        *("jobs/__init__.py:submit", "jobs/queue.py", "jobs/trials.py", "jobs/choice.py", "jobs/database.py"),
        *("jobs/dispatch.py", "jobs/backends/local.py"),
    ),
}
"""Stages of the server and of the command line"""


@dataclass
class Trap:
    """Calls `act` once, at the `nth` line of a stage; with `nth` None it only counts lines and seconds."""

    scope: Scope
    act: Callable[[], None]
    nth: int | None = None
    reference: bool | None = None
    """Only within the run of the reference, only outside of it, or everywhere"""

    def __post_init__(self) -> None:
        self.lines = 0
        self.first = self.last = 0.0
        self._inside: set[int] = set()
        self._known: dict[CodeType, bool] = {}
        self._lock = threading.Lock()

    def set(self) -> None:
        """Watch every thread of this process from here on."""
        threading.settrace(self._call)
        sys.settrace(self._call)

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        if code.co_name == "run" and self.reference is not None and code.co_filename.endswith("runs/execute.py"):
            recipe = frame.f_locals.get("recipe")
            if recipe is not None and recipe.method == "adapter":
                self._inside.add(id(frame))
                return self._left
            return None
        if code not in self._known:
            self._known[code] = in_scope(code, self.scope)
        return self._line if self._known[code] else None

    def _left(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "return":
            self._inside.discard(id(frame))
        return self._left

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line" and (self.reference is None or bool(self._inside) == self.reference):
            with self._lock:
                self.lines += 1
                self.last = time.monotonic()
                self.first = self.first or self.last
                due = self.lines == self.nth
            if due:
                self.act()
        return self._line


class Census:
    """Counts the lines and the seconds of every stage in one run."""

    def __init__(self, stages: dict[str, Scope]) -> None:
        self.traps = {name: Trap(scope, lambda: None, None, False) for name, scope in stages.items()}
        every = tuple(part for scope in stages.values() for part in scope)
        self.traps[REFERENCE] = Trap(every, lambda: None, None, True)

    def set(self) -> None:
        threading.settrace(self._call)
        sys.settrace(self._call)

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        followers = [found for trap in self.traps.values() if (found := trap._call(frame, event, argument))]
        if not followers:
            return None

        def follow(frame: FrameType, event: str, argument: Any) -> Any:
            for one in followers:
                one(frame, event, argument)
            return follow

        return follow

    def found(self) -> dict[str, dict[str, int]]:
        return {name: dict(counts(trap)) for name, trap in self.traps.items()}


def in_scope(code: CodeType, scope: Scope) -> bool:
    if not code.co_filename.startswith(str(ROOT)):
        return False
    for one in scope:
        place, _, function = one.partition(":")
        found = place in code.co_filename if place.endswith("/") else code.co_filename.endswith(place)
        if found and (not function or function in code.co_qualname.split(".")):
            return True
    return False


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def tell(pipe: int) -> Callable[[], None]:
    """An act that says through a pipe that the stage has begun, and watches no more: the end comes from outside."""

    def said() -> None:
        sys.settrace(None)
        threading.settrace(None)
        os.write(pipe, b".")

    return said


WRITTEN = {
    "generation": ("plan", "samples"),
    "scoring": ("verdicts", "metrics"),
    "merge": ("module_stats", "spectrum"),
    "adapter writing": ("artifact",),
    "reference": ("run_started", "samples", "verdicts", "metrics"),
}
"""Events of a stage, whose lines can be torn"""


def tear(names: tuple[str, ...], nth: int, share: float) -> None:
    """Have the `nth` event of `names` that this process writes end after a share of its bytes, and the process too."""
    from sstmerge_core.store import events

    whole, left = events.EventWriter.write, nth

    def write(self: events.EventWriter, event: str, **fields: Any) -> None:
        nonlocal left
        left -= event in names
        if event in names and left == 0:
            line = events.encode({"event": event, "t": time.time(), **fields})
            self._file.write(line[: max(1, int(share * (len(line) - 1)))])
            die()
        whole(self, event, **fields)

    events.EventWriter.write = write  # type: ignore[method-assign]


def fill(folder: Path, left: int) -> Callable[[], None]:
    """An act that fills the disk of `folder` up to `left` bytes."""

    def filled() -> None:
        with open(folder / "filler", "ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 20))
            except OSError:
                pass
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
            file.truncate(max(0, file.tell() - left))

    return filled


def jump(seconds: float) -> Callable[[], None]:
    """An act that sets this process's clock forward or back; what `time.monotonic` tells goes on."""

    def jumped() -> None:
        now = time.time
        time.time = lambda: now() + seconds
        exact = time.time_ns
        time.time_ns = lambda: exact() + int(seconds * 1e9)

    return jumped


def counts(trap: Trap) -> Counter[str]:
    return Counter({"lines": trap.lines, "ms": int(1000 * (trap.last - trap.first))})
