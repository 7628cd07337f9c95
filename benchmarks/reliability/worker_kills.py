"""SIGKILL to workers at every stage of a job, again and again, until the job is done all the same."""

from __future__ import annotations

import os
import random
import select
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.reliability import checks, traps
from benchmarks.reliability.children import PATIENCE, Child, asked, fork
from benchmarks.reliability.inputs import Inputs, recipes, workspace
from sstmerge_core import experiments, jobs
from sstmerge_core.jobs.backends import local
from sstmerge_core.jobs.process import Process
from sstmerge_core.recipe import Recipe
from sstmerge_core.store.events import last_status
from sstmerge_core.workspace import Workspace

Row = dict[str, Any]
STAGES = (*traps.STAGES, traps.REFERENCE)
MOST = 5
"""Kills of one job at most"""
SHORTEST = {"lines": 300, "ms": 400}
IDLE = 12
"""Jobs that end before they come to where they should be killed, at most"""


@dataclass
class Case:
    """One job, what it gives when nobody kills it, and how long its stages are."""

    folder: Path
    template: Path
    recipes: list[Recipe]
    straight: dict[str, checks.Results] = field(default_factory=dict)
    census: dict[str, dict[str, int]] = field(default_factory=dict)
    seconds: float = 0.0

    @classmethod
    def made(cls, folder: Path, inputs: Inputs, *, counted: bool = True) -> Case:
        """Prepare the workspace in a child, and have the job done once without a fault, its lines counted.

        Without `counted`, which takes seconds, every stage is taken to be as long as the shortest.
        """
        template = folder / "template"

        def prepare() -> list[Any]:
            known = workspace(template, inputs)
            return [one.model_dump(mode="json") for one in recipes(known, inputs)]

        case = cls(folder, template, [Recipe.model_validate(one) for one in asked(prepare)])
        own = case.fresh("straight")
        begun = time.monotonic()
        told = folder / "census.json"

        def before() -> Callable[[], None] | None:
            if not counted:
                return None
            census = traps.Census(traps.STAGES)
            census.set()
            return lambda: checks.write_json(told, census.found())

        job_id, child = start(own, case.recipes, before)
        assert child.wait(300) == 0, child.text()
        case.seconds = time.monotonic() - begun
        case.census = checks.read_json(told) if counted else {stage: dict(SHORTEST) for stage in STAGES}
        ids = {run_id: None for one in case.recipes for run_id in _runs(one)}
        case.straight = {run_id: checks.results(own, run_id) for run_id in ids}
        faults = checks.true_so_far(own, case.straight, finished=True)
        assert not faults and jobs.job(own, job_id) is not None, faults
        return case

    def fresh(self, name: str) -> Workspace:
        target = self.folder / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.template, target)
        return Workspace(target)


def _runs(recipe: Recipe) -> list[str]:
    return [recipe.run_id, *([recipe.reference.run_id] if recipe.reference else [])]


def start(
    own: Workspace,
    work: Sequence[Recipe] | Mapping[str, Any] | str,
    before: Callable[[], Callable[[], None] | None] = lambda: None,
) -> tuple[str, Child]:
    """Submit `work` (recipes, or an experiment's name and settings), or resume the job of that id.

    Its worker is a child of this process that runs `before` first.

    The child is forked before the queue is opened, and gets its job within the queue's transaction, as a new process
    would. What `before` returns is called at its end.
    """
    reading, writing = os.pipe()

    def worker() -> int:
        from sstmerge_core import worker

        os.close(writing)
        job_id = os.read(reading, 200).decode()
        after = before()
        code = worker.main(["--workspace", str(own.root), "--job", job_id])
        if after is not None:
            after()
        return code

    child = fork(worker, own.root / "worker.log")
    os.close(reading)

    def begun(place: Workspace, job_id: str, device: str, *, on_exit: Callable[[], None]) -> Process:
        os.write(writing, job_id.encode())
        return Process.of(child.pid)

    was, local.start = local.start, begun  # type: ignore[assignment]
    try:
        if isinstance(work, str):
            jobs.resume(own, work)
            return work, child
        if isinstance(work, Mapping):
            title = experiments.get(work["name"]).title
            return jobs.submit(own, [], name=title, kind="experiment", experiment=work, device="cpu"), child
        return jobs.submit(own, work, name="suite", kind="sweep", device="cpu"), child
    except BaseException:
        child.kill()
        raise
    finally:
        local.start = was
        os.close(writing)


