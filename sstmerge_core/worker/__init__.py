"""The worker: a detached process that does one job. ``python -m sstmerge_core.worker --workspace W --job ID``.

It writes runs as event files and its own state into the queue; what it prints is the job's log.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from sstmerge_core import access
from sstmerge_core.analysis.screening import Screening
from sstmerge_core.errors import Cancelled, JobError, SSTMergeError, disk_problem
from sstmerge_core.jobs import history, pace
from sstmerge_core.jobs.devices import is_shared, threads
from sstmerge_core.jobs.dispatch import settle
from sstmerge_core.jobs.estimate import Estimator, relative_error
from sstmerge_core.jobs.history import scope_of
from sstmerge_core.jobs.model import SHOWN, SHOWN_CHARACTERS, Job, Onlooker, stage_text
from sstmerge_core.jobs.plan import plan_units
from sstmerge_core.jobs.process import Process
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.jobs.trials import Trials
from sstmerge_core.recipe import Recipe, Source
from sstmerge_core.worker.trial_loop import GAVE_WAY, LEFT, Loop
from sstmerge_core.workspace import Workspace

EXECUTE = "sstmerge_core.runs.execute:execute"
"""What does the work of merge and sweep jobs, one trial a call, with what ``opened`` of the same module gives; an
inspect job calls ``inspect`` of it."""
EXECUTE_BEST = "sstmerge_core.runs.screen:execute_best"
"""What does that of sweeps that are screened first"""
MEASURED = ("merge", "sweep", "train")
"""Kinds of jobs whose speed teaches others, so that the pace of the machine is noted beside it"""
BEAT_SECONDS = 1.0
END_SECONDS = 10.0
"""How long a worker that has ended tries to say so to a queue that cannot be written"""


class Monitor:
    """Between the work and the queue: progress out, the wish to stop in. Its thread is the heartbeat."""

    def __init__(self, queue: Queue, job: Job, estimator: Estimator):
        self._queue = queue
        self._job = job
        self._process = Process.of(os.getpid())
        self._estimator = estimator
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._over = threading.Event()
        self._half: tuple[float, float] | None = None
        """When half of the job was done, and the remaining seconds announced then."""
        self._part = ""
        """What of the point is at work, in words"""
        self._detail = ""
        """How far the stage is, in words, since the last report"""
        self._answers: list[dict[str, Any]] | None = None
        """The newest answers; None: the queue has them already"""
        self._mute = False
        """The queue could not be written when it was last tried, and the log says so"""
        self._thread = threading.Thread(target=self._run, daemon=True, name="heartbeat")
        self._thread.start()

    def report(self, point: int, stage: str, done: float, total: float) -> None:
        """`done` of `total` units of `stage` (``fisher``, ``generate:harmful`` …) of a point are done.

        Call it with `done` = 0, or what was there already, when a stage starts.
        """
        with self._lock:
            turned = (point, stage) != (self._estimator.point, self._estimator.stage)
            self._estimator.observe(time.monotonic(), point, stage, done, total)
            self._detail = ""
            self._note_half()
        if turned:
            self._beat()

    def tell(self, part: str) -> None:
        """What the stages that follow are part of: ``1/2 reference: A5 alone``; empty: of nothing in particular."""
        with self._lock:
            self._part = part

    def onlooker(self) -> Onlooker:
        """What passes on what is too fine for events; the newest `SHOWN` answers, each cut short."""

        def detail(text: str) -> None:
            with self._lock:
                self._detail = text

        def answers(rows: Sequence[Mapping[str, Any]]) -> None:
            with self._lock:
                self._answers = [_cut(row) for row in rows[-SHOWN:]]

        return Onlooker(detail, answers)

    def should_cancel(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self, *_: int | FrameType | None) -> None:
        """Ask the work to stop at its next look; also the handler of SIGTERM."""
        self._cancelled.set()

    def stop(self) -> None:
        """End the heartbeat and write the last progress."""
        self._over.set()
        self._thread.join()
        self._beat()

    def eta_error(self) -> float | None:
        if self._half is None:
            return None
        at, predicted = self._half
        return relative_error(predicted, time.monotonic() - at)

    def rates(self) -> dict[str, float]:
        return self._estimator.rates()

    def _run(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            self._beat()

    def _beat(self) -> None:
        if self._job.workers > 1:
            self._look_at_the_others()
        with self._lock:
            now, estimator = time.monotonic(), self._estimator
            self._note_half()
            stage = stage_text(estimator.stage, estimator.done, estimator.total, self._detail)
            low, high = (None, None) if self._half else estimator.between(now)
            fields: dict[str, Any] = {
                "point": estimator.point,
                "stage": " · ".join(filter(None, [self._part, stage])),
                "progress": estimator.progress(now),
                "eta_seconds": estimator.remaining(now),
                "eta_low": low,
                "eta_high": high,
                "eta_at_half": self._half[1] if self._half else None,
            }
            if self._answers is not None:
                fields["answers"] = json.dumps(self._answers, ensure_ascii=False)
                self._answers = None
        try:
            if self._queue.beat(self._job.job_id, process=self._process, **fields):
                self._cancelled.set()
            self._mute = False
        except JobError as error:  # a full disk: the work notices for itself, and may be done before it has to write
            if not self._mute:
                print(f"No progress can be told: {error}", file=sys.stderr)
            self._mute = True

    def _look_at_the_others(self) -> None:
        """What other workers have taken over is not ahead of this one."""
        with contextlib.suppress(JobError):
            closed, workers = Trials(
                Workspace(self._queue.path.parent), self._job.job_id, self._process.name
            ).elsewhere()
            with self._lock:
                self._estimator.elsewhere(closed, workers)

    def _note_half(self) -> None:
        now = time.monotonic()
        if self._half is None and self._estimator.progress(now) >= 0.5:
            self._half = now, self._estimator.remaining(now)


def run_job(workspace: Workspace, job: Job, execute: str) -> tuple[str, str | None]:
    """Do the job's work; returns the state it ends in and its error in one line."""
    queue = Queue(workspace)
    spec = queue.spec(job.job_id)
    recipes = [Recipe.model_validate(recipe) for recipe in spec.get("recipes", [])]
    base = spec.get("base", {}).get("sha256", "")
    scope = scope_of(recipes[0], job.device) if recipes else f"{job.device}/{base[:12]}"
    screening = Screening(**spec["screening"]) if spec.get("screening") else None
    plan = plan_units(recipes, workspace, screening.keep if screening else None) or [{job.kind: 1.0}]
    started = time.monotonic()
    measured = pace.now(job.device) if job.kind in MEASURED and execute == EXECUTE else None
    rates, slower = history.basis(workspace, scope, job.device if measured else "")
    monitor = Monitor(queue, job, Estimator(plan=plan, started=started, history=rates, pace=slower))
    signal.signal(signal.SIGTERM, monitor.cancel)
    signal.signal(signal.SIGINT, monitor.cancel)
    common = {
        "report": monitor.report,
        "should_cancel": monitor.should_cancel,
        "user": job.user,
        "job_id": job.job_id,
    }
    try:
        if job.kind == "inspect":
            sources = {side: Source.model_validate(spec[side]) for side in ("base", "utility", "safety")}
            _load(execute.partition(":")[0] + ":inspect")(sources, workspace, **common)
        elif job.kind == "experiment":
            _experiment(workspace, job, spec["experiment"], monitor)
        elif job.kind == "train":
            from sstmerge_core.worker import training

            training.run(workspace, spec["training"], report=monitor.report, should_cancel=monitor.should_cancel)
        elif job.kind == "rescore":
            from sstmerge_core.worker import rescore_job

            rescore_job.run(workspace, spec["rescore"], report=monitor.report, should_cancel=monitor.should_cancel)
        elif job.kind == "adapter":
            from sstmerge_core.worker import adapter_job

            adapter_job.run(workspace, spec["adapter"], report=monitor.report, should_cancel=monitor.should_cancel)
        elif job.kind == "base":
            from sstmerge_core.worker import base_download

            base_download.run(workspace, spec["download"], report=monitor.report, should_cancel=monitor.should_cancel)
        elif screening is not None:
            _load(EXECUTE_BEST)(recipes, workspace, screening, tell=monitor.tell, onlooker=monitor.onlooker(), **common)
        elif job.kind == "convert":
            from sstmerge_core.worker import convert_job

            convert_job.run(workspace, spec["convert"], report=monitor.report, should_cancel=monitor.should_cancel)
        elif "backend" in spec:
            from sstmerge_core.worker import spread

            print(f"Backend: {spread.described(spec['backend'])}", flush=True)
            backend = spread.backend_of(spec["backend"], execute, workspace.cache / "slurm" / job.job_id)
            work = spread.Spread(workspace, job, recipes, backend, spec["backend"]["workers"])
            state, error = work.run(monitor)
            if state != "done":
                return state, error
        else:
            loop = Loop(workspace, job, recipes, Process.of(os.getpid()), execute)
            state, error = loop.run(monitor, onlooker=monitor.onlooker(), **common)
            if state != "done":
                return state, error
    except Cancelled:
        return "cancelled", None
    except SSTMergeError as error:
        print(f"Failed: {error}", file=sys.stderr)
        return "failed", "; ".join(str(problem) for problem in error.problems)
    except Exception as error:
        if (problem := disk_problem(error)) is not None:
            print(f"Failed: {problem}", file=sys.stderr)
            return "failed", str(problem)
        traceback.print_exc()
        return "failed", " ".join(f"{type(error).__name__}: {error}".split())
    finally:
        monitor.stop()
    with contextlib.suppress(JobError):  # what is learnt for other jobs must not make this one fail
        history.learn(queue, scope, monitor.rates(), measured)
        queue.beat(job.job_id, eta_error=monitor.eta_error())
    return "done", None


