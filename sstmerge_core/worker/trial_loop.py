"""What a worker does with a job of recipes: it claims one trial after another until none waits. No torch.

The model, the adapters and the gradients stay in memory from one trial to the next; which trial comes next is the
queue's to say, so that other workers can be at the same job.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sstmerge_core.errors import Cancelled, JobError, SSTMergeError
from sstmerge_core.jobs.database import opened
from sstmerge_core.jobs.dispatch import settle
from sstmerge_core.jobs.model import Job
from sstmerge_core.jobs.process import Process
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.jobs.trials import REFERENCE, Trial, Trials
from sstmerge_core.recipe import Recipe
from sstmerge_core.store.events import last_status
from sstmerge_core.workspace import Workspace

GAVE_WAY, LEFT = "gave way", "left"
"""How a worker ends besides as a job does: its device is somebody else's now; others are at what is left"""
INSIST_SECONDS = 10.0
"""How long a queue that cannot be written is tried again"""
LOOK_SECONDS = 1.0
"""Between two looks whether somebody waits for this device"""
POLL = 0.2
Told = TypeVar("Told")


class Loop:
    """One worker's way through the trials of a job."""

    def __init__(self, workspace: Workspace, job: Job, recipes: Sequence[Recipe], process: Process, execute: str):
        name, _, function = execute.partition(":")
        self._module = importlib.import_module(name)
        self._execute: Callable[..., None] = getattr(self._module, function)
        self._workspace, self._job, self._process = workspace, job, process
        self._recipes = list(recipes)
        self._by_run = {one.run_id: one for one in filter(None, (recipe.reference for recipe in recipes))}
        self._by_run |= {recipe.run_id: recipe for recipe in recipes}
        self._queue = Queue(workspace)
        self._trials = Trials(workspace, job.job_id, process.name)
        self._part = ""
        self._just_measured: str | None = None
        """The reference that came right before"""
        self._looked = time.monotonic()

    def run(self, monitor: Any, **common: Any) -> tuple[str, str | None]:
        """Do what there is; how it ended and the errors in one line. Raises Cancelled, and what is a fault of ours."""
        # SQLite tidies the file up whenever nobody has it open any more, which would be after every trial
        with opened(self._workspace.queue):
            return self._run(monitor, common)

    def _run(self, monitor: Any, common: dict[str, Any]) -> tuple[str, str | None]:
        insist(lambda: self._trials.fill(self._recipes))
        session: Any = None
        trial = self._claim(None)
        family = None
        try:
            while trial is not None or self._more_to_come(monitor):
                if trial is None:
                    trial = self._claim(family)
                    continue
                if session is None:
                    session = self._module.opened(self._recipes, self._workspace)
                family = trial.family
                state, error = self._one(trial, session, monitor, common)
                if not self._time_to_look():
                    trial = self._note(trial, state, error, then=True)
                    continue
                self._note(trial, state, error)
                if insist(lambda: self._queue.give_way(self._job.job_id, self._process)):
                    return GAVE_WAY, None
                trial = self._claim(family)
        finally:
            if session is not None:
                session.close()
        faults = self._trials.faults()
        if self._trials.count().open:
            return LEFT, None
        return ("failed" if faults else "done"), "; ".join(faults) or None

    def _claim(self, family: str | None) -> Trial | None:
        return insist(lambda: self._trials.next(family))

    def _note(self, trial: Trial, state: str, error: str | None = None, *, then: bool = False) -> Trial | None:
        return insist(lambda: self._trials.ended(trial, state, error, then=then))

    def _one(self, trial: Trial, session: Any, monitor: Any, common: dict[str, Any]) -> tuple[str, str | None]:
        """Carry out one trial; its state and error."""
        recipe = self._by_run[trial.run]
        self._part = self._part_of(trial, recipe)
        monitor.tell(self._part)
        reported = common | {
            "report": lambda point, stage, done, total: monitor.report(trial.number, stage, done, total),
            "tell": lambda part: monitor.tell(part or self._part),
            "session": session,
        }
        try:
            self._execute([recipe], self._workspace, **reported)
        except Cancelled:
            self._note(trial, "waiting")
            raise
        except SSTMergeError as error:
            print(f"Failed: {error}", file=sys.stderr)
            return "failed", "; ".join(str(problem) for problem in error.problems)
        except Exception as error:
            with contextlib.suppress(JobError):
                self._trials.ended(trial, "failed", " ".join(f"{type(error).__name__}: {error}".split()))
            raise
        return "done", None

    def _part_of(self, trial: Trial, recipe: Recipe) -> str:
        """What is told before the stage: a point is told apart from the reference that was measured for it."""
        before, self._just_measured = self._just_measured, None
        if trial.part == REFERENCE and trial.needs is None:
            if last_status(self._workspace.run(trial.run)) == "finished":
                return ""
            self._just_measured = trial.run
            return f"1/2 reference: {recipe.pair} alone"
        return "2/2 your merge" if trial.needs is not None and trial.needs == before else ""

    def _time_to_look(self) -> bool:
        """Whether it is time to look if somebody waits; a look at every trial of a few milliseconds would cost much."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return False
        self._looked = now
        return True

    def _more_to_come(self, monitor: Any) -> bool:
        """Nothing can be claimed now: whether something may be later, after a moment's wait.

        What is left waits for a run that another worker is at, who may be gone.
        """
        if not insist(self._trials.count).waiting:
            return False
        if monitor.should_cancel():
            raise Cancelled(f"job {self._job.job_id}")
        time.sleep(POLL)
        if self._time_to_look():
            settle(self._workspace)
        return True


def insist(act: Callable[[], Told]) -> Told:
    """What `act` gives; where the queue cannot be written (a full disk) it is tried again for a while."""
    deadline = time.monotonic() + INSIST_SECONDS
    while True:
        try:
            return act()
        except (JobError, OSError):
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.5)
