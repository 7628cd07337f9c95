from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sstmerge_core import jobs
from sstmerge_core.errors import JobError
from sstmerge_core.jobs.model import expected_starts
from sstmerge_core.jobs.process import Process
from sstmerge_core.jobs.queue import Move, Queue
from sstmerge_core.workspace import Workspace
from tests.jobs.conftest import recipe
from tests.there import there

ROOT = Path(__file__).resolve().parents[2]
CLAIMER = """
import os, sys
from pathlib import Path
from sstmerge_core.jobs.process import Process
from sstmerge_core.jobs.queue import Move, Queue
from sstmerge_core.workspace import Workspace
queue, own = Queue(Workspace(Path(sys.argv[1]))), Process.of(os.getpid())
print("ready", flush=True)
sys.stdin.readline()
while any(job.state == "queued" for job in queue.active()):
    if claimed := queue.start_one(lambda job_id, device: own):
        print(claimed, flush=True)
        queue.end(claimed, "done", process=own)
"""


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(Workspace(tmp_path))


def add(queue: Queue, *names: str, device: str = "cpu", user: str = "", seconds: float | None = None) -> None:
    for name in names:
        queue.add(
            name, kind="merge", name=name, user=user, device=device, spec={"recipes": []}, run_ids=[], seconds=seconds
        )


def order(queue: Queue, device: str = "cpu") -> list[str]:
    return [job.job_id for job in queue.active() if job.device == device and job.state == "queued"]


@pytest.mark.parametrize(
    ("job", "to", "expected"),
    [
        ("c", "first", "cabd"),
        ("c", "up", "acbd"),
        ("a", "up", "abcd"),
        ("a", "first", "abcd"),
        ("b", "down", "acbd"),
        ("d", "down", "abcd"),
    ],
)
def test_a_waiting_job_moves_within_the_queue(queue: Queue, job: str, to: Move, expected: str) -> None:
    add(queue, *"abcd")
    assert queue.move(job, to) == expected.index(job) + 1
    assert order(queue) == list(expected)
    assert [there(queue.job(each)).queue_position for each in expected] == [1, 2, 3, 4]


def test_moving_jobs_of_one_device_leaves_the_order_of_another_and_what_comes_later_is_last(queue: Queue) -> None:
    add(queue, "a", "b")
    add(queue, "x", "y", device="cuda:0")
    queue.move("b", "first")
    add(queue, "c")
    add(queue, "z", device="cuda:0")
    assert order(queue) == ["b", "a", "c"] and order(queue, "cuda:0") == ["x", "y", "z"]


def test_the_moved_job_is_the_one_that_starts_next(queue: Queue) -> None:
    add(queue, "a", "b", "c")
    queue.move("c", "first")
    assert queue.start_one(lambda job_id, device: Process.of(os.getpid())) == "c"


def test_a_job_that_was_claimed_meanwhile_cannot_be_moved_and_the_error_says_so(queue: Queue) -> None:
    add(queue, "a", "b")
    queue.start_one(lambda job_id, device: Process.of(os.getpid()))
    with pytest.raises(JobError, match="job a: it is running. Only a waiting job can be moved"):
        queue.move("a", "down")
    with pytest.raises(JobError, match="no such job"):
        queue.move("nobody", "up")


def test_two_processes_claim_every_job_once_while_a_third_reorders(tmp_path: Path, queue: Queue) -> None:
    names = [f"job{number}" for number in range(40)]
    add(queue, *names)
    claimers = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMER, str(tmp_path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for claimer in claimers:
        assert there(claimer.stdout).readline() == "ready\n"
    for claimer in claimers:
        there(claimer.stdin).write("go\n")
        there(claimer.stdin).flush()
    draw, moved = random.Random(0), 0
    deadline = time.monotonic() + 60
    while waiting := order(queue):
        assert time.monotonic() < deadline
        try:
            queue.move(draw.choice(waiting), draw.choice(["first", "up", "down"]))
            moved += 1
        except JobError as error:
            assert "Only a waiting job" in str(error)
    said = [claimer.communicate(timeout=30) for claimer in claimers]
    assert [error for _, error in said] == ["", ""]
    assert sorted(" ".join(output for output, _ in said).split()) == sorted(names)
    assert moved > 0 and {there(queue.job(name)).state for name in names} == {"done"}


def test_a_waiting_job_starts_when_those_before_it_on_its_device_have_ended(queue: Queue) -> None:
    add(queue, "running", seconds=60)
    queue.start_one(lambda job_id, device: Process.of(os.getpid()))
    add(queue, "second", seconds=30)
    add(queue, "third", seconds=None)
    add(queue, "fourth", seconds=10)
    add(queue, "elsewhere", device="cuda:0", seconds=5)
    assert expected_starts(queue.active()) == {"second": 60, "third": 90, "fourth": None, "elsewhere": 0}


def test_a_job_says_how_long_it_will_take_before_it_starts(workspace: Workspace) -> None:
    jobs.submit(workspace, [recipe(0.1, steps=100, sleep=0.1)], name="first", user="ada")
    second = jobs.submit(workspace, [recipe(0.2)], name="second", user="bob")
    waiting = there(jobs.job(workspace, second))
    assert there(waiting.eta_seconds) > 0 and waiting.user == "bob"
    assert [(job.name, job.user) for job in jobs.active(workspace)] == [("first", "ada"), ("second", "bob")]
    jobs.cancel(workspace, second)
    jobs.resume(workspace, second)
    assert there(there(jobs.job(workspace, second)).eta_seconds) > 0


def test_failed_points_are_retried_alone_in_a_job_of_whoever_asks(workspace: Workspace) -> None:
    good, bad = recipe(0.1), recipe(0.2, ends="data")
    first = jobs.submit(workspace, [good, bad], name="sweep", user="ada", kind="sweep")
    assert jobs.wait(workspace, first, timeout=20).state == "failed"
    again = jobs.submit(workspace, [recipe(0.3, steps=100, sleep=0.1)], name="busy")
    retried = there(jobs.job(workspace, jobs.retry(workspace, first, [bad.run_id], user="bob")))
    assert (retried.run_ids, retried.user, retried.state) == ([bad.run_id], "bob", "queued")
    assert retried.name == f"Retry {bad.label} of sweep" and again != retried.job_id
    with pytest.raises(JobError, match="nothing to merge"):
        jobs.retry(workspace, first, ["another"])
    with pytest.raises(JobError, match="no such job"):
        jobs.retry(workspace, "nobody", [bad.run_id])


def test_the_jobs_that_need_an_adapter_are_found_by_its_content(workspace: Workspace) -> None:
    one = recipe(0.1, steps=100, sleep=0.1)
    jobs.submit(workspace, [one], name="first")
    assert [job.name for job in jobs.needing(workspace, one.adapters[0].sha256)] == ["first"]
    assert jobs.needing(workspace, "f" * 64) == []


def test_a_job_of_another_kind_keeps_the_time_that_its_page_foretold(workspace: Workspace) -> None:
    jobs.submit(workspace, [recipe(0.1, steps=100, sleep=0.1)], name="first")
    job_id = jobs.submit(
        workspace, [], name="facts", kind="experiment", experiment={"name": "x", "settings": {}}, seconds=90
    )
    job = there(jobs.job(workspace, job_id))
    assert (job.state, job.eta_seconds) == ("queued", 90)
