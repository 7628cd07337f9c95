from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise

import pytest

from sstmerge_core import jobs
from sstmerge_core.errors import JobError
from sstmerge_core.jobs import dispatch
from sstmerge_core.jobs.model import stage_text
from sstmerge_core.jobs.process import Process
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.store.events import EventWriter, last_status, read_events
from tests.jobs.conftest import A5, A7, BASE, eventually, recipe
from tests.there import there


def test_a_job_runs_its_recipes_in_a_process_of_its_own_and_is_done(workspace):
    recipes = [recipe(0.1), recipe(0.2)]
    job_id = jobs.submit(workspace, recipes, name="two", user="ada", kind="sweep")
    job = jobs.wait(workspace, job_id, timeout=20)
    assert (job.state, job.progress, job.error, job.points) == ("done", 1.0, None, 2)
    assert job.run_ids == [r.run_id for r in recipes]
    assert job.eta_seconds is None and job.queue_position is None
    assert [last_status(workspace.run(run_id)) for run_id in job.run_ids] == ["finished", "finished"]
    assert [event["event"] for event in read_events(workspace.catalog)] == ["sweep_submitted"]
    log = jobs.log_tail(workspace, job_id)
    assert "--- done" in log
    assert f"MALLOC {1 << 30} {1 << 30}" in log  # set before the process starts, or glibc would not see it


def test_what_a_worker_is_doing_is_readable_while_it_runs(workspace):
    job_id = jobs.submit(workspace, [recipe(steps=100, sleep=0.1)], name="slow")
    job = eventually(lambda: (j := there(jobs.job(workspace, job_id))).stage.startswith("Generating answers") and j)
    assert job.state == "running" and 0 <= job.progress < 1 and there(job.eta_seconds) > 0
    assert job.stage.startswith("Generating answers · harmful ")


def test_how_wrong_the_remaining_time_was_is_kept_and_speeds_are_learnt_for_the_next_job(workspace):
    assert jobs.eta_error(workspace) is None
    job_id = jobs.submit(workspace, [recipe(stage="merge", steps=20, sleep=0.15)], name="timed")
    job = jobs.wait(workspace, job_id, timeout=20)
    assert job.eta_error is not None and job.eta_error == jobs.eta_error(workspace)
    scope = f"{job.device}/{BASE.sha256[:12]}"
    assert 0.1 < Queue(workspace).rates(scope)["first:merge"] < 0.5


def test_a_second_job_waits_for_the_device_and_starts_by_itself(workspace):
    first = jobs.submit(workspace, [recipe(0.1, steps=10, sleep=0.1)], name="first")
    second = jobs.submit(workspace, [recipe(0.2)], name="second")
    third = jobs.submit(workspace, [recipe(0.3)], name="third")
    assert [there(jobs.job(workspace, j)).queue_position for j in (first, second, third)] == [None, 1, 2]
    assert there(jobs.job(workspace, third)).stage == "Waiting, place 2 in the queue"
    # Only the queue is read from here on: nobody but the workers themselves keeps it moving.
    queue = Queue(workspace)
    eventually(lambda: there(queue.job(third)).state == "done")
    ended = [there(queue.job(j)) for j in (first, second, third)]
    assert [job.state for job in ended] == ["done"] * 3
    for before, after in pairwise(ended):
        assert there(before.finished_at) <= there(after.started_at)


def test_jobs_on_different_devices_run_side_by_side(workspace):
    for device in ("cuda:0", "cuda:1"):
        jobs.submit(workspace, [recipe(steps=100, sleep=0.1, device=device)], name=device, device=device)
    assert [job.state for job in jobs.jobs(workspace)] == ["running", "running"]


def test_an_inspection_does_not_wait_behind_a_sweep(workspace):
    jobs.submit(workspace, [recipe(steps=100, sleep=0.1)], name="long")
    sources = {"base": BASE, "utility": A5, "safety": A7}
    job_id = jobs.submit(workspace, [], name="A5 and A7", kind="inspect", sources=sources)
    assert jobs.wait(workspace, job_id, timeout=20).state == "done"
    assert next(iter(read_events(workspace.pairs / "pair")))["utility"] == A5.sha256


