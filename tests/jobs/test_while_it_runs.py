"""What a running job tells: time left as a range until half is done, the newest answers, and the machine's own pace."""

from __future__ import annotations

import os
import random
import sqlite3
import time

import pytest

from sstmerge_core.jobs import history, pace
from sstmerge_core.jobs.estimate import Estimator
from sstmerge_core.jobs.model import SHOWN, SHOWN_CHARACTERS
from sstmerge_core.jobs.process import Process
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.words import between
from sstmerge_core.worker import Monitor
from sstmerge_core.workspace import Workspace
from tests.jobs.conftest import recipe
from tests.jobs.test_estimate import job_plan, other_machine, simulate
from tests.there import there


@pytest.fixture
def queue(tmp_path) -> Queue:
    """With one running job."""
    queue = Queue(Workspace(tmp_path / "w").create())
    queue.add("one", kind="merge", name="one", user="", device="cpu", spec={}, run_ids=["r"])
    queue.start_one(lambda job_id, device: Process.of(os.getpid()))
    return queue


MIXED = [(40, 170, "40 s to 3 min"), (2900, 9000, "45 min to 2.5 h")]


def announced(points: int, rates: dict[str, float], rng: random.Random, known: dict[str, float]) -> list[bool]:
    """Whether the true time left lay between the two announced, at every report of the first half of a made-up job."""
    estimator = Estimator(plan=job_plan(points), started=0.0, history=known)
    now = rates["start"]
    told: list[tuple[float, float, float]] = []
    for point, stages in enumerate(job_plan(points)):
        for stage, total in stages.items():
            estimator.observe(now, point, stage, 0, total)
            step = 16 if stage.startswith("generate") else 15 if stage == "fisher" else int(total)
            for done in range(step, int(total) + step, step):
                now += min(step, total - done + step) * rates[stage.partition(":")[0]] * rng.uniform(0.85, 1.15)
                estimator.observe(now, point, stage, min(done, total), total)
                if estimator.progress(now) < 0.5:
                    told.append((now, *estimator.between(now)))
    return [least <= now - then <= most for then, least, most in told]


@pytest.mark.parametrize("earlier", [False, True])
def test_nine_in_ten_times_left_lie_in_the_range_that_was_announced(earlier):
    rng = random.Random(0)
    inside: list[bool] = []
    for _ in range(60):
        machine = other_machine(rng)
        known = simulate(2, machine, rng)[1] if earlier else {}
        busy = {stage: rate * rng.uniform(0.6, 1.8) for stage, rate in machine.items()} if earlier else machine
        inside += announced(1, busy, rng, known)
    assert sum(inside) / len(inside) >= 0.88


def test_a_range_is_told_until_half_is_done_and_one_time_after_it(queue):
    monitor = Monitor(
        queue, there(queue.job("one")), Estimator(plan=[{"generate:harmful": 64.0}], started=time.monotonic())
    )
    monitor.report(0, "generate:harmful", 0, 64)
    monitor._beat()
    job = there(queue.job("one"))
    assert job.eta_between and job.eta_between[0] < there(job.eta_seconds) < job.eta_between[1] and "to" in job.left
    monitor._half = (0.0, 1.0)
    monitor.stop()
    job = there(queue.job("one"))
    assert job.eta_between is None and "to" not in job.left


def test_the_newest_answers_stay_with_the_job_cut_short_until_it_ends(queue):
    monitor = Monitor(queue, there(queue.job("one")), Estimator(plan=[{"merge": 1.0}], started=0.0))
    onlooker = monitor.onlooker()
    row = {"suite": "harmful", "prompt": "p", "response": "long " * 1000, "label": None}
    onlooker.answers([row | {"prompt": str(number)} for number in range(9)])
    onlooker.detail("harmful 3/9")
    monitor.stop()
    job = there(queue.job("one"))
    assert [shown["prompt"] for shown in job.answers] == ["6", "7", "8"] and len(job.answers) == SHOWN
    assert len(job.answers[0]["response"]) == SHOWN_CHARACTERS and "label" not in job.answers[0]
    assert job.stage.endswith("harmful 3/9")
    queue.end("one", "done")
    assert there(queue.job("one")).answers == [] and there(queue.job("one")).left == ""


def test_a_queue_of_an_older_version_is_taken_over(queue):
    with sqlite3.connect(queue.path) as db:
        for column in ("eta_low", "eta_high", "answers"):
            db.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
    job = there(Queue.at(queue.path).job("one"))
    assert job.state == "running" and job.answers == [] and job.eta_between is None
    queue.beat("one", eta_low=1.0, eta_high=2.0)
    assert there(queue.job("one")).eta_between == (1.0, 2.0)


def test_the_machine_is_measured_once_in_a_while_and_never_for_a_gpu(monkeypatch):
    measured: list[float] = []
    monkeypatch.setattr(pace, "_kept", None)

    def measure() -> float:
        measured.append(0.5)
        return 0.5

    monkeypatch.setattr(pace, "measure", measure)
    assert pace.now("cuda:0") is None and not measured
    assert [pace.now("cpu") for _ in range(3)] == [0.5] * 3 and len(measured) == 1
    assert pace.now("cpu", kept=-1.0) == 0.5 and len(measured) == 2


def test_a_product_of_matrices_takes_some_time():
    assert 0 < pace.measure(0.01) < 5


def test_a_busy_machine_is_told_to_take_longer_than_it_did_when_it_was_idle(queue, tmp_path, monkeypatch):
    workspace = Workspace(tmp_path / "w")
    one = recipe()
    scope = history.scope_of(one, "cpu")
    monkeypatch.setattr(pace, "now", lambda device: 0.002)
    guess = history.predict(workspace, [one], "cpu")
    assert "rough guess" in history.time_basis(workspace, [one], "cpu")
    history.learn(queue, scope, {"merge": 4.0, "start": 8.0}, 0.002)
    assert (idle := history.predict(workspace, [one], "cpu")) == pytest.approx(12.0)
    monkeypatch.setattr(pace, "now", lambda device: 0.006)
    assert history.predict(workspace, [one], "cpu") == pytest.approx(3 * idle)
    assert "3.0 times slower now" in history.time_basis(workspace, [one], "cpu")
    # a job on the busy machine takes as long as that predicted: nothing new is learnt of the idle one
    history.learn(queue, scope, {"merge": 12.0, "start": 24.0}, 0.006)
    monkeypatch.setattr(pace, "now", lambda device: 0.002)
    assert history.predict(workspace, [one], "cpu") == pytest.approx(idle)
    assert guess > 0


@pytest.mark.parametrize(
    ("least", "most", "text"),
    [(17, 52, "15 s to 1 min"), (8, 12, "8 to 15 s"), (125, 290, "2 to 5 min"), (58, 60, "1 min"), *MIXED],
)
def test_two_durations_are_told_as_people_read_them(least, most, text):
    assert between(least, most) == text