def lives(kills: int, all_kills: int, seed: int) -> list[list[str]]:
    """Stages to kill in, by job: half of `all_kills` within a suite's generation, the others spread over the stages."""
    rng = random.Random(f"{seed} stages")
    others = [stage for stage in STAGES if stage != "generation"]
    found = ["generation"] * min(kills, (all_kills + 1) // 2)
    found += [others[number % len(others)] for number in range(kills - len(found))]
    rng.shuffle(found)
    return [found[first : first + MOST] for first in range(0, len(found), MOST)]


def kill(case: Case, stages: list[str], seed: int, life: int) -> Iterator[Row]:
    """One job, killed in each of `stages`, then done and compared: a row a kill and one of the end.

    Where a resumed job is past a stage already, a new job is killed in what is left.
    """
    stages = list(stages)
    rng = random.Random(f"{seed} worker {life}")
    own = case.fresh("killed")
    work: Sequence[Recipe] | str = case.recipes
    killed, idle, before = 0, 0, checks.whole_lines(own)
    while True:
        stage = stages.pop() if stages and idle < IDLE else None
        mode, place, begin = _choose(case, stage, rng)
        (own.root / "worker.log").unlink(missing_ok=True)
        begun = time.monotonic()
        reading, writing = os.pipe()
        job_id, child = start(own, work, partial(begin, writing))
        os.close(writing)
        if mode == "time" and said(reading, child):
            time.sleep(place)
            child.kill()
        child.wait()
        os.close(reading)
        faults: checks.Faults = []
        if child.status is None:
            child.kill()
            faults.append(f"hung: the worker did not end within {PATIENCE:g} s")
        row: Row = {"kind": "kill", "actor": "worker", "stage": stage, "mode": mode, "at": place, "life": life}
        died = child.status == -9
        if stage is not None and not died:
            stages.append(stage)  # it ended before it came there: another job's turn
            idle += 1
        after = _after(case, own, job_id, before, finished=not died, rng=rng)
        before = checks.whole_lines(own)
        if not died:
            faults += checks.noise(child.text())
            row |= {"kind": "resumed", "kills": killed, "faults": faults + after}
            yield row | {"seconds": time.monotonic() - begun}
            if not stages or stage is None:
                return
            own, work, killed = case.fresh("killed"), case.recipes, 0
            before = checks.whole_lines(own)
            continue
        killed += 1
        yield row | {"faults": faults + after, "seconds": time.monotonic() - begun}
        work = job_id
        found = jobs.job(own, job_id)
        if found is not None and found.state == "done":  # it died after its last word
            faults = checks.true_so_far(own, case.straight, finished=True)
            yield row | {"kind": "resumed", "kills": killed, "faults": faults, "seconds": 0.0}
            if not stages:
                return
            own, work, killed = case.fresh("killed"), case.recipes, 0
            before = checks.whole_lines(own)


def _choose(case: Case, stage: str | None, rng: random.Random) -> tuple[str, float, Callable[[int], None]]:
    """How to kill, where, and what the child does for it before it begins; it is given a pipe."""
    if stage is None:
        return "", 0.0, lambda pipe: None
    told = case.census[stage]
    scope = traps.STAGES.get(stage) or tuple(part for parts in traps.STAGES.values() for part in parts)
    reference = stage == traps.REFERENCE
    modes = ["line"] * 5 + ["time"] * 3 + (["torn"] * 2 if stage in traps.WRITTEN else [])
    mode = rng.choice(modes)
    if mode == "torn":
        nth, share = rng.randint(1, 6), rng.random()
        return mode, nth, lambda pipe: traps.tear(traps.WRITTEN[stage], nth, share)
    if mode == "time":
        first = rng.randint(1, max(1, told["lines"] // 2))
        seconds = rng.uniform(0.0, min(0.5, told["ms"] / 2000))
        return mode, round(seconds, 4), lambda pipe: traps.Trap(scope, traps.tell(pipe), first, reference).set()
    nth = rng.randint(1, max(1, told["lines"]))
    return mode, nth, lambda pipe: traps.Trap(scope, traps.die, nth, reference).set()


def said(pipe: int, child: Child) -> bool:
    """Whether the child has said that its stage began; False where it ended first."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if select.select([pipe], [], [], 0.02)[0]:
            return os.read(pipe, 1) == b"."
        if child.poll() is not None:
            return False
    return False


def _after(
    case: Case, own: Workspace, job_id: str, before: dict[str, bytes], *, finished: bool, rng: random.Random
) -> checks.Faults:
    """Everything that must hold now."""
    job = jobs.job(own, job_id)
    faults = checks.kept(before, own) + checks.doubled(own)
    faults += checks.true_so_far(own, case.straight, finished=finished)
    if job is None or len(jobs.jobs(own)) != 1:
        return [*faults, f"queue: {len(jobs.jobs(own))} jobs instead of one"]
    expected = {"done"} if finished else {"lost", "done"}
    if job.state not in expected:
        faults.append(f"queue: the job is {job.state} ({job.error}), it should be {' or '.join(sorted(expected))}")
    begun = [run_id for run_id in case.straight if last_status(own.run(run_id)) == "running"]
    name = rng.choice(["merge", "run", "overview", "sweep"])
    query = {"merge": {"job": job_id}, "sweep": {"job": job_id}, "run": {"run": begun[0]} if begun else {}}.get(
        name, {}
    )

    def look() -> checks.Faults:
        found = checks.one_truth(own, own.root.parent / "scratch")
        said, shown = checks.page(own, name, **query)
        found += shown
        if job.state == "lost" and name in ("merge", "sweep") and "worker ended without a word" not in said:
            found.append(f"page: {name} does not say that the worker is gone: {said[-600:]}")
        if begun and name == "run" and "interrupted" not in said and "Try again" not in said:
            found.append(f"page: run does not say that it was interrupted: {said[-600:]}")
        return found

    try:
        return faults + asked(look)
    except RuntimeError as error:
        return [*faults, f"check: {error}"]
