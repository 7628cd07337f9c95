"""A job as the rest of the program sees it, and the words for what it is doing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sstmerge_core import words
from sstmerge_core.jobs.process import Process

RUNNING = "running"
QUEUED = "queued"
INSPECTION = "inspection"
"""The device of inspect jobs: comparing two adapters takes seconds on a CPU and must not wait behind a sweep."""
NETWORK = "network"
"""The device of downloads, which wait for one another alone"""
RESUMABLE = ("failed", "cancelled", "lost")

TITLES = {
    "start": "Starting",
    "screen": "Screening settings",
    "prepare": "Loading the model",
    "fisher": "Computing gradients",
    "inputs": "Looking at harmful prompts",
    "importance": "Finding the weights that matter",
    "fit": "Fitting coefficients",
    "passes": "Fitting in passes",
    "budget": "Finding the strength",
    "merge": "Merging",
    "generate": "Generating answers",
    "judge": "Judging answers",
    "metrics": "Computing metrics",
    "inspect": "Comparing adapters",
    "experiment": "Measuring",
    "train": "Training, rows",
    "base": "Fetching, MiB",
    "convert": "Making a LoRA",
    "fetch": "Fetching, MiB",
}


SHOWN = 3
"""Answers of a running job that are shown at a time"""
SHOWN_CHARACTERS = 400
"""Of a prompt, and of an answer, that is shown while its job runs; its run's page has all of it"""


@dataclass(frozen=True)
class Onlooker:
    """Who watches the work: told what is too fine for an event, and forgotten when the job ends."""

    detail: Callable[[str], None] = lambda text: None
    """How far the stage is, in words: ``harmful 41/64 · token 37 of at most 96``; until the next report"""
    answers: Callable[[Sequence[Mapping[str, Any]]], None] = lambda rows: None
    """The newest answers: suite, prompt, response, and the label that the judge gave, None where it has not yet"""


@dataclass(frozen=True)
class Job:
    job_id: str
    kind: str
    """``merge``, ``sweep``, ``inspect``, ``experiment`` or ``train``."""
    name: str
    user: str
    state: str
    """``queued``, ``running``, ``done``, ``failed``, ``cancelled`` or ``lost`` (its process died without a word)."""
    run_ids: list[str]
    created_at: float
    started_at: float | None
    finished_at: float | None
    progress: float
    """Share of the work that is done, 0…1."""
    stage: str
    """What it is doing now, for people."""
    point: int
    """Index of the run it works on, from 0."""
    points: int
    eta_seconds: float | None
    """Left of a running job, in all of a waiting one; None where nobody can tell."""
    error: str | None
    queue_position: int | None
    """1 is next; None when it does not wait."""
    device: str = "cpu"
    eta_error: float | None = None
    """How wrong the remaining time announced at half of the job was, as a share of what it turned out to be."""
    cancelling: bool = False
    """It was asked to stop and has not stopped yet."""
    eta_between: tuple[float, float] | None = None
    """Between what the time left should lie; None once half is done, and where nobody can tell"""
    answers: list[dict[str, Any]] = field(default_factory=list)
    """Of a running job: the newest answers, cut short, as `Onlooker.answers` is told them"""

    @property
    def left(self) -> str:
        """``3 min left``, ``2 to 5 min left`` until half is done; empty where nobody can tell."""
        if self.state == RUNNING and self.eta_between is not None:
            return f"{words.between(*self.eta_between)} left"
        return f"{words.duration(self.eta_seconds)} left" if self.eta_seconds is not None else ""

    priority: int = 0
    """Among jobs whose turn is the same the higher one is first"""
    workers: int = 1
    """Most workers that it may have at a time"""
    devices: tuple[str, ...] = ()
    """Those that it may take"""

    @property
    def active(self) -> bool:
        return self.state in (QUEUED, RUNNING)


@dataclass(frozen=True)
class Worker:
    """A process at work on a job, on one device."""

    job_id: str
    process: Process
    device: str
    stage: str
    heartbeat_at: float
    started_at: float
    cancel_at: float | None
    """When its job was asked to stop"""
    run: str | None
    """The run it is at, where its job has trials"""


def expected_starts(listed: Sequence[Job]) -> dict[str, float | None]:
    """Seconds until each waiting job of `listed` should start; None where a job before it cannot be timed.

    `listed` holds every active job, in any order. Each device does one job at a time, in the order of the queue.
    """
    found: dict[str, float | None] = {}
    for device in {job.device for job in listed if job.active}:
        active = [job for job in listed if job.device == device and job.active]
        passed: float | None = 0.0
        for job in sorted(active, key=lambda job: job.queue_position or 0):
            if job.state == QUEUED:
                found[job.job_id] = passed
            passed = None if passed is None or job.eta_seconds is None else passed + job.eta_seconds
    return found


def stage_text(stage: str, done: float, total: float, said: str = "") -> str:
    """``Generating answers · harmful 32/72``; `stage` is a name, with a suite behind a colon where there is one.

    `said`: what is known more finely than `done`, in its place.
    """
    name, _, detail = stage.partition(":")
    count = f"{done:.0f}/{total:.0f}" if total > 1 else ""
    tail = said or " ".join(filter(None, [detail, count]))
    return " · ".join(filter(None, [TITLES.get(name, name.replace("_", " ").capitalize()), tail]))