def test_a_user_error_is_one_line_and_any_other_error_is_named_with_its_traceback_in_the_log(workspace):
    job_id = jobs.submit(workspace, [recipe(ends="data")], name="bad data")
    job = jobs.wait(workspace, job_id, timeout=20)
    assert (job.state, job.error) == ("failed", "prompts.csv: it has no rows. Choose another file.")
    assert "Traceback" not in jobs.log_tail(workspace, job_id)
    job_id = jobs.submit(workspace, [recipe(ends="bug")], name="bug")
    assert jobs.wait(workspace, job_id, timeout=20).error == "ZeroDivisionError: no luck"
    assert "Traceback" in jobs.log_tail(workspace, job_id)


def test_a_cancelled_queued_job_never_starts(workspace):
    first = jobs.submit(workspace, [recipe(0.1, steps=5, sleep=0.1)], name="first")
    second = jobs.submit(workspace, [recipe(0.2)], name="second")
    jobs.cancel(workspace, second)
    assert there(jobs.job(workspace, second)).state == "cancelled"
    jobs.wait(workspace, first, timeout=20)
    assert there(jobs.job(workspace, second)).state == "cancelled"
    assert last_status(workspace.run(recipe(0.2).run_id)) is None


def test_a_running_job_stops_at_its_next_look_when_cancelled(workspace):
    job_id = jobs.submit(workspace, [recipe(steps=1000, sleep=0.1)], name="long")
    eventually(lambda: there(jobs.job(workspace, job_id)).stage.startswith("Generating"))
    start = time.monotonic()
    jobs.cancel(workspace, job_id)
    assert jobs.wait(workspace, job_id, timeout=20).state == "cancelled"
    assert time.monotonic() - start < dispatch.GRACE
    assert last_status(workspace.run(recipe(steps=1000, sleep=0.1).run_id)) == "cancelled"


def test_a_worker_that_will_not_stop_is_killed_and_its_run_is_closed(workspace, monkeypatch):
    monkeypatch.setattr(dispatch, "GRACE", 0.5)
    stubborn = recipe(steps=1000, sleep=0.1, stubborn=True)
    job_id = jobs.submit(workspace, [stubborn], name="stubborn")
    eventually(lambda: there(jobs.job(workspace, job_id)).stage.startswith("Generating"))
    jobs.cancel(workspace, job_id)
    assert jobs.wait(workspace, job_id, timeout=20).state == "cancelled"
    assert last_status(workspace.run(stubborn.run_id)) == "cancelled"


def test_a_run_whose_file_a_killed_process_still_holds_is_closed_once_it_lets_go(workspace):
    held = recipe(0.4)
    Queue(workspace).add("held", kind="merge", name="h", user="", device="cpu", spec={}, run_ids=[held.run_id])
    with EventWriter(workspace.run(held.run_id)) as events:
        events.write("run_started", recipe=held)
        letting_go = threading.Timer(0.3, events.close)
        letting_go.start()
        dispatch.close_runs(workspace, there(Queue(workspace).job("held")))
        letting_go.join()
    assert last_status(workspace.run(held.run_id)) == "cancelled"


def test_a_killed_worker_shows_as_lost_and_its_job_can_be_resumed(workspace):
    recipes = [recipe(0.1), recipe(0.2, steps=1000, sleep=0.1), recipe(0.3)]
    job_id = jobs.submit(workspace, recipes, name="sweep", kind="sweep")
    eventually(lambda: there(jobs.job(workspace, job_id)).point == 1)
    (_, process, _, _) = Queue(workspace).running()[0]
    os.kill(process.pid, signal.SIGKILL)
    job = eventually(lambda: (j := there(jobs.job(workspace, job_id))).state == "lost" and j, 5)
    assert "killed" in there(job.error)
    first = workspace.run(recipes[0].run_id) / "events.jsonl"
    before = first.read_bytes()
    jobs.resume(workspace, job_id)
    job = eventually(lambda: (j := there(jobs.job(workspace, job_id))).state == "running" and j.point == 1 and j)
    assert job.error is None
    assert first.read_bytes() == before  # the finished run was skipped
    jobs.cancel(workspace, job_id)


def test_a_pid_that_was_given_to_another_process_is_not_taken_for_the_worker(workspace):
    queue = Queue(workspace)
    queue.add("old", kind="merge", name="old", user="", device="cpu", spec={}, run_ids=["r"])
    me = Process.of(os.getpid())
    queue.start_one(lambda *_: Process(me.pid, me.started - 1, me.host))
    assert there(jobs.job(workspace, "old")).state == "lost"


