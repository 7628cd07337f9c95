"""One job on the workers of a backend: starts them, hands out trials, collects what they tell. No torch.

This process claims trials in the name of its far workers and is the only one that writes. A worker that is lost costs
what it was at since its last batch; the next attempt goes on from what has arrived.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sstmerge_core.errors import Cancelled, JobError, Problem
from sstmerge_core.jobs.backends import RAY, SLURM, Assignment, Backend, Batch, missing
from sstmerge_core.jobs.dispatch import GRACE
from sstmerge_core.jobs.model import Job
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.jobs.trials import Trial, Trials
from sstmerge_core.recipe import Recipe
from sstmerge_core.worker.collector import Collector, arrived
from sstmerge_core.worker.remote import places
from sstmerge_core.worker.trial_loop import insist
from sstmerge_core.workspace import Workspace

POLL = 0.1
"""Seconds between two looks at the workers"""
BEAT = 1.0
MOST_IN_VAIN = 3
"""Workers that may end before they were given anything"""


@dataclass
class Slot:
    """A far worker as it is known here."""

    name: str
    handle: Any
    trials: Trials
    trial: Trial | None = None
    family: str | None = None
    given: int = 0
    brought: set[str] = field(default_factory=set)


def backend_of(spec: dict[str, Any], execute: str, folder: Path) -> Backend:
    """The backend that a job asks for. Raises JobError where it is not installed."""
    name = spec["name"]
    if (how := missing(name)) is not None:
        raise JobError(Problem(f"backend {name}", "is not installed", f"`{how}`"))
    if name == RAY:
        from sstmerge_core.worker.by_ray import RayBackend

        return RayBackend(spec.get("address") or None, spec["workers"], execute)
    if name == SLURM:
        from sstmerge_core.worker.by_slurm import SlurmBackend

        return SlurmBackend(folder, execute, spec.get("cluster") or None)
    raise JobError(Problem(f"backend {name}", "is not known", "Use local, ray or slurm."))


class Spread:
    """The trials of one job, on up to `count` workers of a backend."""

    def __init__(self, workspace: Workspace, job: Job, recipes: Sequence[Recipe], backend: Backend, count: int):
        self._workspace, self._job, self._backend, self._count = workspace, job, backend, count
        self._queue = Queue(workspace)
        self._recipes = list(recipes)
        self._by_run = {one.run_id: one for one in filter(None, (recipe.reference for recipe in recipes))}
        self._by_run |= {recipe.run_id: recipe for recipe in recipes}
        self._trials = Trials(workspace, job.job_id, "")
        self._collector = Collector(workspace)
        self._slots: list[Slot] = []
        self._started = self._in_vain = 0
        self._beaten = 0.0

    def run(self, monitor: Any) -> tuple[str, str | None]:
        """Until every trial has ended; the job's state and its errors in one line. Raises Cancelled, JobError."""
        insist(lambda: self._trials.fill(self._recipes))
        try:
            while (count := insist(self._trials.count)).open:
                if monitor.should_cancel():
                    self._stop()
                    raise Cancelled(f"job {self._job.job_id}")
                self._start(min(self._count, count.open))
                for slot in list(self._slots):
                    self._attend(slot, monitor)
                self._beat()
                time.sleep(POLL)
        finally:
            for slot in self._slots:
                self._backend.kill(slot.handle)
            self._collector.close()
            self._backend.close()
        faults = self._trials.faults()
        return ("failed" if faults else "done"), "; ".join(faults) or None

    def _start(self, wanted: int) -> None:
        while len(self._slots) < wanted:
            self._started += 1
            name = f"{self._backend.name} {self._started} of process {os.getpid()}"
            self._slots.append(Slot(name, self._backend.start(), Trials(self._workspace, self._job.job_id, name)))

    def _attend(self, slot: Slot, monitor: Any) -> None:
        """Hand out a trial, take in what came of it, or note that the worker is gone."""
        if slot.trial is None and self._backend.ready(slot.handle):
            slot.trial = insist(lambda: slot.trials.next(slot.family))
            if slot.trial is not None:
                self._give(slot, slot.trial)
        if slot.trial is not None:
            for batch in self._backend.take(slot.handle, self._collector.number(slot.trial.run)):
                self._receive(slot, batch, monitor)
        if not self._backend.alive(slot.handle):
            self._lose(slot)

    def _give(self, slot: Slot, trial: Trial) -> None:
        recipe = self._by_run[trial.run].model_dump(mode="json")
        for path in self._backend.lacks(slot.handle, [one for one in places(recipe) if one not in slot.brought]):
            for name, file in files_of(Path(path)):
                self._backend.bring(slot.handle, path, name, file.read_bytes())
        slot.brought |= set(places(recipe))
        known = {trial.run: self._collector.begin(trial.run, trial.attempt)}
        if trial.needs is not None:
            known[trial.needs] = arrived(self._workspace, trial.needs)
        work = Assignment(trial.run, trial.attempt, recipe, known, self._job.user, self._job.job_id)
        self._backend.give(slot.handle, work)
        slot.given += 1
        slot.family = trial.family

    def _receive(self, slot: Slot, batch: Batch, monitor: Any) -> None:
        trial = slot.trial
        if trial is None or not insist(lambda: self._collector.add(batch)):
            return
        if batch.progress is not None:
            at_work = sum(one.trial is not None for one in self._slots)
            monitor.tell(f"{at_work} workers" if at_work > 1 else "")
            monitor.report(trial.number, *batch.progress)
        if batch.ended is None:
            return
        self._collector.end(trial.run)
        slot.trial = None
        state = {"cancelled": "waiting", "broken": "failed"}.get(batch.ended, batch.ended)
        insist(lambda: slot.trials.ended(trial, state, batch.error))
        if batch.ended == "broken":
            raise RuntimeError(batch.error)

    def _lose(self, slot: Slot) -> None:
        """A worker is gone: what it was at is handed out again."""
        self._slots.remove(slot)
        if slot.trial is not None:
            self._collector.end(slot.trial.run)
            print(f"{slot.name} is gone; {slot.trial.run} is handed out again.", flush=True)
        elif not slot.given:
            self._in_vain += 1
            if self._in_vain >= MOST_IN_VAIN:
                fix = "Its log says more; `sstmerge jobs resume` tries again."
                raise JobError(Problem(f"backend {self._backend.name}", "no worker of it stays alive", fix))
        insist(lambda: self._queue.release(self._job.job_id, slot.name))

    def _stop(self) -> None:
        """Cancel by the flag, and give what was under way a moment to say how far it came."""
        for slot in self._slots:
            self._backend.cancel(slot.handle)
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline and any(slot.trial for slot in self._slots):
            for slot in list(self._slots):
                if slot.trial is not None and self._backend.alive(slot.handle):
                    for batch in self._backend.take(slot.handle, self._collector.number(slot.trial.run)):
                        self._receive(slot, batch, _Silent())
            time.sleep(POLL)
        for slot in self._slots:
            insist(lambda: self._queue.release(self._job.job_id, slot.name, lost=False))  # noqa: B023

    def _beat(self) -> None:
        """Extend the leases of what is under way."""
        if time.monotonic() - self._beaten >= BEAT:
            self._beaten = time.monotonic()
            for slot in self._slots:
                if slot.trial is not None:
                    insist(lambda: self._queue.extend(self._job.job_id, slot.name))  # noqa: B023


class _Silent:
    """In place of a monitor, once nothing is told any more."""

    def tell(self, part: str) -> None:
        pass

    def report(self, point: int, stage: str, done: float, total: float) -> None:
        pass


def files_of(path: Path) -> list[tuple[str, Path]]:
    """A file itself under the name '', or every file of a folder by its path within it."""
    if path.is_file():
        return [("", path)]
    return [(str(one.relative_to(path)), one) for one in sorted(path.rglob("*")) if one.is_file()]


def described(spec: dict[str, Any]) -> str:
    """A job's backend as its log tells it."""
    return json.dumps({name: value for name, value in spec.items() if value}, sort_keys=True)
