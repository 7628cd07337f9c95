"""Trials through the queue, and one sweep on several workers against one.

    python -m benchmarks.scale_out [--trials 10000] [--only queue|failures|ray|computing]

Empty trials (nothing is merged or measured) from the launch of their job to its end, by one worker process; then the
same number by simulated workers of which some die in the middle of a trial, to see that each trial is done once.

With Ray: 20 trials that take 10 s each on 2 local actors against 1, from the first trial's start to the last one's end;
then one of two actors is killed in the middle of a trial. A trial here waits instead of computing, so that this tells
what handing out and collecting costs, and nothing of how two models share these cores. ``--only computing`` tells that,
on a machine that does nothing else: the same with trials that compute, on one thread each, as much as takes 10 s alone
here. It has no limit, as it measures the machine.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.lines import Line, compared, parser, report, within
from sstmerge_core import jobs
from sstmerge_core.errors import Cancelled
from sstmerge_core.jobs.backends import RAY, missing
from sstmerge_core.jobs.database import opened as opened_queue
from sstmerge_core.jobs.model import Worker
from sstmerge_core.jobs.process import Process
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.jobs.trials import Trial, Trials
from sstmerge_core.recipe import Recipe, Source
from sstmerge_core.store.events import EventWriter, read_events
from sstmerge_core.workspace import Workspace

PER_SECOND = 100.0
"""Empty trials at least"""


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--trials", type=int, default=10_000)
    options.add_argument("--only", choices=PARTS)
    arguments = options.parse_args()
    return report(figures(arguments.trials, arguments.only))


def figures(trials: int, only: str | None) -> Iterator[Line]:
    for name, part in PARTS.items():
        if only == name or (only is None and part is not computing):
            yield from part(trials)


# --- what a worker does that has nothing to do ---


def opened(recipes: Sequence[Recipe], workspace: Workspace) -> None:
    return None


def nothing(recipes: Sequence[Recipe], workspace: Workspace, **_: Any) -> None:
    """An empty trial."""


def through_the_queue(trials: int) -> Iterator[Line]:
    os.environ["SSTMERGE_EXECUTE"] = "benchmarks.scale_out:nothing"
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder)).create()
        work = list(recipes(trials))
        begun = time.perf_counter()
        job = jobs.wait(workspace, jobs.submit(workspace, work, name="empty", kind="sweep", device="cpu", workers=1))
        seconds = time.perf_counter() - begun
        count = jobs.trial_count(workspace, job.job_id)
    if (job.state, count.done) != ("done", trials):
        raise SystemExit(f"the job is {job.state} with {count}: {job.error}")
    yield within(f"within: {trials:,} empty trials through the queue", seconds, trials / PER_SECOND)


def recipes(count: int) -> Iterator[Recipe]:
    """Different ones of which nothing exists."""
    base, *pair = (Source(name=name, path=name, sha256=name * 8) for name in ("base", "A5", "A7"))
    for number in range(count):
        yield Recipe(base=base, adapters=tuple(pair), method="linear", parameters={"alpha": number / count})


# --- on actors of Ray ---

COMPUTE = "SSTMERGE_BENCHMARK_PRODUCTS"
"""Environment: matrix products of a step, in place of waiting"""
SIDE = 512
SECONDS, STEPS = 10.0, 20
"""That a trial takes, and how often it says so"""


def waiting(
    recipes: Sequence[Recipe],
    workspace: Workspace,
    *,
    report: Callable[[int, str, float, float], None],
    should_cancel: Callable[[], bool],
    **_: Any,
) -> None:
    """A trial that takes its time, and goes on where it was stopped."""
    for recipe in recipes:
        folder = workspace.run(recipe.run_id)
        with EventWriter(folder) as events:
            done = sum(event["event"] == "waited" for event in read_events(folder))
            events.write("run_started", run_id=recipe.run_id, pair=recipe.pair, label=recipe.label, pid=os.getpid())
            for step in range(done, STEPS):
                report(0, "generate:harmful", step, STEPS)
                if should_cancel():
                    raise Cancelled("job")
                _pass_time()
                events.write("waited", step=step)
            events.write("run_finished", seconds=SECONDS)


def _pass_time() -> None:
    """One step of a trial: it waits, or computes."""
    if products := int(os.environ.get(COMPUTE, "0")):
        _multiply(products)
    else:
        time.sleep(SECONDS / STEPS)


def _multiply(products: int) -> float:
    """CPU seconds of so many products of matrices on one thread."""
    import torch

    torch.set_num_threads(1)
    matrix, begun = torch.full((SIDE, SIDE), 1.0 / SIDE), time.process_time()
    for _ in range(products):
        matrix = matrix @ matrix
    return time.process_time() - begun


def computing(trials: int) -> Iterator[Line]:
    """The sweep of `on_ray` with trials that compute; prints the efficiency and has no line that could be over."""
    _multiply(20)
    os.environ[COMPUTE] = str(max(1, round(200 * SECONDS / STEPS / _multiply(200))))
    os.environ["SSTMERGE_EXECUTE"] = "benchmarks.scale_out:waiting"
    with tempfile.TemporaryDirectory() as folder:
        work = list(recipes(20))
        two, one = (_swept(Workspace(Path(folder) / str(count)).create(), work, count) for count in (2, 1))
    print(
        f"20 trials that compute: {one:.1f} s on 1 actor, {two:.1f} s on 2, efficiency {one / (2 * two):.2f}",
        flush=True,
    )
    yield from ()


def on_ray(trials: int) -> Iterator[Line]:
    if (how := missing(RAY)) is not None:
        print(f"Ray is not installed: `{how}`.", file=sys.stderr)
        return
    os.environ["SSTMERGE_EXECUTE"] = "benchmarks.scale_out:waiting"
    work = list(recipes(20))
    with tempfile.TemporaryDirectory() as folder:
        two, one = (_swept(Workspace(Path(folder) / str(count)).create(), work, count) for count in (2, 1))
    efficiency = one / (2 * two)
    print(
        f"20 trials of {SECONDS:g} s: {one:.1f} s on 1 actor, {two:.1f} s on 2, efficiency {efficiency:.2f}", flush=True
    )
    yield compared("20 trials of 10 s on 2 actors of Ray, twice its time against that of 1", 2 * two, one, 1 / 0.9)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        faults = killed(Workspace(Path(folder) / "w").create(), list(recipes(6)), Path(folder))
        if faults:
            raise SystemExit("; ".join(faults))
        name = "within: 6 trials of 10 s on 2 actors of Ray, one killed in the middle, with Ray's start"
        yield within(name, time.perf_counter() - begun, 300.0)


def _swept(workspace: Workspace, work: Sequence[Recipe], count: int) -> float:
    """Seconds from the first trial's start to the last one's end."""
    job_id = jobs.submit(workspace, work, name="r", kind="sweep", device="cpu", backend=RAY, workers=count)
    job = jobs.wait(workspace, job_id)
    if job.state != "done":
        raise SystemExit(f"the job is {job.state}: {job.error}")
    with opened_queue(workspace.queue) as db:
        first, last = db.execute("SELECT min(started_at), max(finished_at) FROM trials").fetchone()
    return float(last - first)


def killed(workspace: Workspace, work: Sequence[Recipe], scratch: Path) -> list[str]:
    """What is wrong after one of two actors was killed in the middle of its second trial."""
    from benchmarks.reliability import checks

    job_id = jobs.submit(workspace, work, name="r", kind="sweep", device="cpu", backend=RAY, workers=2)
    while jobs.trial_count(workspace, job_id).done < 2 or len(begun := _begun(workspace, work)) < 3:
        time.sleep(0.5)
    victim, pid = begun[-1]
    os.kill(pid, signal.SIGKILL)
    job = jobs.wait(workspace, job_id)
    events = {one.run_id: list(read_events(workspace.run(one.run_id))) for one in work}
    steps = {run: [event["step"] for event in each if event["event"] == "waited"] for run, each in events.items()}
    ends = {run: sum(event["event"] == "run_finished" for event in each) for run, each in events.items()}
    faults = [] if job.state == "done" else [f"the job is {job.state}: {job.error}"]
    faults += [f"{run}: finished {n} times" for run, n in ends.items() if n != 1]
    faults += [f"{run}: steps {own}" for run, own in steps.items() if own != list(range(STEPS))]
    if sum(event["event"] == "run_started" for event in events[victim]) != 2:
        faults.append("the trial of the killed actor was not begun again")
    return faults + checks.one_truth(workspace, scratch / "scratch")


def _begun(workspace: Workspace, work: Sequence[Recipe]) -> list[tuple[str, int]]:
    """Runs that are under way or over, those under way last, and by which process."""
    found = []
    for one in work:
        told = list(read_events(workspace.run(one.run_id)))
        if told and told[0].get("pid"):
            found.append((told[-1]["event"] == "waited", one.run_id, told[0]["pid"]))
    return [(run, pid) for _, run, pid in sorted(found)]


# --- a scheduler without work ---


@dataclass
class Simulated:
    """What came of a simulation."""

    finished: Counter[str]
    """How often each run was done"""
    attempts: int
    deaths: int
    at_once: int
    """Most workers that held one run at a time"""
    given_up: int
    """Trials that took `MOST_LOST` workers with them"""


def with_failures(trials: int) -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        workspace = Workspace(Path(folder)).create()
        with opened_queue(workspace.queue):  # as a worker has it open: see `worker.trial_loop`
            found = simulate(workspace, list(recipes(trials)))
        seconds = time.perf_counter() - begun
    if set(found.finished.values()) != {1} or len(found.finished) + found.given_up != trials or found.at_once != 1:
        raise SystemExit(
            f"lost or doubled: {found.finished.most_common(3)}, {found.at_once} at once, {found.given_up} given up"
        )
    name = f"within: {trials:,} trials of 8 simulated workers that died {found.deaths:,} times"
    yield within(name, seconds, found.attempts / PER_SECOND)


def simulate(
    workspace: Workspace, work: Sequence[Recipe], *, workers: int = 8, dying: float = 0.02, seed: int = 0
) -> Simulated:
    """Workers that claim trials of one job through the real queue and die in the middle of one now and then.

    A worker that died is found out and replaced; what it had claimed, and had not said to be done, is claimed again. So
    long as no trial takes `MOST_LOST` workers with it, each is done in the end.
    """
    rng, queue = random.Random(seed), Queue(workspace)
    spec: dict[str, Any] = {"recipes": []}
    gpus = [f"cuda:{index}" for index in range(workers)]
    ids = [recipe.run_id for recipe in work]
    queue.add(
        "j", kind="sweep", name="simulated", user="", device=gpus[0], spec=spec, run_ids=ids, recipes=work,
        devices=gpus, workers=workers,
    )  # fmt: skip
    pids = itertools.count(1)
    at_work: dict[str, Trial | None] = {}
    found = Simulated(Counter(), 0, 0, 0, 0)
    while True:
        while queue.start_one(lambda *_: Process(next(pids), 1, "simulated")):
            pass
        known = {worker.process.name: worker for worker in queue.workers()}
        for name in known:
            at_work[name] = at_work.get(name) or Trials(workspace, "j", name).next()
        held = Counter(trial.run for trial in at_work.values() if trial is not None)
        found.at_once = max([found.at_once, *held.values()])
        if not held:
            count = Trials(workspace, "j", "").count()
            if not count.open:
                found.given_up = count.failed
                return found
        _step(workspace, queue, known, at_work, found, rng, dying)


def _step(
    workspace: Workspace,
    queue: Queue,
    known: dict[str, Worker],
    at_work: dict[str, Trial | None],
    found: Simulated,
    rng: random.Random,
    dying: float,
) -> None:
    """Everybody's trial comes to its end, or takes the worker with it, in any order."""
    order = [name for name, trial in at_work.items() if trial is not None]
    rng.shuffle(order)
    for name in order:
        trial = at_work[name]
        assert trial is not None
        found.attempts += 1
        if rng.random() < dying:
            found.deaths += 1
            del at_work[name]
            queue.bury(known[name])
        else:
            found.finished[trial.run] += 1
            at_work[name] = Trials(workspace, "j", name).ended(trial, "done", then=True)


PARTS: dict[str, Callable[[int], Iterator[Line]]] = {
    "queue": through_the_queue,
    "failures": with_failures,
    "ray": on_ray,
    "computing": computing,
}


if __name__ == "__main__":
    sys.exit(main())