def main(arguments: list[str] | None = None) -> int:
    """Do one job if it is ours to do; 0 when it is done, 1 when it failed or was cancelled, 3 when it is not ours."""
    parser = argparse.ArgumentParser(prog="python -m sstmerge_core.worker", description="Do one queued job.")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--job", required=True)
    parser.add_argument("--execute", default=os.environ.get("SSTMERGE_EXECUTE", EXECUTE), help="module:function")
    options = parser.parse_args(arguments)
    workspace, process = Workspace(options.workspace), Process.of(os.getpid())
    queue = Queue(workspace)
    job = queue.job(options.job)
    if job is None or not queue.adopt(options.job, process):
        print(f"Job {options.job} does not wait for a worker.", file=sys.stderr)
        return 3
    if job.workers > 1 and is_shared(job.device):
        os.environ.setdefault("OMP_NUM_THREADS", str(threads(job.workers)))  # before anything imports torch
    print(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} job {job.job_id} ({job.name}), process {process.pid}", flush=True)
    state: str = "failed"
    error: str | None = "The worker stopped while it was preparing."
    try:
        with access.acting_for(job.user):
            state, error = run_job(workspace, job, options.execute)
    finally:
        print(f"--- {state}" + (f": {error}" if error else ""), flush=True)
        _end(workspace, job, state, error, process)
    return 0 if state in ("done", GAVE_WAY, LEFT) else 1


def _end(workspace: Workspace, job: Job, state: str, error: str | None, process: Process) -> None:
    """Tell the queue how it ended, and start what is next. Where the disk stays full the job counts as lost."""
    deadline = time.monotonic() + END_SECONDS
    while True:
        try:
            if state != GAVE_WAY:
                Queue(workspace).leave(job.job_id, process, "done" if state == LEFT else state, error)
            settle(workspace)
            return
        except (JobError, OSError) as refused:
            if time.monotonic() >= deadline:
                print(f"The queue could not be told: {refused}", file=sys.stderr)
                return
            time.sleep(0.5)


def _cut(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"
        for name, text in row.items()
        if isinstance(text, str)
    }


def _experiment(workspace: Workspace, job: Job, spec: dict[str, Any], monitor: Monitor) -> None:
    """One experiment as one point whose units are its runs."""
    from sstmerge_core import experiments

    experiments.run(
        workspace,
        spec["name"],
        experiments.get(spec["name"]).read(spec["settings"]),
        report=lambda what, done, total: monitor.report(0, "experiment", done, total),
        should_cancel=monitor.should_cancel,
        user=job.user,
        job_id=job.job_id,
    )


def _load(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)
