"""The same sweep on actors of Ray, and on jobs as Slurm has them, by submitit's local executor."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import psutil
import pytest

from sstmerge_core import jobs
from sstmerge_core.errors import JobError
from sstmerge_core.jobs.trials import Count
from sstmerge_core.store import EventWriter
from sstmerge_core.store.events import last_status, read_events
from sstmerge_core.workspace import Workspace
from tests.jobs.conftest import eventually, recipe
from tests.there import there


def finished(workspace: Workspace, run: str) -> int:
    return [event["event"] for event in read_events(workspace.run(run))].count("run_finished")


def test_a_sweep_on_ray_loses_and_doubles_nothing_when_an_actor_is_killed(workspace: Workspace) -> None:
    pytest.importorskip("ray")
    short, long = recipe(0.1, steps=1), recipe(0.2, steps=40, sleep=0.1)
    job_id = jobs.submit(workspace, [short, long], name="sweep", kind="sweep", workers=2, backend="ray")
    eventually(lambda: finished(workspace, short.run_id) and last_status(workspace.run(long.run_id)) == "running", 200)
    (started,) = [event for event in read_events(workspace.run(long.run_id)) if event["event"] == "run_started"]
    os.kill(started["pid"], signal.SIGKILL)  # the other one has nothing to do by now
    job = jobs.wait(workspace, job_id, timeout=200)
    assert (job.state, job.error) == ("done", None), jobs.log_tail(workspace, job_id)
    assert jobs.trial_count(workspace, job_id) == Count(done=2)
    assert [finished(workspace, one.run_id) for one in (short, long)] == [1, 1]
    assert "is gone" in jobs.log_tail(workspace, job_id)
    pids = [event["pid"] for event in read_events(workspace.run(long.run_id)) if event["event"] == "run_started"]
    assert len(pids) == 2 and pids[0] != pids[1]


def test_a_sweep_on_slurm_goes_on_from_what_had_arrived(workspace: Workspace) -> None:
    pytest.importorskip("submitit")
    recipes = [recipe(alpha / 10, steps=3, sleep=0.01) for alpha in range(4)]
    with EventWriter(workspace.run(recipes[0].run_id)) as events:
        events.write("run_started", run_id=recipes[0].run_id)
        events.write("run_finished", seconds=1.0)
    job_id = jobs.submit(
        workspace, recipes, name="sweep", kind="sweep", workers=2, backend="slurm", address="local", user="ada"
    )
    job = jobs.wait(workspace, job_id, timeout=90)
    assert (job.state, job.error) == ("done", None), jobs.log_tail(workspace, job_id)
    assert [finished(workspace, one.run_id) for one in recipes] == [1] * 4


def test_a_cancelled_sweep_on_slurm_leaves_no_process(workspace: Workspace) -> None:
    pytest.importorskip("submitit")
    long = recipe(0.5, steps=1000, sleep=0.05)
    job_id = jobs.submit(workspace, [long], name="long", kind="sweep", backend="slurm", address="local")
    eventually(lambda: last_status(workspace.run(long.run_id)) == "running", 60)
    driver = psutil.Process(there(next(iter(jobs.workers(workspace)))).process.pid)
    below = driver.children(recursive=True)
    jobs.cancel(workspace, job_id)
    assert jobs.wait(workspace, job_id, timeout=30).state == "cancelled"
    assert last_status(workspace.run(long.run_id)) == "cancelled"
    _, alive = psutil.wait_procs(below, timeout=10)
    assert not alive


def test_a_backend_of_another_name_is_refused_before_anything_is_queued(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w").create()
    with pytest.raises(JobError, match="backend abacus: is not known"):
        jobs.submit(workspace, [recipe(0.1)], name="x", backend="abacus")
    with pytest.raises(JobError, match="workers 0: nobody would work"):
        jobs.submit(workspace, [recipe(0.1)], name="x", workers=0)
    assert jobs.jobs(workspace) == []


@pytest.mark.parametrize("address", ["nowhere", "host:port", "127.0.0.1:9", "ray://127.0.0.1:9", "a" * 70 + ".é:1"])
def test_a_cluster_that_does_not_answer_is_told_before_anything_is_queued(tmp_path: Path, address: str) -> None:
    workspace = Workspace(tmp_path / "w").create()
    with pytest.raises(JobError, match=rf"^address {re.escape(address)}: (is no address|nobody answers)"):
        jobs.submit(workspace, [recipe(0.1)], name="x", backend="ray", address=address)
    assert jobs.jobs(workspace) == []