def test_a_zombie_counts_as_dead():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = Process.of(child.pid)
    assert process.alive()
    child.kill()
    eventually(lambda: not process.alive(), 5)
    child.wait()


def test_a_silent_worker_of_another_machine_is_lost_after_a_minute(workspace, monkeypatch):
    queue = Queue(workspace)
    queue.add("far", kind="merge", name="far", user="", device="cpu", spec={}, run_ids=["r"])
    queue.start_one(lambda *_: Process(1, 1, "elsewhere"))
    assert there(jobs.job(workspace, "far")).state == "running"
    monkeypatch.setattr(dispatch, "SILENCE", -1.0)
    assert there(jobs.job(workspace, "far")).state == "lost"


def test_only_one_of_many_claims_a_job(workspace):
    Queue(workspace).add("one", kind="merge", name="one", user="", device="cpu", spec={}, run_ids=["r"])
    code = (
        "import sys, os; from pathlib import Path; from sstmerge_core.workspace import Workspace;"
        "from sstmerge_core.jobs.queue import Queue; from sstmerge_core.jobs.process import Process;"
        "print(Queue(Workspace(Path(sys.argv[1]))).adopt('one', Process.of(os.getpid())))"
    )
    racers = [
        subprocess.Popen([sys.executable, "-c", code, str(workspace.root)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert sorted(racer.communicate()[0].strip() for racer in racers) == ["False", "False", "False", "True"]


def test_a_job_outlives_the_process_that_submitted_it(workspace):
    code = (
        "import sys; from pathlib import Path; from sstmerge_core import jobs; from sstmerge_core.recipe import Recipe;"
        "from sstmerge_core.workspace import Workspace; import os, signal;"
        "jobs.submit(Workspace(Path(sys.argv[1])), [Recipe.model_validate_json(sys.argv[2])], name='x');"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(workspace.root), recipe(steps=10, sleep=0.1).model_dump_json()])
    (job,) = jobs.jobs(workspace)
    assert job.state == "running"
    assert jobs.wait(workspace, job.job_id, timeout=20).state == "done"


def test_a_worker_that_cannot_be_started_fails_its_job(workspace, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no processes left")

    monkeypatch.setattr(dispatch.local, "start", refuse)
    job = there(jobs.job(workspace, jobs.submit(workspace, [recipe()], name="x")))
    assert (job.state, job.error) == ("failed", "The worker could not be started: no processes left")


def test_wrong_calls_say_what_is_wrong(workspace):
    with pytest.raises(JobError, match="nothing to merge"):
        jobs.submit(workspace, [], name="empty")
    with pytest.raises(JobError, match="no such job"):
        jobs.cancel(workspace, "nope")
    with pytest.raises(JobError, match="no such job"):
        jobs.resume(workspace, "nope")
    job_id = jobs.submit(workspace, [recipe()], name="x")
    jobs.wait(workspace, job_id, timeout=20)
    with pytest.raises(JobError, match="it is done"):
        jobs.resume(workspace, job_id)
    jobs.cancel(workspace, job_id)  # too late: nothing happens
    assert there(jobs.job(workspace, job_id)).state == "done"
    assert jobs.job(workspace, "nope") is None


def test_the_tail_of_a_log_is_what_a_terminal_would_show(workspace):
    path = workspace.logs / "j.log"
    path.write_text("".join(f"line {i}\n" for i in range(50_000)) + "10%\r50%\r100%\n")
    assert jobs.log_tail(workspace, "j", 3).splitlines() == ["line 49998", "line 49999", "100%"]
    assert jobs.log_tail(workspace, "none") == ""
    assert jobs.log_tail(workspace, "../logs/j", 1) == "100%"


def test_stages_are_told_in_words():
    assert stage_text("generate:harmful", 32, 72) == "Generating answers · harmful 32/72"
    assert stage_text("merge", 0, 1) == "Merging"
    assert stage_text("fisher", 3.0, 60) == "Computing gradients · 3/60"
    assert stage_text("some_thing", 1, 2) == "Some thing · 1/2"


def test_the_jobs_package_needs_neither_torch_nor_duckdb_nor_streamlit():
    code = (
        "import sys; import sstmerge_core.worker, sstmerge_core.jobs;"
        "print([m for m in ('torch', 'transformers', 'duckdb', 'pandas', 'streamlit') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
